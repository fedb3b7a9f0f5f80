"""Draw the figures that a results folder allows, as pdf and png.

mustdrop figures --runs outputs/demo
mustdrop figures stages attention --runs outputs/demo --methods mustdrop --sample 3 5
mustdrop figures tradeoff --runs outputs/table1 --against tokens
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.catalogue import FIGURES, FigureRequest, figure_requests
from analysis.figures.style import save
from analysis.records.cells import load
from analysis.records.left_out import in_words

ENDINGS = (".pdf", ".png")


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw figures of a results folder; print the reason for each that cannot be drawn."""
    parser = argparse.ArgumentParser(prog="mustdrop figures", description=main.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)} (default: all)"
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
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in FIGURES]:
        parser.error(f"no figure {unknown[0]!r}: expected one of {', '.join(FIGURES)}")
    try:
        parts = figure_requests(str(options.runs), load(options.runs, options.metric))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    written = 0
    for part in parts:
        request = replace(
            part, docs=options.sample, methods=options.methods, budget=options.budget,
            against=options.against,
        )  # fmt: skip
        for name in options.names or FIGURES:
            for stem, figure in _drawn(name, request):
                for ending in ENDINGS:
                    print(save(figure, options.out / f"{stem}{ending}"))
                written += 1
    return 0 if written else 1


def _drawn(name: str, request: FigureRequest) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a name; print the reason if one cannot be drawn."""
    try:
        for stem, draw in FIGURES[name](request):
            try:
                yield stem, draw()
            except ValueError as error:
                print(f"{stem}: {error}", file=sys.stderr)
    except ValueError as error:
        print(f"{request.prefix}{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
