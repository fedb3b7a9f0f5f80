"""Draw the figures that a results folder allows, as pdf and png.

mustdrop figures --runs outputs/demo
mustdrop figures stages attention --runs outputs/demo --methods mustdrop --sample 3 5
mustdrop figures tradeoff --runs outputs/table1 --against tokens
mustdrop figures film frames --runs outputs/table2   # of videos
mustdrop figures speed --runs outputs/run            # of mustdrop profile
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.catalogue import FIGURES, Offer
from analysis.figures.request import figure_requests
from analysis.figures.speed import offer_speed
from analysis.figures.style import save
from analysis.records.cells import load
from analysis.records.left_out import in_words
from analysis.records.profiles import profiled

ENDINGS = (".pdf", ".png")
SPEED = "speed"  # figures of profiles, which need no evaluated run


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw figures of a results folder; print the reason for each that cannot be drawn."""
    known = (*FIGURES, SPEED)
    parser = argparse.ArgumentParser(prog="mustdrop figures", description=main.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="FIGURE", help=f"{', '.join(known)} (default: all)"
    )
    parser.add_argument(
        "--runs", type=Path, required=True, help="results folder, such as outputs/demo"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    parser.add_argument("--sample", type=int, nargs="+", default=[], metavar="DOC_ID")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD")
    parser.add_argument(
        "--budget", help="budget of single samples, such as t64 (default: smallest)"
    )
    costs = ("tokens", "flops", "latency")
    parser.add_argument("--against", nargs="+", choices=costs, default=costs)
    parser.add_argument("--metric", help="score to read (default: main score of the benchmark)")
    options = parser.parse_intermixed_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no figure {unknown[0]!r}: expected one of {', '.join(known)}")
    of_runs = [name for name in options.names if name != SPEED] or (
        [] if options.names else list(FIGURES)
    )
    written = 0
    if SPEED in options.names or (not options.names and profiled(options.runs)):
        try:
            written += _saved(offer_speed(options.runs), options.out)
        except (ValueError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
    if not of_runs:
        return 0 if written else 1
    try:
        parts = figure_requests(str(options.runs), load(options.runs, options.metric))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 0 if written else 1
    for part in parts:
        request = replace(
            part, docs=options.sample, methods=options.methods, budget=options.budget,
            against=options.against,
        )  # fmt: skip
        for name in of_runs:
            try:
                written += _saved(FIGURES[name](request), options.out)
            except ValueError as error:
                print(f"{request.prefix}{name}: {error}", file=sys.stderr)
    return 0 if written else 1


def _saved(offers: Iterable[Offer], folder: Path) -> int:
    """Draw and save figures; print the reason for each that cannot be drawn. Returns their number.

    Raises:
        ValueError: If none of them can be offered.
    """
    written = 0
    for stem, draw in offers:
        try:
            figure = draw()
        except ValueError as error:
            print(f"{stem}: {error}", file=sys.stderr)
            continue
        for ending in ENDINGS:
            print(save(figure, folder / f"{stem}{ending}"))
        written += 1
    return written


if __name__ == "__main__":
    sys.exit(main())
