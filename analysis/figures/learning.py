"""Figure of a training curve: validation accuracy of each question type over time, and stages.

    python -m analysis.figures.learning outputs/train_pocket/curve.csv curve.png

Knows nothing about models: reads only the file of the curve.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.style import BLACK, COLOURS, DOUBLE, GREY, SMALL, STYLE, save

ROW = 4.5  # height of a row of names of stages, on the axis of accuracy
LETTER = 0.012  # width of a letter of these names, as a share of the axis of time


def learning(curve: Path | str, path: Path | str) -> Path:
    """Draw validation accuracy by question type against minutes, and the mean of all types.

    Args:
        curve: File written by ``mustdrop.pocket.training.curve``.
        path: Output file; its suffix sets the format.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the curve has no validation.
    """
    lines = pd.read_csv(curve)
    lines["minutes"] = lines["seconds"] / 60
    columns = list(lines.columns)
    kinds = columns[columns.index("right") + 1 : columns.index("minutes")]
    scored = lines.dropna(subset=kinds, how="all")
    if scored.empty:
        raise ValueError(f"{curve} has no validation yet")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, kind in enumerate(kinds):
            style = "-" if number < len(COLOURS) else ":"
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                scored["minutes"], 100 * scored[kind], style, color=colour, lw=1.1, label=kind
            )
        mean = 100 * scored[kinds].mean(axis=1)
        axes.plot(scored["minutes"], mean, color=BLACK, lw=2.2, label="mean of types")
        minutes, names = lines["minutes"].tolist(), lines["stage"].tolist()
        begins, ends = 0.0, [0.0]  # of the next stage; of the last name in each row of names
        for stage in dict.fromkeys(names):
            axes.axvline(begins, color=GREY, lw=0.6)
            row = next((row for row, end in enumerate(ends) if end <= begins), len(ends))
            axes.annotate(stage, (begins, 101 + ROW * row), fontsize=SMALL, color=GREY)
            ends[row : row + 1] = [begins + (len(stage) + 1) * LETTER * minutes[-1]]
            begins = max(
                minute for minute, name in zip(minutes, names, strict=True) if name == stage
            )
        axes.set(ylim=(0, 101 + ROW * len(ends)), xlim=(0, None), xlabel="minutes of training")
        axes.set_ylabel("correct answers, % (validation)")
        axes.legend(frameon=False, fontsize=SMALL, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(figure, Path(path))


def main(arguments: Sequence[str]) -> int:
    """Draw the curve in the first file into the second file."""
    if len(arguments) != 2:
        print("usage: python -m analysis.figures.learning CURVE.csv PICTURE.png", file=sys.stderr)
        return 2
    try:
        print(learning(*arguments))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
