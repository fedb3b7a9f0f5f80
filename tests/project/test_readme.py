"""The README is true: its example runs, its commands and links work, its numbers are records."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from mustdrop.cli.main import COMMANDS
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "executed_average" in out and "ASSISTANT" in out


def test_every_command_exists_and_every_run_composes():
    commands = re.findall(r"^mustdrop (\w+)(.*?)(?:#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 6
    for name, arguments in commands:
        assert name in COMMANDS
        if name == "run":
            overrides = [part for part in shlex.split(arguments) if part != "-m"]
            single = [part.split(",")[0] for part in overrides]
            assert composed(*single).dropper


def test_it_is_short_and_names_the_models_on_its_first_screen():
    lines = README.splitlines()
    assert len(lines) <= 160
    first = "\n".join(lines[:40])
    assert "LLaVA-1.5" in first and "no real checkpoint has been evaluated" in first


def test_it_counts_the_presets_and_the_rows_of_the_record():
    presets = len(list((conf_dir() / "method").glob("*.yaml")))
    record = pd.read_csv(ROOT / "experiments/records/rivals.csv")
    assert f"{presets} presets" in README
    assert f"All {len(record)} runs of the {record.method.nunique()} presets" in README


def test_its_speeds_are_those_of_the_records():
    records = ROOT / "experiments/records"
    (row,) = re.findall(r"^\| speed \|(.*)$", README, re.MULTILINE)
    bench, token, harness = (
        json.loads((records / f"{name}.json").read_text())
        for name in ("bench", "first_token", "harness")
    )
    ratios = [
        f"{one['median']:.3f}" for one in bench["rows"]
        if (one["shape"], one.get("batch")) == ("llava15", 1) and "executed / ref" in one["case"]
    ]  # fmt: skip
    assert f"{min(ratios)} to {max(ratios)}" in row
    faster = token["arms"]["mustdrop"]["faster"]
    assert "{median:.2f} [{low:.2f}, {high:.2f}]".format(**faster) in row
    assert f"{harness['wall']['median']:.2f} of a bare loop" in row


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()


def test_every_path_of_the_layout_exists():
    (tree,) = re.findall(r"## Project layout\n```\n(.*?)```", README, re.DOTALL)
    for line in tree.splitlines():
        folder = ROOT / "mustdrop" if line.startswith("  ") else ROOT
        paths = re.match(r" *((?:\S+(?:/|\.py) ?)+)", line).group(1).split()
        assert paths and all((folder / path).exists() for path in paths), line


def test_the_numbers_of_both_embedded_models_are_those_of_the_records():
    records = [answered(name) for name in ("demo", "smol")]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) == 8
    columns = [(record, budget) for record in records for budget in ("t192", "t128", "t64")]
    for method, cells in rows:
        for (record, budget), score in zip(columns, cells.split(" | "), strict=True):
            known = (method, budget) in record.index
            assert score == (text(record.loc[(method, budget)]) if known else "–"), method
    whole = [text(record.loc[("vanilla", "none")]) for record in records]
    prose = " ".join(README.split())
    assert f"all tokens PocketLLaVA answers {whole[0]}, PocketSmol {whole[1]}." in prose


def answered(name):
    """Rows of a record on PocketVQA, by method and budget, without variants and image controls."""
    record = pd.read_csv(ROOT / f"experiments/records/{name}.csv")
    plain = record.variant.isna() & record.image.isna() & (record.benchmark == "pocket_vqa")
    return record[plain].set_index(["method", "budget"])


def text(cell) -> str:
    """Accuracy with its interval, in percent."""
    value, low, high = (f"{100 * cell[name]:.1f}" for name in ("accuracy", "low", "high"))
    return f"{value} [{low}, {high}]"
