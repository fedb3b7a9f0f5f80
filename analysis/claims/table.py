"""Judgements as people read them: text for the terminal, Markdown, CSV.

Knows nothing about how they came about.
"""

from collections.abc import Sequence
from math import isnan

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from analysis.claims.judgement import Judgement

COLORS = {"holds": "green", "fails": "red", "not distinguishable": "yellow", "not measured": "dim"}
HEADS = ("claim", "verdict", "points [95 %]", "p", "p Holm", "n", "sees", "tokens", "on", "runs")
NOTES = (
    "points: first arm less second on the same samples, in hundredths where scores lie in [0, 1]; "
    "95 % interval by bootstrap of images with all their questions, from exact counts (c) where "
    "fewer than ten images differ. Intervals are not adjusted for their number.",
    "p: of no difference (McNemar's mid-p; sign flips by image where images have several questions "
    "or scores are not 0 and 1); where a margin stands, of a difference just at it. Verdicts go by "
    "p Holm, corrected over all claims judged here, at 5 %.",
    "n: samples (images, where fewer). sees: the least true difference in points that so many such "
    "samples find in 80 of 100 tries, before Holm. tokens: executed averages; within 1 %, unless "
    "the claim compares each at its own.",
)


def frame(judged: Sequence[Judgement]) -> pd.DataFrame:
    """A row a judgement, differences in points, at full precision."""
    return pd.DataFrame([_row(one) for one in judged])


def to_csv(judged: Sequence[Judgement]) -> str:
    """All columns."""
    return frame(judged).to_csv(index=False, lineterminator="\n")


