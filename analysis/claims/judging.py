"""Claims judged on runs: holds, fails, not distinguishable, not measured.

    superiority      holds where ours is above theirs, fails where it is below
    non-inferiority  holds where ours is above theirs less the margin, fails where it is below that
    equivalence      holds where the difference is within the margin, fails where it is beyond
    all              holds where every part does, fails where one does

each at 5 %, two-sided, after Holm's correction over everything judged in one call. Knows nothing
about files and layout.
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
    """Every claim on every model, benchmark and image condition of the runs, in the claims' order.

    Args:
        claims: What is claimed.
        cells: The runs.
        match: Share within which executed averages are one budget.

    Raises:
        ValueError: If runs of one benchmark are not on the same documents.
    """
    plain = [claim for claim in claims if claim.kind != "all"]
    judged = {claim.id: measure(claim, cells, match) for claim in plain}
    measured = [one for found in judged.values() for one in found if one.found]
    adjusted = dict(zip(map(id, measured), holm([one.p for one in measured]), strict=True))
    for name, found in judged.items():
        judged[name] = [_decided(one, adjusted.get(id(one), nan)) for one in found]
    for claim in claims:
        if claim.kind == "all":
            judged[claim.id] = _together(claim, [judged[part] for part in claim.parts])
    return [one for claim in claims for one in judged[claim.id]]


def _decided(told: Judgement, adjusted: float) -> Judgement:
    if told.found is None:
        return told
    verdict: Verdict = "not distinguishable"
    if adjusted < 1 - LEVEL:
        margin = (told.claim.margin or 0.0) / told.scale
        value = told.found.value
        holds = abs(value) < margin if told.claim.kind == "equivalence" else value > -margin
        verdict = "holds" if holds else "fails"
    return replace(told, verdict=verdict, adjusted=adjusted)


def _together(claim: Hypothesis, parts: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """Parts that were judged on the same model, benchmark, image and first arm."""
    by_place = [{_place(one): one for one in part} for part in parts]
    places = dict.fromkeys(place for part in by_place for place, one in part.items() if one.found)
    out = []
    for place in places:
        found = [part.get(place) for part in by_place]
        verdicts = {one.verdict if one else "not measured" for one in found}
        order: tuple[Verdict, ...] = ("fails", "not measured", "not distinguishable", "holds")
        verdict: Verdict = next(one for one in order if one in verdicts)
        told = ", ".join(
            f"{name} {one.verdict if one else 'not measured'}"
            for name, one in zip(claim.parts, found, strict=True)
        )
        known = [one for one in found if one and one.found]
        where = " + ".join(dict.fromkeys(name for one in known for name in one.where.split(" + ")))
        out.append(
            Judgement(
                claim,
                place[0],
                where,
                verdict,
                told,
                p=max(one.p for one in known) if len(known) == len(found) else nan,
                adjusted=max(one.adjusted for one in known) if len(known) == len(found) else nan,
            )
        )
    return out or [Judgement(claim, reason="none of its parts was measured")]


def _place(one: Judgement) -> tuple[Setting, tuple[str, ...]]:
    return one.setting, one.ours.keys if one.ours else ()
