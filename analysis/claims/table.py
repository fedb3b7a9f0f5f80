"""Tables of judgements: terminal text, Markdown and CSV.

Knows nothing about how claims are measured and judged.
"""

from collections.abc import Sequence
from math import isnan

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from analysis.claims.judgement import Judgement

COLORS = {
    "holds": "green", "fails": "red", "not distinguishable": "yellow", "unjudged": "magenta",
    "not measured": "dim",
}  # fmt: skip
HEADS = (
    *("claim", "verdict", "points [95 %]", "p", "p Holm"),
    *("n", "detects", "tokens", "on", "runs"),
)
NOTES = (
    "points: score of the first arm minus score of the second on the same samples, in hundredths "
    "if scores lie in [0, 1]. The 95 % interval is a bootstrap of images with all their questions, "
    "or comes from exact counts (c) if fewer than ten images differ. It is not adjusted for the "
    "number of claims. For a claim about a cost: percent of the second arm's cost that is saved, "
    "minus the percent of the claim. A judge's score from 0 to 5 is shown as it is. A mean over "
    "benchmarks counts each benchmark once.",
    "p: p value of the hypothesis of no difference (McNemar's mid-p; sign flips by image if images "
    "have several questions or scores are not 0 and 1); for a claim with a margin, of a difference "
    "equal to the margin. Verdicts use p Holm, corrected over all claims judged here, at 5 %.",
    "n: samples (images, if fewer). detects: least true difference in points that as many such "
    "samples detect in 80 of 100 tries, before Holm. tokens: executed averages of both arms; they "
    "agree within 1 % unless the claim compares methods at different averages.",
)


def frame(judged: Sequence[Judgement]) -> pd.DataFrame:
    """One row per judgement, with differences in points at full precision."""
    return pd.DataFrame([_row(judgement) for judgement in judged])


def to_csv(judged: Sequence[Judgement]) -> str:
    """CSV of :func:`frame`."""
    return frame(judged).to_csv(index=False, lineterminator="\n")


def to_text(judged: Sequence[Judgement], missing: bool = False) -> Group:
    """Terminal table of the judgements, with notes and the folders of the runs.

    Args:
        judged: Judgements to show.
        missing: Whether to list the claims that are not measured; otherwise they are counted.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in HEADS:
        wraps = head in ("claim", "verdict", "on", "runs")
        table.add_column(head, overflow="fold", no_wrap=not wraps)
    runs = _runs(judged)
    for judgement in judged:
        if judgement.verdict != "not measured":
            cells = _cells(judgement, runs)
            styles = ["", COLORS[judgement.verdict], *[""] * 8]
            table.add_row(*(Text(c, style=s) for c, s in zip(cells, styles, strict=True)))
    parts = [table] if table.rows else [Text("No claim could be judged on these runs.")]
    parts += [Text(note, style="dim") for note in (NOTES if table.rows else ())]
    parts += [Text(f"[{number}] {folder}", style="dim") for folder, number in runs.items()]
    lines = [*_unjudged(judged), *_unmeasured(judged, missing)]
    return Group(*parts, *(Text(line) for line in lines))


def show(judged: Sequence[Judgement], console: Console, missing: bool = False) -> None:
    """Print the result of :func:`to_text`."""
    console.print(to_text(judged, missing), highlight=False)


def to_markdown(judged: Sequence[Judgement], missing: bool = True) -> str:
    """Markdown table with notes, followed by lists of the runs and of what is not measured.

    Args:
        judged: Judgements to show.
        missing: Whether to list the claims that are not measured; otherwise they are counted.
    """
    runs = _runs(judged)
    rows = [_cells(j, runs) for j in judged if j.verdict != "not measured"]
    lines = [
        "| " + " | ".join(HEADS) + " |",
        "|" + " --- |" * len(HEADS),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    table = (
        [*lines, "", *(f"- {note}" for note in NOTES)] if rows else ["No claim could be judged."]
    )
    listed = [f"- \\[{number}\\] `{folder}`" for folder, number in runs.items()]
    lines = [*table, "", *listed, *_unjudged(judged), *_unmeasured(judged, missing)]
    return "\n".join(lines).rstrip() + "\n"


def _cells(judgement: Judgement, runs: dict[str, int]) -> list[str]:
    claim, result, scale = judgement.claim, judgement.difference, judgement.scale
    ours, theirs = judgement.ours, judgement.theirs
    kind = f" ({claim.kind}, margin {claim.margin:g})" if claim.margin else ""
    mark = "*" if claim.kind == "all" else ""
    samples = tokens = value = detects = numbers = ""
    if result and ours and theirs:
        pairs = result.pairs
        samples = f"{pairs.n}" + (f" ({pairs.images})" if pairs.clustered else "")
        tokens = f"{ours.executed:.1f} / {theirs.executed:.1f}"
        value = interval(judgement)
        detects = "" if isnan(result.detectable) else f"{result.detectable * scale:.1f}"
        numbers = " - ".join(
            ",".join(f"[{runs[folder]}]" for folder in arm.folders) for arm in (ours, theirs)
        )
    where = "/".join(part for part in (judgement.where, *judgement.setting) if part)
    also = f", {', '.join(judgement.also)}" if judgement.also else ""
    reason = f" [{judgement.reason}]" if judgement.reason else ""
    return [
        f"{claim.says}{kind}{mark}{reason}", judgement.verdict, value, probability(judgement.p),
        probability(judgement.adjusted), samples, detects, tokens, f"{where}{also}", numbers,
    ]  # fmt: skip


def interval(judgement: Judgement) -> str:
    """Format a difference and its interval in points, such as ``+5.3 [+0.7, +10.0]``."""
    result, scale = judgement.difference, judgement.scale
    assert result is not None
    low, high = result.low * scale, result.high * scale
    ends = "–" if isnan(low) else f"{low:+.1f}, {high:+.1f}"
    mark = " c" if result.method == "binomial" else ""
    return f"{result.value * scale:+.1f} [{ends}]{mark}".replace("-", "−")


def probability(p: float) -> str:
    """Format a p value with three decimals; small values as ``<0.001``."""
    return "" if isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _runs(judged: Sequence[Judgement]) -> dict[str, int]:
    folders = dict.fromkeys(
        folder
        for judgement in judged
        if judgement.difference
        for arm in (judgement.ours, judgement.theirs)
        if arm
        for folder in arm.folders
    )
    return {folder: number for number, folder in enumerate(folders, 1)}


def _unjudged(judged: Sequence[Judgement]) -> list[str]:
    """List the commands that judge the runs of the claims about a judge's score."""
    commands = {j.command: None for j in judged if j.verdict == "unjudged"}
    if not commands:
        return []
    head = "Unjudged, because a run has no verdicts of a judge. These commands count the calls:"
    return ["", head, "", *(f"- `{command}`" for command in commands)]


