"""Verdicts on claims: holds, fails, not distinguishable, unjudged, not measured.

    superiority      holds if ours > theirs, fails if ours < theirs
    non-inferiority  holds if ours > theirs - margin, fails if ours < theirs - margin
    equivalence      holds if |ours - theirs| < margin, fails if it is larger
    all              holds if all parts hold, fails if one part fails

A claim about a judge's score is unjudged if a run has no verdicts of a judge. Every test is
two-sided at 5 % after Holm's correction over all claims judged in one call. Knows nothing about
files and layout.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import nan

from analysis.claims.hypotheses import Hypothesis
from analysis.claims.judgement import Judgement, Setting, Verdict
from analysis.claims.measuring import measure
from analysis.records.cells import MATCH, RunResult
from analysis.statistics.intervals import LEVEL
from analysis.statistics.multiplicity import holm


def judge(
    claims: Sequence[Hypothesis], cells: Sequence[RunResult], match: float = MATCH
) -> list[Judgement]:
    """Judge every claim on every model, benchmark and image condition, in the claims' order.

    Args:
        claims: Claims to judge.
        cells: Runs.
        match: Largest relative difference of executed averages that count as one budget.

    Raises:
        ValueError: If runs of one benchmark are not on the same documents.
    """
    plain = [claim for claim in claims if claim.kind != "all"]
    judged = {claim.id: measure(claim, cells, match) for claim in plain}
    measured = [j for judgements in judged.values() for j in judgements if j.difference]
    adjusted = dict(zip(map(id, measured), holm([j.p for j in measured]), strict=True))
    for name, judgements in judged.items():
        judged[name] = [_decided(j, adjusted.get(id(j), nan)) for j in judgements]
    for claim in claims:
        if claim.kind == "all":
            judged[claim.id] = _together(claim, [judged[part] for part in claim.parts])
    return [judgement for claim in claims for judgement in judged[claim.id]]


def _decided(judgement: Judgement, adjusted: float) -> Judgement:
    claim, difference = judgement.claim, judgement.difference
    if difference is None:
        return judgement
    verdict: Verdict = "not distinguishable"
    if adjusted < 1 - LEVEL:
        margin = (claim.margin or 0.0) / judgement.scale
        value = difference.value
        holds = abs(value) < margin if claim.kind == "equivalence" else value > -margin
        verdict = "holds" if holds else "fails"
    return replace(judgement, verdict=verdict, adjusted=adjusted)


def _together(claim: Hypothesis, parts: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """Combine the parts that were judged on the same model, benchmark, image and first arm."""
    by_group = [{_group(judgement): judgement for judgement in part} for part in parts]
    groups = dict.fromkeys(
        group
        for part in by_group
        for group, judgement in part.items()
        if judgement.difference or judgement.verdict == "unjudged"
    )
    order: tuple[Verdict, ...] = (
        "fails", "not measured", "unjudged", "not distinguishable", "holds"
    )  # fmt: skip
    out = []
    for group in groups:
        judgements = [part.get(group) for part in by_group]
        verdicts: list[Verdict] = [j.verdict if j else "not measured" for j in judgements]
        measured = [j for j in judgements if j and j.difference]
        complete = len(measured) == len(judgements)
        verdict = min(verdicts, key=order.index)
        unjudged = [j for j in judgements if j and j.verdict == verdict == "unjudged"]
        named = unjudged or measured
        where = dict.fromkeys(name for j in named for name in j.where.split(" + "))
        out.append(
            Judgement(
                claim,
                group[0],
                " + ".join(where),
                verdict,
                ", ".join(map(" ".join, zip(claim.parts, verdicts, strict=True))),
                ours=unjudged[0].ours if unjudged else None,
                theirs=unjudged[0].theirs if unjudged else None,
                p=max(j.p for j in measured) if complete else nan,
                adjusted=max(j.adjusted for j in measured) if complete else nan,
            )
        )
    return out or [Judgement(claim, reason="none of its parts was measured")]


def _group(judgement: Judgement) -> tuple[Setting, tuple[str, ...]]:
    return judgement.setting, judgement.ours.keys if judgement.ours else ()
