"""The README is true: its example runs as printed, its commands and links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from mustdrop.presets.compose import composed, conf_dir

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "executed_average" in out and "ASSISTANT" in out


def test_every_experiment_command_composes():
    commands = re.findall(r"^mustdrop run(.*?)(?:#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        overrides = [part for part in shlex.split(command) if part != "-m"]
        single = [re.sub(r"glob\(.*\)", "mustdrop", part.split(",")[0]) for part in overrides]
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
    inside = [line.split()[0] for line in tree.splitlines() if re.match(r"  \S", line)]
    assert all((ROOT / name).exists() for name in top)
    assert all((ROOT / "mustdrop" / name).exists() for name in inside)


def test_demo_numbers_are_those_of_the_record():
    record = pd.read_csv(ROOT / "experiments/records/demo.csv")
    record = record[record.variant.isna()].set_index(["method", "budget"])
    rows = re.findall(
        r"^\| (\w+) \| (\w+) \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \|.*\| ([\d.]+) \| (\d+) \|$",
        README,
        re.MULTILINE,
    )
    assert len(rows) == len(record)
    for method, budget, accuracy, low, high, flops, kilobytes in rows:
        cell = record.loc[(method, budget)]
        told = [f"{100 * cell[name]:.1f}" for name in ("accuracy", "low", "high")]
        assert told == [accuracy, low, high]
        assert f"{cell.flops_ratio:.3f}" == flops and f"{cell.kv_bytes / 1000:.0f}" == kilobytes


def test_numbers_of_every_method_are_those_of_the_record():
    record = pd.read_csv(ROOT / "experiments/records/rivals.csv")
    record = record[record.variant.isna() & (record.budget != "none")]
    (table,) = re.findall(r"\| method \| t192 \| t128 \| t64 \|\n.*\n((?:\|.*\|\n)+)", README)
    told = {row.split(" | ")[0].strip("| "): row for row in table.splitlines()}
    assert told.keys() == set(record.method)
    for method, cells in record.groupby("method"):
        parts = told[method].strip("|").split("|")[1:]
        for budget, part in zip(("t192", "t128", "t64"), parts, strict=True):
            (cell,) = cells[cells.budget == budget].itertuples()
            assert part.strip() == percent(cell), (method, budget)


def percent(cell) -> str:
    """Accuracy, gain over random tokens on its own schedule, count where it is off its budget."""
    if pd.notna(cell.floor):
        return f"floor {cell.floor:g}"
    told = f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
    if pd.notna(cell.vs_schedule):
        gain, low, high = (
            100 * value for value in (cell.vs_schedule, cell.vs_schedule_low, cell.vs_schedule_high)
        )
        told += f"; {gain:+.1f} [{low:+.1f}, {high:+.1f}]"
    off = abs(cell.executed_average / float(cell.budget[1:]) - 1) > 0.01
    return told + (f" ({cell.executed_average:.0f})" if off else "")


def test_bench_numbers_are_those_of_the_record():
    record = json.loads((ROOT / "experiments/records/bench.json").read_text())
    medians = {row["case"]: f"{row['median']:.3f}" for row in record["rows"]}
    (told,) = re.findall(r"^\| it is fast \| (.*) \|$", README, re.MULTILINE)
    for case, median in medians.items():
        assert median in told or not case.endswith("/ floor")
    for case in (case for case in medians if case.endswith("/ floor")):
        assert float(medians[case]) <= 1.03
    assert float(medians["hooks, nothing dropped / plain"]) <= 1.02


def test_claims_are_those_of_the_record():
    record = pd.read_csv(ROOT / "experiments/records/claims.csv")
    known = set()
    for row in record.dropna(subset=["difference"]).to_dict("records"):
        ends = row["difference"], row["low"], row["high"]
        # what adaptive counts add is flat random dropping's loss
        for told in (ends, (-ends[0], -ends[2], -ends[1])):
            known.add(tuple(f"{value + 0.0:.1f}".replace("-0.0", "0.0") for value in told))
    text = (ROOT / "README.md").read_text()
    table = text.partition("| claim | on the embedded model |")[2].partition("**Figures**")[0]
    lines = [line.partition("; both over")[0] for line in table.splitlines()]  # those need --match
    found = re.findall(r"([+-]?\d+\.\d) \[(-?\d+\.\d), (-?\d+\.\d)\]", "\n".join(lines))
    assert len(found) == 21
    for value, low, high in found:
        assert (value.lstrip("+"), low, high) in known, (value, low, high)
    judged = (record["verdict"] != "not measured").sum()
    assert f"400 questions; {judged} claims" in text
