"""The README is true: its example runs as printed, its commands and links lead somewhere."""

import re
from pathlib import Path

import pytest

from experiments.compose import composed, conf_dir

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "executed_average" in out and "ASSISTANT" in out


def test_every_experiment_command_composes():
    commands = re.findall(r"^python experiments/run\.py(.*?)(?:#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        overrides = [part for part in command.split() if part != "-m"]
        single = [part.split(",")[0] for part in overrides]
        assert composed(*single).dropper


def test_every_method_is_in_the_table_and_nothing_else():
    told = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    methods = {path.stem for path in (conf_dir() / "method").glob("*.yaml")}
    assert told == methods - {"vanilla"}


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()


def test_every_room_of_the_tree_exists():
    (tree,) = re.findall(r"## The house\n```\n(.*?)```", README, re.DOTALL)
    top = [line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")]
    inside = [line.split()[0] for line in tree.splitlines() if line.startswith("  ")]
    assert all((ROOT / name).exists() for name in top)
    assert all((ROOT / "mustdrop" / name).exists() for name in inside)
