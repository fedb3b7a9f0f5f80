"""Methods at equal executed averages on PocketSmol, and the bars that this model has to reach.

Runs the unfinished cells of experiment=smol, then writes table, bars, claims, traces, figures and a
page. After a stop, the same command resumes. Two processes are faster than two threads:

mustdrop run -m experiment=smol launcher=joblib threads=1     # then the command below
python experiments/smol.py
python experiments/smol.py benchmark.limit=16 output_root=quick
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console

from analysis.claims import __main__ as claims
from analysis.figures import __main__ as figures
from analysis.records.cells import RunResult, load
from analysis.report import __main__ as report
from analysis.statistics.intervals import mean_interval
from analysis.tables import by_type, show, summary
from experiments import trace
from experiments.cli.errors import leave
from experiments.run import run_all
from experiments.separation import Bar, difference, write_bars
from experiments.sweeps.cells import plan
from mustdrop.presets.compose import composed

EXPERIMENT = "smol"
SHORT, LONG = "pocket_vqa", "pocket_long"
EXACT = "exact_match"
BUDGETS = ("t192", "t128", "t64")
# Pairs that are compared at each budget, chosen before any of them was run.
PAIRS = (("mustdrop", "fastv"), ("cls_topk", "fastv"))
# Methods and questions that figures and page show with their pictures.
TRACED, QUESTIONS = ("mustdrop", "fastv"), "0-5"


def bars(root: Path) -> list[Bar]:
    """Compute the bars from the records of the cells.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If a cell is missing, or a record cannot be read.
    """
    done = load(root)

    def cell_of(method: str, budget: str = "none", *, image: str | None = None, **fields: object):
        return _cell(done, SHORT, method, budget, image, fields)

    vanilla, long = cell_of("vanilla"), _cell(done, LONG, "vanilla", "none", None, {})
    exact = _cell(load(root, EXACT), LONG, "vanilla", "none", None, {})
    seen, blind = (
        mean_interval(cell.samples["score"])
        for cell in (vanilla, cell_of("vanilla", image="wrong"))
    )
    items, whole = (mean_interval(cell.samples["score"]) for cell in (long, exact))
    half = difference(vanilla, cell_of("random", layer=14))
    background = difference(vanilla, cell_of("oracle", mark="object_patches"))
    made = [
        Bar("crowded scenes, all tokens", ">= 85 %", seen, seen.value >= 0.85),
        Bar("long answers, all tokens: items", ">= 85 %", items, items.value >= 0.85),
        Bar("long answers, all tokens: exact", ">= 40 %", whole, whole.value >= 0.40),
        Bar("blind: another question's image", "<= 35 %", blind, blind.value <= 0.35),
        Bar("random, a tenth kept from half the depth on", "costs >= 15", half, half.value >= 0.15),
        Bar("background dropped, objects kept", "costs <= 4", background, background.value <= 0.04),
    ]
    for budget in BUDGETS:
        for first, second in PAIRS:
            gain = difference(cell_of(first, budget), cell_of(second, budget))
            apart = gain.low > 0 or gain.high < 0
            made.append(
                Bar(f"{first} over {second}, {budget}", "not 0, at one budget", gain, apart)
            )
    return made


def _cell(
    done: Sequence[RunResult],
    benchmark: str,
    method: str,
    budget: str,
    image: str | None,
    fields: dict[str, object],
) -> RunResult:
    for cell in done:
        stages = {**(cell["config"]["vision"] or {}), **(cell["config"]["prefill"] or {})}
        named = (cell["benchmark"], cell["method"], cell["budget"], cell.image)
        if named == (benchmark, method, budget, image) and fields.items() <= stages.items():
            return cell
    shown = f" with image {image}" if image else ""
    raise ValueError(f"no finished cell: {method} at {budget} on {benchmark}{shown}")


def write(root: Path, console: Console) -> int:
    """Write what the finished cells say, next to them; each number comes from a record.

    Returns:
        Exit code: 1 if a question that is traced got another answer than its record has.

    Raises:
        ValueError: If a cell of the bars is missing.
    """
    frame = summary(root)
    frame.to_csv(root / "summary.csv", index=False)
    console.print()
    show(frame, console)
    show(by_type(root), console)
    write_bars(bars(root), root, console)
    claims.main(["--runs", str(root)])
    with (root / "claims.csv").open("w", encoding="utf-8") as file, redirect_stdout(file):
        claims.main(["--runs", str(root), "--format", "csv"])
    code = trace.main([str(root), "--methods", ",".join(TRACED), "--samples", QUESTIONS])
    figures.main(["--runs", str(root), "--out", str(root / "figures"), "--against", "tokens"])
    report.main([str(root)])
    return code


def main(overrides: Sequence[str]) -> int:
    """Run the unfinished cells, then write and show all results; return the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    start = time.monotonic()
    configs = [composed(*cell.overrides) for cell in plan(EXPERIMENT, overrides)]
    records = list(run_all(configs, console))
    root = Path(records[0]["config"]["output_root"], EXPERIMENT)
    code = write(root, console)
    console.print(f"samples and records: {root}; {time.monotonic() - start:.0f} s", markup=False)
    return code


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
