"""Figures of profiles: parts of the time to the first token, time and memory by length, break-even.

Knows nothing about models: everything follows from :mod:`analysis.records.profiles`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from analysis.figures.style import (
    BLUE,
    DOUBLE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    look,
    rule,
    sheet,
    styled,
)
from analysis.records.profiles import PARTS, load_profiles, profile_frame

COLOURS = dict(
    zip(PARTS, (GREY, BLUE, VERMILION, PURPLE, SKY, ORANGE, GREEN, "0.8"), strict=True)
)  # fmt: skip
MIB = 2**20


def offer_speed(root: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """File names and functions of the figures of each model and device with profiles in a folder.

    Raises:
        ValueError: If there is no profile.
    """
    frame = profile_frame(load_profiles([root]))
    groups = [group for _, group in frame.groupby(["model", "device", "dtype"], sort=False)]
    for number, group in enumerate(groups, 1):
        end = f"_{number}" if len(groups) > 1 else ""
        yield f"speed_parts{end}", partial(draw_parts, group)
        yield f"speed_lengths{end}", partial(draw_lengths, group)
        yield f"speed_break_even{end}", partial(draw_break_even, group)


def arm_name(row: Any) -> str:
    """Name of a row: the method for its arm, else the arm and the method that it belongs to."""
    if row["arm"] == "vanilla":
        return "vanilla"
    return row["method"] if row["arm"] == "method" else f"{row['arm']} of {row['method']}"


def lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the longest prompt at the smallest batch, with vanilla once."""
    batch = frame["batch"] == frame["batch"].min()
    rows: Any = frame[
        batch & (frame["vision_tokens"] == frame[batch]["vision_tokens"].max())
    ].copy()
    rows["name"] = [
        f"{arm_name(row)} {row['budget']}" if row["arm"] != "vanilla" else "vanilla"
        for _, row in rows.iterrows()
    ]
    return rows.drop_duplicates("name").reset_index(drop=True)


@styled
def draw_parts(frame: pd.DataFrame) -> Figure:
    """Stacked time of each part, one bar per arm."""
    rows: Any = lines(frame)[::-1].reset_index(drop=True)
    figure = sheet(DOUBLE, 0.8 + 0.2 * len(rows))
    ax: Axes = figure.subplots()
    left = np.zeros(len(rows))
    for part in PARTS:
        width = rows[f"part_{part}_ms"].fillna(0.0).to_numpy()
        ax.barh(rows["name"], width, left=left, color=COLOURS[part], label=part, height=0.7)
        left += width
    ax.set_xlabel("ms to the first token, medians")
    top = rows.iloc[-1]
    ax.set_title(
        f"{top['model']}, {top['vision_tokens']} vision tokens, batch {top['batch']}, "
        f"{top['device']}, {top['dtype']}",
        loc="left",
    )
    figure.legend(ncols=8, loc="outside lower center")
    return figure


@styled
def draw_lengths(frame: pd.DataFrame) -> Figure:
    """Time to the first token and peak memory against the number of vision tokens."""
    figure = sheet(DOUBLE, 2.4)
    axes: Sequence[Axes] = figure.subplots(1, 2)
    rows: Any = frame[frame["batch"] == frame["batch"].min()].copy()
    rows["name"] = [arm_name(row) for _, row in rows.iterrows()]
    for name, lines_of_arm in rows[rows["arm"] != "reference"].groupby("name", sort=False):
        points = lines_of_arm.groupby("vision_tokens").median(numeric_only=True)
        style = look(str(name).removeprefix("random of "))
        if str(name).startswith("random"):
            style |= {"linestyle": ":"}
        for ax, column, unit in zip(axes, ("ttft_ms", "peak_bytes"), (1, MIB), strict=True):
            ax.plot(points.index, points[column] / unit, ms=3, label=name, **style)
    for ax, text in zip(axes, ("ms to the first token", "peak memory, MiB"), strict=True):
        ax.set_xlabel("vision tokens of a prompt")
        ax.set_ylabel(text)
        rule(ax)
    axes[0].legend()
    return figure


@styled
def draw_break_even(frame: pd.DataFrame) -> Figure:
    """Map of time over vanilla's, by length and batch, for the first token and a whole answer."""
    rows: Any = frame[frame["arm"] == "method"]
    methods = list(dict.fromkeys(zip(rows["method"], rows["budget"], strict=True)))
    answer = int(rows["new_tokens"].max())
    columns = {"vs_vanilla": "first token", "e2e_vs_vanilla": f"answer of {answer}"}
    figure = sheet(DOUBLE, 0.5 + 1.5 * len(methods))
    axes = figure.subplots(len(methods), 2, squeeze=False)
    for (method, budget), line in zip(methods, axes, strict=True):
        measured: Any = rows[(rows["method"] == method) & (rows["budget"] == budget)]
        for ax, (column, text) in zip(line, columns.items(), strict=True):
            table = measured.pivot_table(column, "batch", "vision_tokens", "median", dropna=False)
            _map(ax, table)
            ax.set_title(f"{method} {budget}: {text} / vanilla", loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("vision tokens of a prompt")
    for ax in axes[:, 0]:
        ax.set_ylabel("batch")
    return figure


def _map(ax: Axes, table: pd.DataFrame) -> None:
    """Cells with their ratio: purple where the method is faster, orange where it is slower."""
    norm = TwoSlopeNorm(1.0, 0.2, 1.8)
    ax.imshow(table, cmap="PuOr_r", norm=norm, aspect="auto", origin="lower")
    ax.set_xticks(range(table.shape[1]), [str(tokens) for tokens in table.columns])
    ax.set_yticks(range(table.shape[0]), [str(batch) for batch in table.index])
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        text = "" if np.isnan(value) else f"{value:.2f}"
        ax.text(column, row, text, ha="center", va="center")
