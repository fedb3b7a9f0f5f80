"""The bars of the embedded default: which cells they read, and that each can fail."""

import io
import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest
from results import write
from rich.console import Console

from experiments.cli.errors import KNOWN, message
from experiments.separation import BUDGETS, RANKING, bars, table
from experiments.sweeps.cells import plan

N = 400
OVER_RANDOM = [f"cls_topk ({b} on average) over random ({b})" for b in BUDGETS.values()]
LEVELS = {"random": 0.5, "cls_topk": 0.7, "text_topk": 0.85, "oracle": 0.95, "anti_oracle": 0.3}


@lru_cache(maxsize=1)
def configs() -> list[dict]:
    return [dict(cell.config or {}) for cell in plan("separation", ["benchmark.limit=400"])]


def scores(level: float) -> tuple[float, ...]:
    return tuple(float(place < level * N) for place in range(N))


def make(root: Path, **changed: float) -> Path:
    """Finished cells of the experiment, with made-up scores; a level by the cell's name."""
    levels = {"vanilla": 0.97, "blind": 0.25, "half": 0.4, "background": 0.96, **LEVELS, **changed}
    for number, config in enumerate(configs()):
        method, budget = config["method"]["name"], config["budget"]
        stages = {name: config[name] for name in ("vision", "prefill")}
        name = method
        if config["image"]:
            name = "blind"
        elif (stages["prefill"] or {}).get("layer") == 5:
            name = "half"
        elif (stages["vision"] or {}).get("mark") == "object_patches":
            name = "background"
        write(
            root, method, budget["name"] if budget else "none", key=f"k{number}",
            scores=scores(levels[name]), executed=float(budget["tokens"] if budget else 300),
            benchmark=config["benchmark"]["name"],
            config={
                **stages, "benchmark": config["benchmark"], "budget": budget,
                "image": config["image"],
            },
        )  # fmt: skip
    return root


def test_every_bar_is_read_from_its_cell(tmp_path):
    made = {bar.name: bar for bar in bars(make(tmp_path))}
    assert all(bar.reached for bar in made.values())
    values = {name: round(bar.measured.value, 3) for name, bar in made.items()}
    assert list(values.values())[:4] == [0.97, 0.25, 0.57, 0.01]
    assert len(values) == 4 + 3 * (1 + 2 + 2)
    assert values["cls_topk (64 on average) over random (64)"] == 0.2
    assert values["text_topk (300 on average) over cls_topk (288)"] == 0.15
    assert all(bar.measured.n == N for bar in made.values())


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({"vanilla": 0.89, "background": 0.89}, ["all tokens"]),
        ({"blind": 0.36}, ["blind: another question's image"]),
        ({"half": 0.83}, ["random, a tenth kept from half the depth on"]),
        ({"background": 0.93}, ["background dropped, objects kept"]),
        (
            {"cls_topk": 0.5},
            [f"cls_topk ({b} on average) over random ({b})" for b in BUDGETS.values()],
        ),
    ],
)
def test_each_bar_can_fail_alone(tmp_path, changed, fails):
    made = bars(make(tmp_path, **changed))
    assert [bar.name for bar in made if not bar.reached] == fails
    console = Console(width=160, file=io.StringIO())
    console.print(table(made))
    told = console.file.getvalue()
    assert told.count("NO") == len(fails) and told.count("yes") == len(made) - len(fails)


def test_a_cell_that_is_missing_is_named(tmp_path):
    root = make(tmp_path)
    for record in root.rglob("record.json"):
        if json.loads(record.read_text())["method"] == "cls_topk":
            record.unlink()
    with pytest.raises(ValueError, match=r"no finished cell under .*: cls_topk at t288"):
        bars(root)


@pytest.mark.parametrize("wrong", ["foo=bar", "method=nothing", "benchmark.limit"])
def test_a_wrong_override_is_known_input_and_one_message(wrong):
    with pytest.raises(KNOWN) as found:
        plan("separation", [wrong])
    assert wrong.partition("=")[0].partition(".")[0] in message(found.value)


def test_cells_cover_every_arm_at_every_budget():
    names = [
        (config["method"]["name"], config["budget"] and config["budget"]["name"])
        for config in configs()
    ]
    assert {(method, budget) for method in RANKING for budget in BUDGETS} <= set(names)
    assert names.count(("text_topk", None)) == 3 and ("anti_oracle", "t64") in names


@pytest.mark.slow
def test_the_script_runs_all_of_it(tmp_path):
    command = [sys.executable, "experiments/separation.py", "benchmark.limit=8"]
    done = subprocess.run(
        [*command, f"output_root={tmp_path}"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "costs >= 15" in done.stdout and "two_hop" in done.stdout
    assert len([*tmp_path.rglob("record.json")]) == 22
    assert len(pd.read_csv(tmp_path / "separation" / "bars.csv")) == 19