def to_text(judged: Sequence[Judgement], missing: bool = False) -> Group:
    """For the terminal.

    Args:
        judged: The judgements.
        missing: Whether to list what is not measured; else it is counted.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in HEADS:
        words = head in ("claim", "verdict", "on", "runs")
        table.add_column(head, overflow="fold", no_wrap=not words)
    runs = _runs(judged)
    for one in judged:
        if one.verdict != "not measured":
            cells = _cells(one, runs)
            styles = ["", COLORS[one.verdict], *[""] * 8]
            table.add_row(*(Text(c, style=s) for c, s in zip(cells, styles, strict=True)))
    parts = [table] if table.rows else [Text("Nothing could be judged on these runs.")]
    parts += [Text(note, style="dim") for note in (NOTES if table.rows else ())]
    parts += [Text(f"[{number}] {folder}", style="dim") for folder, number in runs.items()]
    return Group(*parts, *(Text(line) for line in _unmeasured(judged, missing)))


def show(judged: Sequence[Judgement], console: Console, missing: bool = False) -> None:
    """Print for the terminal; see :func:`to_text`."""
    console.print(to_text(judged, missing), highlight=False)


def to_markdown(judged: Sequence[Judgement], missing: bool = True) -> str:
    """A table with its notes, the runs and what is not measured as lists below.

    Args:
        judged: The judgements.
        missing: Whether to list what is not measured; else it is counted.
    """
    runs = _runs(judged)
    rows = [_cells(one, runs) for one in judged if one.verdict != "not measured"]
    lines = [
        "| " + " | ".join(HEADS) + " |",
        "|" + " --- |" * len(HEADS),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    table = [*lines, "", *(f"- {note}" for note in NOTES)] if rows else ["Nothing could be judged."]
    listed = [f"- \\[{number}\\] `{folder}`" for folder, number in runs.items()]
    return "\n".join([*table, "", *listed, *_unmeasured(judged, missing)]).rstrip() + "\n"


def _cells(one: Judgement, runs: dict[str, int]) -> list[str]:
    kind = f" ({one.claim.kind}, margin {one.claim.margin:g})" if one.claim.margin else ""
    named = "*" if one.claim.kind == "all" else ""
    samples = tokens = value = sees = ""
    if one.found and one.ours and one.theirs:
        pairs = one.found.pairs
        samples = f"{pairs.n}" + (f" ({pairs.images})" if pairs.clustered else "")
        tokens = f"{one.ours.executed:.1f} / {one.theirs.executed:.1f}"
        value = interval(one)
        sees = "" if isnan(one.found.detectable) else f"{one.found.detectable * one.scale:.1f}"
    where = "/".join(part for part in (one.where, *one.setting) if part)
    also = f", {', '.join(one.also)}" if one.also else ""
    sides = [side.folders for side in (one.ours, one.theirs) if side] if one.found else []
    told = " - ".join(",".join(f"[{runs[f]}]" for f in side) for side in sides)
    reason = f" [{one.reason}]" if one.reason else ""
    return [
        f"{one.claim.says}{kind}{named}{reason}", one.verdict, value, probability(one.p),
        probability(one.adjusted), samples, sees, tokens, f"{where}{also}", told,
    ]  # fmt: skip


def interval(one: Judgement) -> str:
    """``+5.3 [+0.7, +10.0]`` in points."""
    assert one.found is not None
    ends = (one.found.low * one.scale, one.found.high * one.scale)
    told = "–" if isnan(ends[0]) else f"{ends[0]:+.1f}, {ends[1]:+.1f}"
    mark = " c" if one.found.method == "binomial" else ""
    return f"{one.found.value * one.scale:+.1f} [{told}]{mark}".replace("-", "−")


def probability(p: float) -> str:
    """Three decimals; never 0."""
    return "" if isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _runs(judged: Sequence[Judgement]) -> dict[str, int]:
    folders = dict.fromkeys(
        folder
        for one in judged
        if one.found
        for side in (one.ours, one.theirs)
        if side
        for folder in side.folders
    )
    return {folder: number for number, folder in enumerate(folders, 1)}


def _unmeasured(judged: Sequence[Judgement], missing: bool) -> list[str]:
    """What is not measured: why, and the command that measures it; or how many claims that are."""
    lacking = [one for one in judged if one.verdict == "not measured"]
    if not lacking:
        return []
    if not missing:
        what = "1 claim" if len(lacking) == 1 else f"{len(lacking)} claims"
        return ["", f"Not measured: {what}. --missing lists the reasons and the commands."]
    lines = ["", "Not measured:", ""]
    for one in lacking:
        where = "/".join(part for part in (one.where, *one.setting) if part)
        at = f" ({where})" if where else ""
        lines.append(f"- {one.claim.says}{at}: {one.reason}. Measure: `{one.command}`")
    return lines


def _row(one: Judgement) -> dict[str, object]:
    found, scale = one.found, one.scale
    return {
        "claim": one.claim.id,
        "says": one.claim.says,
        "source": one.claim.source,
        "kind": one.claim.kind,
        "margin": one.claim.margin,
        "verdict": one.verdict,
        "reason": one.reason,
        "model": one.setting[0],
        "benchmark": one.setting[1],
        "image": one.setting[2],
        "experiment": one.where,
        "also": " ".join(one.also),
        "ours": str(one.claim.ours or ""),
        "theirs": str(one.claim.theirs or ""),
        "difference": found.value * scale if found else None,
        "low": found.low * scale if found else None,
        "high": found.high * scale if found else None,
        "interval": found.method if found else "",
        "p": one.p,
        "p_holm": one.adjusted,
        "test": found.test if found and not one.claim.margin else "",
        "n": found.pairs.n if found else 0,
        "images": found.pairs.images if found else 0,
        "executed_ours": one.ours.executed if one.ours else None,
        "executed_theirs": one.theirs.executed if one.theirs else None,
        "detectable": found.detectable * scale if found else None,
        "needed_for_a_point": found.needed(1 / scale) if found else None,
        "runs_ours": " ".join(one.ours.folders) if one.ours else "",
        "runs_theirs": " ".join(one.theirs.folders) if one.theirs else "",
        "command": one.command,
    }
