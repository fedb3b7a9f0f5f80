"""Any two runs compared: ours, or anyone's by lmms-eval's sample logs.

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
    "open": "open: the interval reaches across",
}


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Say how much run A scores above run B on the documents that both answered."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.claims.compare", description=main.__doc__
    )
    what = "a run folder, an lmms-eval *_samples_*.jsonl, or a folder with one of these"
    parser.add_argument("a", type=Path, help=what)
    parser.add_argument("b", type=Path, help=what)
    parser.add_argument("--metric", help="the score (default: the run's own, the log's only one)")
    parser.add_argument("--cluster", help="of a log: the field that names a document's image")
    parser.add_argument(
        "--documents", type=Path, help="table with that field, where a log lacks it"
    )
    parser.add_argument("--margin", type=float, help="points that A may be worse: name it before")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
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
        found = difference(pair(*([samples] for samples, _ in sides)), seed=options.seed)
        lines = [*_scores(found, sides), *report(found, margin)]
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def report(found: Difference, margin: float | None = None) -> list[str]:
    """The difference in words: interval, test, margin and power, a line each.

    Args:
        found: The difference.
        margin: In points; None: nothing is said of it.
    """
    scale = points(found)
    unit = "points" if scale == 100 else "of the score"
    one = "1 point" if scale == 100 else "1 of the score"
    source = {
        "bootstrap": "bootstrap of images" if found.pairs.clustered else "bootstrap of samples",
        "binomial": "from exact counts: fewer than ten differ",
        "none": "no interval: too few differ, and scores are not in [0, 1]",
    }[found.method]
    ours, theirs = found.pairs.discordant
    lines = [
        f"A - B   {found.value * scale:+.2f} {unit} "
        f"[{found.low * scale:+.2f}, {found.high * scale:+.2f}] (95 %, {source})",
        f"p       {probability(found.p)} ({found.test}; A alone better {ours}, B alone {theirs})",
    ]
    if margin is not None:
        decision = noninferior(found.low * scale, found.high * scale, margin)
        lines.append(f"margin  A no worse than B by {margin:g}? {DECIDED[decision]} -{margin:g}")
    needed = found.needed(1 / scale)
    if needed is not None:
        effect = design_effect(found.pairs)
        lines.append(
            f"power   {needed} samples like these see {one} in 80 of 100 tries (5 %); these "
            f"{found.pairs.n} see {found.detectable * scale:.1f} (design effect {effect:.2f})"
        )
    return lines


def _read(
    path: Path, metric: str | None, cluster: str | None, documents: Path | None
) -> tuple[pd.DataFrame, float | None]:
    """The samples, and where a run of ours says so how many tokens were executed."""
    if path.is_dir() and not (path / "record.json").exists():
        inside = sorted([*path.rglob("record.json"), *path.rglob("*_samples_*.jsonl")])
        if len(inside) != 1:
            raise ValueError(f"expected one run or sample log in {path}, got {len(inside)}")
        path = inside[0].parent if inside[0].name == "record.json" else inside[0]
    if not path.is_dir():
        return read_log(path, metric, cluster, documents), None
    if not (cells := [cell for cell in load_runs([path], metric) if cell.metric]):
        raise ValueError(f"{path} reached its floor only: it has no samples")
    return cells[0].samples, cells[0].executed


def _same_task(sides: Sequence[tuple[pd.DataFrame, float | None]]) -> None:
    """Two logs must name one task: their targets alone (yes, no) tell documents badly apart."""
    if any(executed is not None for _, executed in sides):
        return  # what a run of ours is called need not be what lmms-eval calls it
    first, second = ({task for task, _ in samples.index} for samples, _ in sides)
    if first != second:
        raise ValueError(f"logs of different tasks: {sorted(first)} and {sorted(second)}")


def _scores(found: Difference, sides: Sequence[tuple[pd.DataFrame, float | None]]) -> list[str]:
    scale = points(found)
    lines = []
    for name, scores, (samples, executed) in zip(
        "AB", (found.pairs.ours, found.pairs.theirs), sides, strict=True
    ):
        one = mean_interval(scores, found.pairs.clusters)
        tokens = "" if executed is None else f", {executed:.1f} vision tokens executed"
        left_out = f", {len(samples) - found.pairs.n} not shared" * (len(samples) > found.pairs.n)
        lines.append(
            f"{name}       {one.value * scale:.2f} [{one.low * scale:.2f}, {one.high * scale:.2f}]"
            f" of {found.pairs.n}{left_out}{tokens}"
        )
    first, second = (executed for _, executed in sides)
    if first is not None and second is not None and not agree(first, second):
        lines.append("        budgets not matched: the executed averages differ by more than 1 %")
    if found.pairs.clustered:
        lines.append(f"images  {found.pairs.images}, with all their questions")
    else:
        lines.append("images  every sample taken for one of its own (--cluster names the field)")
    return lines


if __name__ == "__main__":
    sys.exit(main())
