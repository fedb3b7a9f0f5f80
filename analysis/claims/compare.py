"""Compare any two runs: runs of this project, or sample logs of lmms-eval.

python -m analysis.claims.compare outputs/.../pocket_vqa-1b3043 outputs/.../pocket_vqa-d60469
python -m analysis.claims.compare a_samples_gqa.jsonl b_samples_gqa.jsonl --margin 1 \
    --cluster imageId --documents gqa.parquet
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.judgement import points
from analysis.claims.pairing import pair
from analysis.claims.table import probability
from analysis.records.cells import agree, load_runs
from analysis.records.left_out import in_words
from analysis.records.logs import read_log
from analysis.statistics.difference import Difference, difference
from analysis.statistics.intervals import mean_interval
from analysis.statistics.noninferiority import check_margin, noninferior
from analysis.statistics.pairs import design_effect

DECIDED = {
    "yes": "yes: the whole interval lies above",
    "no": "no: the whole interval lies below",
    "open": "open: the interval contains",
}


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Print how much better run A scores than run B on the documents that both answered."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.claims.compare", description=main.__doc__
    )
    source = "a run folder, an lmms-eval *_samples_*.jsonl, or a folder with one of these"
    parser.add_argument("a", type=Path, help=source)
    parser.add_argument("b", type=Path, help=source)
    parser.add_argument(
        "--metric", help="score to compare (default: main score of a run, only score of a log)"
    )
    parser.add_argument("--cluster", help="field of a log that names the image of a document")
    parser.add_argument(
        "--documents", type=Path, help="table with the field of --cluster, if the log lacks it"
    )
    parser.add_argument(
        "--margin", type=float, help="points that A may be worse; choose it before you look"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    options = parser.parse_args(arguments)
    try:
        if options.documents and not options.cluster:
            raise ValueError("--documents needs --cluster, the column that names the image")
        margin = None if options.margin is None else check_margin(options.margin)
        sides = [
            _read(path, options.metric, options.cluster, options.documents)
            for path in (options.a, options.b)
        ]
        _same_task(sides)
        result = difference(pair(*([samples] for samples, _ in sides)), seed=options.seed)
        lines = [*_scores(result, sides), *report(result, margin)]
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def report(result: Difference, margin: float | None = None) -> list[str]:
    """Describe a difference in one line each for interval, test, margin and power.

    Args:
        result: Difference to describe.
        margin: Margin in points; None leaves its line out.
    """
    scale = points(result)
    unit = "points" if scale == 100 else "of the score"
    step = "1 point" if scale == 100 else "1 of the score"
    source = {
        "bootstrap": "bootstrap of images" if result.pairs.clustered else "bootstrap of samples",
        "binomial": "from exact counts: fewer than ten differ",
        "none": "no interval: too few samples differ, and scores are not in [0, 1]",
    }[result.method]
    ours, theirs = result.pairs.discordant
    lines = [
        f"A - B   {result.value * scale:+.2f} {unit} "
        f"[{result.low * scale:+.2f}, {result.high * scale:+.2f}] (95 %, {source})",
        f"p       {probability(result.p)} ({result.test}; A alone better {ours}, B alone {theirs})",
    ]
    if margin is not None:
        decision = noninferior(result.low * scale, result.high * scale, margin)
        lines.append(f"margin  A no worse than B by {margin:g}? {DECIDED[decision]} -{margin:g}")
    needed = result.needed(1 / scale)
    if needed is not None:
        effect = design_effect(result.pairs)
        lines.append(
            f"power   {needed} samples like these detect {step} in 80 of 100 tries (5 %); these "
            f"{result.pairs.n} detect {result.detectable * scale:.1f} (design effect {effect:.2f})"
        )
    return lines


def _read(
    path: Path, metric: str | None, cluster: str | None, documents: Path | None
) -> tuple[pd.DataFrame, float | None]:
    """Read the samples, and the executed average of a run; None for a log."""
    if path.is_dir() and not (path / "record.json").exists():
        inside = sorted([*path.rglob("record.json"), *path.rglob("*_samples_*.jsonl")])
        if len(inside) != 1:
            raise ValueError(f"expected one run or sample log in {path}, got {len(inside)}")
        path = inside[0].parent if inside[0].name == "record.json" else inside[0]
    if not path.is_dir():
        return read_log(path, metric, cluster, documents), None
    if not (cells := [cell for cell in load_runs([path], metric) if cell.metric]):
        raise ValueError(f"{path} has no samples: the run could not reach its budget")
    return cells[0].samples, cells[0].executed


def _same_task(sides: Sequence[tuple[pd.DataFrame, float | None]]) -> None:
    """Require one task in two logs: targets such as yes and no do not identify documents."""
    if any(executed is not None for _, executed in sides):
        return  # a run of this project may name the task differently than lmms-eval
    first, second = ({task for task, _ in samples.index} for samples, _ in sides)
    if first != second:
        raise ValueError(f"logs of different tasks: {sorted(first)} and {sorted(second)}")


def _scores(result: Difference, sides: Sequence[tuple[pd.DataFrame, float | None]]) -> list[str]:
    scale = points(result)
    lines = []
    for name, scores, (samples, executed) in zip(
        "AB", (result.pairs.ours, result.pairs.theirs), sides, strict=True
    ):
        mean = mean_interval(scores, result.pairs.clusters)
        tokens = "" if executed is None else f", {executed:.1f} vision tokens executed"
        left_out = f", {len(samples) - result.pairs.n} not shared" * (len(samples) > result.pairs.n)
        lines.append(
            f"{name}       {mean.value * scale:.2f} [{mean.low * scale:.2f}, "
            f"{mean.high * scale:.2f}] of {result.pairs.n}{left_out}{tokens}"
        )
    first, second = (executed for _, executed in sides)
    if first is not None and second is not None and not agree(first, second):
        lines.append("        budgets not matched: the executed averages differ by more than 1 %")
    if result.pairs.clustered:
        lines.append(f"images  {result.pairs.images}, with all their questions")
    else:
        lines.append("images  every sample counts as a separate image (see --cluster)")
    return lines


if __name__ == "__main__":
    sys.exit(main())
