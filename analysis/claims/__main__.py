"""Judge the claims of the paper and of this project on given runs.

mustdrop claims --runs outputs/demo outputs/table5
mustdrop claims --runs outputs/table1 --format csv
mustdrop claims --time --runs outputs/run     # the claims about time, on profiles
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from analysis.claims.hypotheses import HYPOTHESES, hypotheses
from analysis.claims.judging import judge
from analysis.claims.table import show, to_csv, to_markdown
from analysis.claims.timing import judge_times, time_sheet
from analysis.records.cells import MATCH
from analysis.records.left_out import in_words
from analysis.records.profiles import load_profiles
from analysis.records.roots import load_folders
from analysis.statistics.noninferiority import check_margin
from analysis.tables.rendering import sheet_markdown, show_sheet


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the claims on the finished runs under some folders."""
    parser = argparse.ArgumentParser(prog="mustdrop claims", description=main.__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, action="extend")
    parser.add_argument("--format", choices=("text", "md", "csv"), default="text")
    parser.add_argument(
        "--metric", help="score to read (default: the main score of each benchmark)"
    )
    parser.add_argument(
        "--only", nargs="+", help="show only these claims (id without the part from @ on)"
    )
    parser.add_argument(
        "--missing",
        action="store_true",
        help="list the claims without a measurement and the commands that measure them",
    )
    parser.add_argument(
        "--claims", type=Path, default=HYPOTHESES, help="file to read the claims from"
    )
    parser.add_argument(
        "--time", action="store_true",
        help="judge the claims about time, on the profiles (efficiency.json) under the folders",
    )  # fmt: skip
    parser.add_argument(
        "--margin",
        type=float,
        help="margin in points for every claim that has one; choose it before you look",
    )
    parser.add_argument(
        "--match", type=float, default=100 * MATCH,
        help="executed averages within this percentage count as one budget (default: %(default)g)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.time:
        return _judge_times(options)
    try:
        if not 0 <= options.match < 100:
            raise ValueError(f"match must be a percentage in [0, 100), got {options.match:g}")
        claims = hypotheses(options.claims)
        if options.margin is not None:
            margin = check_margin(options.margin)
            claims = [replace(c, margin=margin) if c.margin else c for c in claims]
        known = {_family(claim.id) for claim in claims}
        if unknown := {*(options.only or ())} - known:
            raise ValueError(f"expected claims of {sorted(known)}, got {sorted(unknown)}")
        cells = load_folders(options.runs, options.metric)
        # judge all claims, so that --only does not change the correction for their number
        judged = [
            judgement
            for judgement in judge(claims, cells, options.match / 100)
            if not options.only or _family(judgement.claim.id) in options.only
        ]
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.format == "text":
        show(judged, Console(width=None if sys.stdout.isatty() else 200), options.missing)
    else:
        text = to_csv(judged) if options.format == "csv" else to_markdown(judged, options.missing)
        print(text, end="")
    return 0


def _judge_times(options: argparse.Namespace) -> int:
    """Judge the claims about time on the profiles under some folders."""
    try:
        frame = judge_times(load_profiles(options.runs))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.format == "csv":
        print(frame.to_csv(index=False, lineterminator="\n"), end="")
    elif options.format == "md":
        print(sheet_markdown(time_sheet(frame)), end="")
    else:
        show_sheet(time_sheet(frame), Console(width=None if sys.stdout.isatty() else 200))
    return 0


def _family(claim_id: str) -> str:
    return claim_id.partition("@")[0]


if __name__ == "__main__":
    sys.exit(main())
