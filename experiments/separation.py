"""Whether the embedded model tells methods apart: bars that it has to reach, on crowded_test.

The bars: it answers by looking; it still needs its tokens at half the depth; it needs objects and
no background; random, [CLS] and text-guided selection differ by more than chance at 50, 25 and 11 %
of the tokens. The run also measures the bounds of any selection: the question's own patches kept
first (oracle) and dropped first (anti-oracle). After a stop, the same command resumes.

python experiments/separation.py
python experiments/separation.py benchmark.limit=160 output_root=quick
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.records.cells import RunResult, load
from analysis.statistics.intervals import Interval, mean_interval, paired_interval
from analysis.tables import by_type, show, summary
from experiments.cli.errors import leave
from experiments.run import run_all
from experiments.sweeps.cells import plan
from mustdrop.presets.compose import composed

BUDGETS = {"t288": 288, "t144": 144, "t64": 64}
RANKING = ("random", "cls_topk", "text_topk")  # each must beat those before it


@dataclass(frozen=True)
class Bar:
    """A number that the model has to reach.

    Attributes:
        name: Name of the bar.
        requirement: Number to reach, as text.
        measured: Measured share, or difference of two shares.
        reached: Whether the bar is reached.
    """

    name: str
    requirement: str
    measured: Interval
    reached: bool


def bars(root: Path) -> list[Bar]:
    """Compute the bars from the records of the cells.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If a cell is missing, or a record cannot be read.
    """
    done = load(root)

    def cell_of(method: str, budget: str = "none", image: str | None = None, **fields: object):
        for cell in done:
            stages = {**(cell["config"]["vision"] or {}), **(cell["config"]["prefill"] or {})}
            named = (cell["method"], cell["budget"], cell.image)
            if named == (method, budget, image) and fields.items() <= stages.items():
                return cell
        shown = f" with image {image}" if image else ""
        raise ValueError(f"no finished cell under {root}: {method} at {budget}{shown}")

    vanilla = cell_of("vanilla")
    seen = mean_interval(vanilla.samples["score"])
    blind = mean_interval(cell_of("vanilla", image="wrong").samples["score"])
    half = difference(vanilla, cell_of("random", layer=5))
    background = difference(vanilla, cell_of("oracle", mark="object_patches"))
    made = [
        Bar("all tokens", ">= 90 %", seen, seen.value >= 0.90),
        Bar("blind: another question's image", "<= 35 %", blind, blind.value <= 0.35),
        Bar("random, a tenth kept from half the depth on", "costs >= 15", half, half.value >= 0.15),
        Bar("background dropped, objects kept", "costs <= 3", background, background.value <= 0.03),
    ]
    for budget, tokens in BUDGETS.items():
        arms = {method: [cell_of(method, budget)] for method in RANKING}
        arms["text_topk"].append(cell_of("text_topk", keep=tokens))
        for worse, better in combinations(RANKING, 2):
            for arm in arms[better]:
                gain = difference(arm, arms[worse][0])
                average = f"{arm.executed:.0f} on average"
                name = f"{better} ({average}) over {worse} ({BUDGETS[budget]})"
                made.append(Bar(name, "> 0 for certain", gain, gain.low > 0))
    return made


def difference(first: RunResult, second: RunResult) -> Interval:
    """Subtract the mean of the second from that of the first, over the samples of both."""
    shared = first.samples.index.intersection(second.samples.index)
    return paired_interval(first.samples.loc[shared, "score"], second.samples.loc[shared, "score"])


def table(made: Sequence[Bar]) -> Table:
    """Format the bars, in percent and points."""
    columns = ("bar", "required", "measured [95 %]", "n", "reached")
    out = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for bar in made:
        measured, reached = bar.measured, "yes" if bar.reached else "NO"
        value, low, high = (100 * x for x in (measured.value, measured.low, measured.high))
        interval = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        out.add_row(bar.name, bar.requirement, interval, str(measured.n), reached)
    return out


def write_bars(made: Sequence[Bar], root: Path, console: Console) -> None:
    """Print the bars, and write them to ``bars.csv``."""
    rows = [
        {"name": bar.name, "asked": bar.requirement, "reached": bar.reached, **vars(bar.measured)}
        for bar in made
    ]
    pd.DataFrame(rows).to_csv(root / "bars.csv", index=False)
    console.print(table(made))


def main(overrides: Sequence[str]) -> None:
    """Run the unfinished cells, then show all results."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    configs = [composed(*cell.overrides) for cell in plan("separation", overrides)]
    records = list(run_all(configs, console))
    root = Path(records[0]["config"]["output_root"], "separation")
    console.print()
    show(summary(root), console)
    show(by_type(root), console)
    write_bars(bars(root), root, console)
    console.print(f"samples and records: {root}; the bars: {root / 'bars.csv'}", markup=False)


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
