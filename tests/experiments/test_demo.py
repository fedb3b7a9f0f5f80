"""The demo shows its main comparison early, and its table does not depend on the order of runs."""

from pathlib import Path

from analysis.tables import summary_of
from experiments.sweeps.cells import plan
from mustdrop.runs.folder import read_records

ROOT = Path(__file__).parents[2]
BUDGETS = ("t192", "t128", "t64")


def test_the_main_comparison_runs_first():
    configs = [cell.config for cell in plan("demo")]
    runs = [(config["method"]["name"], (config["budget"] or {}).get("name")) for config in configs]
    assert len(runs) == len(set(runs)) == 25
    assert runs[:7] == [
        ("vanilla", None),
        *(("mustdrop", budget) for budget in BUDGETS),
        *(("random", budget) for budget in BUDGETS),
    ]


def test_the_table_does_not_depend_on_the_order_of_the_runs():
    records = read_records(ROOT / "notebooks/records")
    folders = [Path(record["folder"]) for record in records][-4:]
    table, turned = summary_of(folders), summary_of(folders[::-1])
    assert table["method"][0] == "vanilla"
    assert table.equals(turned)
