"""Tables and the figure of the study, from its record. Knows no model."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import BLUE, GREEN, GREY, PURPLE, SKY, VERMILION, sheet, styled
from experiments.gpu.text_table import aligned

Rows = Sequence[Mapping[str, Any]]
CONDITIONS = ("bfloat16", "float16", "batch", "noise")
KINDS = ("system", "vision", "text")
WIDTH, HEIGHT = 6.75, 4.2  # inches


def tables(record: Mapping[str, Any]) -> str:
    """All tables of a record as text, with the number of questions of each."""
    rows = record["rows"]
    parts = [
        looks(rows["attention"]),
        sinks(rows["attention"]),
        equality(rows["masking"], rows["batch"]),
        stability(rows["stability"]),
        withdrawal(rows["withdrawal"], record["layers"]),
    ]
    return "\n\n".join(part for part in parts if part)


def looks(rows: Rows) -> str:
    """Where the text behind the image looks in every layer, in percent."""
    if not rows:
        return ""
    shares, last, first, top = (
        np.mean([row[name] for row in rows], 0) for name in ("shares", "last", "first", "top")
    )
    ratios = np.median([[entry["ratio"] for entry in row["massive"]] for row in rows], 0)
    lines = []
    for layer, part in enumerate(shares):
        kinds = [row["massive"][layer]["token"] for row in rows]
        most = max(sorted(set(kinds)), key=kinds.count)
        numbers = (*part, last[layer][1], first[layer], top[layer])
        lines.append(
            [str(layer), *(f"{100 * number:.1f}" for number in numbers),
             f"{ratios[layer]:.0f}", f"{most} ({kinds.count(most)})"]
        )  # fmt: skip
    header = (
        "layer", *KINDS, "vision, last token", "first token", "top of vision",
        "largest activation / median", "token of it",
    )  # fmt: skip
    return aligned(f"Attention of text, % (n = {len(rows)} questions)", header, lines)


def sinks(rows: Rows) -> str:
    """How often each method keeps the vision token that text looks at most."""
    if not rows or not rows[0]["keeps"]:
        return ""
    on_object = sum(row["sink_on_object"] for row in rows)
    lines = [
        [
            method,
            f"{100 * fmean(row['keeps'][method] for row in rows):.0f}",
            f"{fmean(row['kept'][method] for row in rows):.0f}",
        ]
        for method in rows[0]["keeps"]
    ]
    title = f"Who keeps the sink (n = {len(rows)} questions; it shows an object in {on_object})"
    return aligned(title, ("method", "kept, %", "tokens in the last layer"), lines)


def equality(rows: Rows, batches: Rows) -> str:
    """Largest relative error of dropping against masking, beside that of the batch's shape."""
    if not rows:
        return ""
    dtypes = _order(row["dtype"] for row in rows)
    methods = _order(row["method"] for row in rows)
    lines = []
    for method in methods:
        line = [method]
        for dtype in dtypes:
            chosen = [r for r in rows if (r["method"], r["dtype"]) == (method, dtype)]
            line.append(f"{max(row['error'] for row in chosen):.1e}" if chosen else "-")
        effects = [row["effect"] for row in rows if row["method"] == method]
        lines.append([*line, f"{median(effects):.1e}"])
    plain = [
        f"{max((row['error'] for row in batches if row['dtype'] == dtype), default=0.0):.1e}"
        for dtype in dtypes
    ]
    lines.append(["plain, alone or in a batch", *plain, "-"])
    n = len({row["index"] for row in rows})
    title = f"Dropping against masking, largest relative error (n = {n} questions)"
    return aligned(title, ("method", *dtypes, "effect of dropping"), lines)


def stability(rows: Rows) -> str:
    """Share of the kept tokens that changes, mean and largest over questions, in percent."""
    if not rows:
        return ""
    lines = []
    for method in _order(row["method"] for row in rows):
        chosen = [row for row in rows if row["method"] == method]
        parts = [[100 * row[name] for row in chosen] for name in CONDITIONS]
        lines.append([method, *(f"{fmean(part):.2f} ({max(part):.1f})" for part in parts)])
    n = len({row["index"] for row in rows})
    title = f"Kept tokens that change, %: mean (largest) (n = {n} questions)"
    return aligned(title, ("method", *CONDITIONS), lines)


def withdrawal(rows: Rows, depth: int) -> str:
    """What dropping all vision tokens after a layer does to the next token."""
    if not rows:
        return ""
    lines = []
    for layers in sorted({row["layers"] for row in rows}):
        chosen = [row for row in rows if row["layers"] == layers]
        same = 100 * fmean(row["same"] for row in chosen)
        kl = fmean(row["kl"] for row in chosen)
        lines.append([f"{layers} of {depth}", f"{same:.0f}", f"{kl:.2e}"])
    n = len({row["index"] for row in rows})
    title = f"Layers without vision (n = {n} questions)"
    return aligned(title, ("layers with vision", "same next token, %", "KL, nats"), lines)


@styled
def figure(record: Mapping[str, Any]) -> Figure:
    """Draw where text looks in every layer, sinks, stability, and layers without vision.

    Raises:
        ValueError: If a part has no rows.
    """
    rows = record["rows"]
    for name in ("attention", "stability", "withdrawal"):
        if not rows[name]:
            raise ValueError(f"the record has no rows of {name}: run the study without --parts")
    page = sheet(WIDTH, HEIGHT)
    (where, sink), (stable, late) = page.subplots(2, 2)
    shares = 100 * np.mean([row["shares"] for row in rows["attention"]], 0)
    for column, (kind, colour) in enumerate(zip(KINDS, (GREY, BLUE, VERMILION), strict=True)):
        where.plot(shares[:, column], color=colour, label=kind)
    where.set(title="Where text looks", xlabel="layer", ylabel="attention, %", ylim=(0, 100))
    where.legend()
    for name, colour, label in (
        ("first", GREY, "first token of the prompt"),
        ("top", BLUE, "top vision token, of vision"),
    ):
        values = 100 * np.mean([row[name] for row in rows["attention"]], 0)
        sink.plot(values, color=colour, label=label)
    sink.set(title="Sinks", xlabel="layer", ylabel="attention, %", ylim=(0, 100))
    sink.legend()
    methods = _order(row["method"] for row in rows["stability"])
    colours = (BLUE, SKY, GREEN, PURPLE)
    for number, (name, colour) in enumerate(zip(CONDITIONS, colours, strict=True)):
        values = [
            100 * fmean(row[name] for row in rows["stability"] if row["method"] == method)
            for method in methods
        ]
        heights = np.arange(len(methods)) + 0.2 * (number - 1.5)
        stable.barh(heights, values, height=0.2, color=colour, label=name)
    stable.set_yticks(range(len(methods)), methods)
    stable.invert_yaxis()
    stable.set(title="Kept tokens that change", xlabel="%")
    stable.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(CONDITIONS))
    layers = sorted({row["layers"] for row in rows["withdrawal"]})
    same = [
        100 * fmean(row["same"] for row in rows["withdrawal"] if row["layers"] == count)
        for count in layers
    ]
    late.plot(layers, same, color=BLUE, marker="o", markersize=3)
    late.set_xticks(layers)
    late.set(
        title="All vision tokens dropped after a layer", xlabel="layers that see vision",
        ylabel="same next token, %", ylim=(0, 102),
    )  # fmt: skip
    return page


def _order(names: Iterable[str]) -> list[str]:
    """Distinct names in the order of their first appearance."""
    return list(dict.fromkeys(names))
