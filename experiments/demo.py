"""MustDrop and its controls at equal executed averages, on the embedded model.

Prints a table, draws a trade-off plot and overlays of what each stage dropped. After a stop, the
same command resumes.

mustdrop demo
mustdrop demo benchmark.limit=70 output_root=quick
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.cli.errors import leave
from experiments.run import run_all
from experiments.sweeps.cells import plan
from mustdrop.presets.compose import composed

DRAWN = ("mustdrop", "t128")


def overlays(record: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the dropped patches of each stage, one picture for each sample with a kept ledger."""
    from analysis.figures.overlays import draw
    from mustdrop.ledger import TokenLedger
    from mustdrop.pocket import sample
    from mustdrop.runs.folder import read_samples, run_folder, trace_path

    run_at = run_folder(record["config"])
    drawn = []
    for line in read_samples(run_at):
        trace = trace_path(run_at, line["doc_id"])
        if not trace.exists():
            continue
        question = sample(record["config"]["benchmark"]["task"]["split"], line["doc_id"])
        drawn.append(
            draw(
                question.image,
                TokenLedger.load(trace),
                folder / f"{record['method']}_{record['budget']}_{line['doc_id']}.png",
                title=f"{record['method']} at {record['budget'].removeprefix('t')}",
                question=line["question"],
                answer=line["answer"],
                target=line["target"],
                region=question.target_patches,
            )
        )
    return drawn


def main(overrides: Sequence[str]) -> None:
    """Run the unfinished cells, then show all results."""
    # in a file, a table must not be cut to 80 columns
    console = Console(width=None if sys.stdout.isatty() else 140)
    start = time.monotonic()
    configs = [composed(*cell.overrides) for cell in plan("demo", overrides)]
    records = list(run_all(configs, console))
    root = Path(records[0]["config"]["output_root"], "demo")

    from analysis.figures.tradeoff import tradeoff
    from analysis.tables import show, summary

    console.print()
    show(summary(root), console)
    pictures = [tradeoff(root, root / "tradeoff.png")]
    for record in records:
        if (record["method"], record["budget"]) == DRAWN:
            pictures += overlays(record, root / "overlays")
    console.print(f"trade-off: {pictures[0]}", markup=False)
    console.print(f"overlays: {len(pictures) - 1} in {root / 'overlays'}", markup=False)
    console.print(f"samples and records: {root}; {time.monotonic() - start:.0f} s", markup=False)


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