def _unmeasured(judged: Sequence[Judgement], missing: bool) -> list[str]:
    """List the reason and command for each claim without a measurement, or only count them."""
    lacking = [judgement for judgement in judged if judgement.verdict == "not measured"]
    if not lacking:
        return []
    if not missing:
        count = "1 claim" if len(lacking) == 1 else f"{len(lacking)} claims"
        return ["", f"Not measured: {count}. --missing lists the reasons and the commands."]
    lines = ["", "Not measured:", ""]
    for judgement in lacking:
        where = "/".join(part for part in (judgement.where, *judgement.setting) if part)
        at = f" ({where})" if where else ""
        lines.append(
            f"- {judgement.claim.says}{at}: {judgement.reason}. Measure: `{judgement.command}`"
        )
    return lines


def _row(judgement: Judgement) -> dict[str, object]:
    claim, result, scale = judgement.claim, judgement.difference, judgement.scale
    ours, theirs = judgement.ours, judgement.theirs
    return {
        "claim": claim.id,
        "says": claim.says,
        "source": claim.source,
        "kind": claim.kind,
        "margin": claim.margin,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "model": judgement.setting[0],
        "benchmark": judgement.setting[1],
        "image": judgement.setting[2],
        "experiment": judgement.where,
        "also": " ".join(judgement.also),
        "ours": str(claim.ours or ""),
        "theirs": str(claim.theirs or ""),
        "difference": result.value * scale if result else None,
        "low": result.low * scale if result else None,
        "high": result.high * scale if result else None,
        "interval": result.method if result else "",
        "p": judgement.p,
        "p_holm": judgement.adjusted,
        "test": result.test if result and not claim.margin else "",
        "n": result.pairs.n if result else 0,
        "images": result.pairs.images if result else 0,
        "executed_ours": ours.executed if ours else None,
        "executed_theirs": theirs.executed if theirs else None,
        "detectable": result.detectable * scale if result else None,
        "needed_for_a_point": result.needed(1 / scale) if result else None,
        "runs_ours": " ".join(ours.folders) if ours else "",
        "runs_theirs": " ".join(theirs.folders) if theirs else "",
        "command": judgement.command,
    }
