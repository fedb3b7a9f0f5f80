"""Claims judged on runs: holds, fails, not distinguishable, not measured.

    superiority      holds where ours is above theirs, fails where it is below
    non-inferiority  holds where ours is above theirs less the margin, fails where it is below that
    equivalence      holds where the difference is within the margin, fails where it is beyond
    all              holds where every part does, fails where one does

each at 5 %, two-sided, after Holm's correction over everything judged in one call. Knows nothing
about files and layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Literal

import numpy as np

from analysis.claims.arms import Found, NotMeasured, find, fits
from analysis.claims.hypotheses import Arm, Claim
from analysis.claims.pairing import pair
from analysis.records.cells import Cell, agree
from analysis.statistics.difference import Difference, difference
from analysis.statistics.intervals import LEVEL
from analysis.statistics.multiplicity import holm

Verdict = Literal["holds", "fails", "not distinguishable", "not measured"]
EMBEDDED = ("pocket", "pocket_vqa")
Setting = tuple[str, str, str]  # model, benchmark, image condition


@dataclass(frozen=True, eq=False)
class Judgement:
    """A claim on one model, benchmark and image condition.

    Attributes:
        claim: What was claimed.
        setting: Model, benchmark, image condition; empty texts where nothing was run.
        where: The experiment, or several joined by `` + ``.
        verdict: After Holm's correction.
        reason: Why it is not measured, or what else to know.
        found: The difference, in the unit of the score; None where not measured.
        ours: Its runs.
        theirs: Its runs.
        p: Two-sided, of a difference that is none (superiority) or just at the margin.
        adjusted: The same after Holm's correction.
        also: Other experiments in which the very same scores were measured.
    """

    claim: Claim
    setting: Setting = ("", "", "")
    where: str = ""
    verdict: Verdict = "not measured"
    reason: str = ""
    found: Difference | None = None
    ours: Found | None = None
    theirs: Found | None = None
    p: float = nan
    adjusted: float = nan
    also: tuple[str, ...] = field(default=())

    @property
    def scale(self) -> float:
        """From the unit of the score to points: 100 for scores in [0, 1]."""
        return points(self.found) if self.found else 1.0

    @property
    def command(self) -> str:
        """What measures it, on the model and benchmark of the runs at hand."""
        model, benchmark, image = self.setting if any(self.setting) else (*EMBEDDED, "")
        asked = f" model={model} benchmark={benchmark}{f' image={image}' if image else ''}"
        if self.found is None and self.ours and self.theirs:
            # both are there, at budgets that do not agree: the second once more, at the first's
            arm, tokens = self.theirs.arm, round(self.ours.executed)
            budget = f"budget=t{arm.budget:g} budget.tokens={tokens} budget.name=t{tokens}"
            return f"python experiments/run.py method={arm.method} {budget}{asked}"
        return f"{self.claim.run}{asked}"


def points(found: Difference) -> float:
    """100 where all scores lie in [0, 1], so that a difference is told in points; else 1."""
    both = np.concatenate([found.pairs.ours, found.pairs.theirs])
    return 100.0 if ((both >= 0) & (both <= 1)).all() else 1.0


def judge(claims: Sequence[Claim], cells: Sequence[Cell]) -> list[Judgement]:
    """Every claim on every model, benchmark and image condition of the runs, in the claims' order.

    Runs of one experiment are compared with each other; where no experiment has both arms, runs of
    several are. The same scores measured twice are one judgement.

    Raises:
        ValueError: If runs of one benchmark are not on the same documents.
    """
    settings: dict[Setting, list[Cell]] = {}
    for cell in cells:
        settings.setdefault((cell["model"], cell["benchmark"], cell.image or ""), []).append(cell)
    plain = [claim for claim in claims if claim.kind != "all"]
    judged = {claim.id: _everywhere(claim, settings) for claim in plain}
    measured = [one for found in judged.values() for one in found if one.found]
    adjusted = dict(zip(map(id, measured), holm([one.p for one in measured]), strict=True))
    for name, found in judged.items():
        judged[name] = [_decided(one, adjusted.get(id(one), nan)) for one in found]
    for claim in claims:
        if claim.kind == "all":
            judged[claim.id] = _together(claim, [judged[part] for part in claim.parts])
    return [one for claim in claims for one in judged[claim.id]]


def _everywhere(claim: Claim, settings: dict[Setting, list[Cell]]) -> list[Judgement]:
    assert claim.ours is not None and claim.theirs is not None
    both = claim.ours, claim.theirs
    out = []
    for setting, cells in settings.items():
        if any(fits(cell, arm) for cell in cells for arm in both):
            out += _in(claim, both, setting, cells)
    missing = f"no run of {claim.ours}, nor of {claim.theirs}"
    return out or [Judgement(claim, reason=missing)]


def _in(
    claim: Claim, arms: tuple[Arm, Arm], setting: Setting, cells: Sequence[Cell]
) -> list[Judgement]:
    """One judgement per experiment that can tell; else across experiments, or why there is none."""
    pools: dict[str, list[Cell]] = {}
    for cell in cells:
        pools.setdefault(cell["experiment"], []).append(cell)
    # an experiment that has no run of the first arm has nothing to compare
    pools = {name: p for name, p in pools.items() if any(fits(cell, arms[0]) for cell in p)}
    failed: list[Judgement] = []
    for others in (None, cells):
        tried = [
            _compare(claim, arms, setting, pool, pool if others is None else others)
            for pool in pools.values()
        ]
        if measured := _merged([one for one in tried if one.found]):
            return measured
        failed += tried
    # budgets that do not agree say more than runs that are not there
    near = [one for one in failed if one.theirs] or failed[len(pools) :]
    return near[:1] or [Judgement(claim, setting, reason=f"no run of {arms[0]}")]


def _compare(
    claim: Claim,
    arms: tuple[Arm, Arm],
    setting: Setting,
    first: Sequence[Cell],
    second: Sequence[Cell],
) -> Judgement:
    """The first arm among some runs against the second among others."""
    told = Judgement(claim, setting, str(first[0]["experiment"]))
    try:
        if not any(fits(cell, arms[1]) for cell in second):
            raise NotMeasured(f"no run of {arms[1]}")
        ours = find(first, arms[0])
        # what ran beside a run is compared with that run, whatever others reach the same average
        beside = arms[0].beside or arms[1].beside or not claim.matched
        theirs = find(second, arms[1], None if beside else ours.executed)
        told = replace(told, ours=ours, theirs=theirs, where=_where(ours, theirs))
        one, other = ours.cells[0], theirs.cells[0]
        for what, mine, its in (
            ("metrics", one.metric, other.metric),
            ("models", one["config"]["model"], other["config"]["model"]),
        ):
            if mine != its:
                raise NotMeasured(f"{what} differ ({mine} against {its})")
        if claim.matched and not agree(ours.executed, theirs.executed):
            raise NotMeasured(
                f"budgets not matched ({ours.executed:.1f} against {theirs.executed:.1f})"
            )
    except NotMeasured as error:
        return replace(told, reason=str(error))
    found = difference(pair(ours.frames, theirs.frames))
    notes = []
    if len(ours.cells) > 1 or len(theirs.cells) > 1:
        notes.append(f"{len(ours.cells)} and {len(theirs.cells)} seeds averaged")
    if other.budget != arms[1].budget:
        notes.append(f"{arms[1].method} at the budget {other['budget']}")
    return replace(told, found=found, p=_p(claim, found), reason="; ".join(notes))


def _where(*arms: Found) -> str:
    return " + ".join(dict.fromkeys(str(cell["experiment"]) for arm in arms for cell in arm.cells))


def _p(claim: Claim, found: Difference) -> float:
    if claim.margin is None:
        return found.p
    margin = claim.margin / points(found)
    if claim.kind == "non-inferiority":
        return found.p_at(-margin)
    bounds = found.p_at(-margin), found.p_at(margin)
    if abs(found.value) < margin:
        return max(bounds)  # both must be left behind
    return bounds[0] if found.value < 0 else bounds[1]


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


def _together(claim: Claim, parts: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """Parts that were judged on the same model, benchmark, image and experiment."""
    by_place = [{(one.setting, one.where): one for one in part} for part in parts]
    places = dict.fromkeys(place for part in by_place for place, one in part.items() if one.found)
    out = []
    for setting, where in places:
        found = [part.get((setting, where)) for part in by_place]
        verdicts = {one.verdict if one else "not measured" for one in found}
        order: tuple[Verdict, ...] = ("fails", "not measured", "not distinguishable", "holds")
        verdict: Verdict = next(one for one in order if one in verdicts)
        told = ", ".join(
            f"{name} {one.verdict if one else 'not measured'}"
            for name, one in zip(claim.parts, found, strict=True)
        )
        known = [one for one in found if one and one.found]
        out.append(
            Judgement(
                claim,
                setting,
                where,
                verdict,
                told,
                p=max(one.p for one in known) if len(known) == len(found) else nan,
                adjusted=max(one.adjusted for one in known) if len(known) == len(found) else nan,
            )
        )
    return out or [Judgement(claim, reason="none of its parts was measured")]


def _merged(judged: Sequence[Judgement]) -> list[Judgement]:
    kept: dict[tuple, Judgement] = {}
    for one in judged:
        assert one.found is not None
        scores = one.found.pairs
        same = scores.ours.tobytes(), scores.theirs.tobytes()
        kept[same] = (
            replace(kept[same], also=(*kept[same].also, one.where)) if same in kept else one
        )
    return list(kept.values())
