"""The figures that a results folder allows, each as pdf and png.

python -m analysis.figures --runs outputs/demo
python -m analysis.figures stages attention --runs outputs/demo --methods mustdrop --sample 3 5
python -m analysis.figures tradeoff --runs outputs/table1 --against tokens
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.catalogue import FIGURES, FigureRequest, asked_of
from analysis.figures.style import save
from analysis.records.cells import load
from analysis.records.left_out import in_words

ENDINGS = (".pdf", ".png")


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw figures of a results folder; tell of each that cannot be drawn why."""
    parser = argparse.ArgumentParser(prog="python -m analysis.figures", description=main.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)} (default: all)"
    )
    parser.add_argument("--runs", type=Path, required=True, help="such as outputs/demo")
    parser.add_argument("--out", type=Path, default=Path("outputs/figures"))
    parser.add_argument("--sample", type=int, nargs="+", default=[], metavar="DOC_ID")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--budget", help="such as t64; for single samples (default: the smallest)")
    costs = ("tokens", "flops", "latency")
    parser.add_argument("--against", nargs="+", choices=costs, default=costs)
    parser.add_argument("--metric", help="the score to read (default: the benchmark's own)")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in FIGURES]:
        parser.error(f"no figure {unknown[0]!r}: there are {', '.join(FIGURES)}")
    try:
        parts = asked_of(str(options.runs), load(options.runs, options.metric))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    written = 0
    for part in parts:
        asked = replace(
            part, docs=options.sample, methods=options.methods, budget=options.budget,
            against=options.against,
        )  # fmt: skip
        for name in options.names or FIGURES:
            for stem, figure in _drawn(name, asked):
                for ending in ENDINGS:
                    print(save(figure, options.out / f"{stem}{ending}"))
                written += 1
    return 0 if written else 1


def _drawn(name: str, asked: FigureRequest) -> Iterator[tuple[str, Figure]]:
    """The figures of a name; of one that cannot be drawn, the reason goes to the terminal."""
    try:
        for stem, draw in FIGURES[name](asked):
            try:
                yield stem, draw()
            except ValueError as error:
                print(f"{stem}: {error}", file=sys.stderr)
    except ValueError as error:
        print(f"{asked.prefix}{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
