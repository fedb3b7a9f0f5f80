"""A claim's difference on the runs at hand, or why there is none.

Runs of one experiment are compared with each other; where no experiment has both arms at one
budget, the second arm is taken from any. Knows no verdicts.
"""

from collections.abc import Sequence
from dataclasses import replace

from analysis.claims.arms import ArmRuns, NotMeasured, find, fits
from analysis.claims.hypotheses import ArmSpec, Hypothesis
from analysis.claims.judgement import Judgement, Setting, points
from analysis.claims.pairing import pair
from analysis.records.cells import MATCH, RunResult, agree
from analysis.statistics.difference import Difference, difference


def measure(claim: Hypothesis, cells: Sequence[RunResult], match: float = MATCH) -> list[Judgement]:
    """The claim on every model, benchmark and image condition that has a run of either arm.

    The same scores measured in several experiments are one. No verdict is given yet.

    Raises:
        ValueError: If runs of one benchmark are not on the same documents.
    """
    settings: dict[Setting, list[RunResult]] = {}
    for cell in cells:
        settings.setdefault((cell["model"], cell["benchmark"], cell.image or ""), []).append(cell)
    assert claim.ours is not None and claim.theirs is not None
    both = claim.ours, claim.theirs
    out = []
    for setting, here in settings.items():
        if any(fits(cell, arm) for cell in here for arm in both):
            out += _in(claim, both, setting, here, match)
    missing = f"no run of {claim.ours}, nor of {claim.theirs}"
    return out or [Judgement(claim, reason=missing)]


def _in(
    claim: Hypothesis,
    arms: tuple[ArmSpec, ArmSpec],
    setting: Setting,
    cells: Sequence[RunResult],
    match: float,
) -> list[Judgement]:
    """One judgement per experiment that can tell; else across experiments, or why there is none."""
    pools: dict[str, list[RunResult]] = {}
    for cell in cells:
        pools.setdefault(cell["experiment"], []).append(cell)
    # an experiment that has no run of the first arm has nothing to compare
    pools = {name: p for name, p in pools.items() if any(fits(cell, arms[0]) for cell in p)}
    failed: list[Judgement] = []
    for others in (None, cells):
        tried = [
            _compare(claim, arms, setting, pool, pool if others is None else others, match)
            for pool in pools.values()
        ]
        if measured := _merged([one for one in tried if one.found]):
            return measured
        failed += tried
    # budgets that do not agree say more than runs that are not there
    near = [one for one in failed if one.theirs] or [one for one in failed if one.ours]
    near = near or failed[len(pools) :]
    return near[:1] or [Judgement(claim, setting, reason=f"no run of {arms[0]}")]


def _compare(
    claim: Hypothesis,
    arms: tuple[ArmSpec, ArmSpec],
    setting: Setting,
    first: Sequence[RunResult],
    second: Sequence[RunResult],
    match: float,
) -> Judgement:
    """The first arm among some runs against the second among others."""
    told = Judgement(claim, setting, str(first[0]["experiment"]))
    try:
        if not any(fits(cell, arms[1]) for cell in second):
            raise NotMeasured(f"no run of {arms[1]}")
        ours = find(first, arms[0])
        told = replace(told, ours=ours)
        # what ran beside a run is compared with that run, whatever others reach the same average
        beside = arms[0].control or arms[1].control or not claim.matched
        theirs = find(second, arms[1], None if beside else ours.executed, match)
        told = replace(told, ours=ours, theirs=theirs, where=_where(ours, theirs))
        one, other = ours.cells[0], theirs.cells[0]
        for what, mine, its in (
            ("metrics", one.metric, other.metric),
            ("models", one["config"]["model"], other["config"]["model"]),
        ):
            if mine != its:
                raise NotMeasured(f"{what} differ ({mine} against {its})")
        if claim.matched and not agree(ours.executed, theirs.executed, match):
            raise NotMeasured(
                f"budgets not matched ({ours.executed:.1f} against {theirs.executed:.1f})"
            )
    except NotMeasured as error:
        return replace(told, reason=str(error))
    found = difference(pair(ours.frames, theirs.frames))
    notes = []
    if claim.matched and not agree(ours.executed, theirs.executed):
        notes.append(f"at {ours.executed:.1f} against {theirs.executed:.1f} tokens")
    if len(ours.cells) > 1 or len(theirs.cells) > 1:
        notes.append(f"{len(ours.cells)} and {len(theirs.cells)} seeds averaged")
    if other.budget != arms[1].budget:
        notes.append(f"{arms[1].method} at the budget {other['budget']}")
    return replace(told, found=found, p=_p(claim, found), reason="; ".join(notes))


def _where(*arms: ArmRuns) -> str:
    return " + ".join(dict.fromkeys(str(cell["experiment"]) for arm in arms for cell in arm.cells))


def _p(claim: Hypothesis, found: Difference) -> float:
    if claim.margin is None:
        return found.p
    margin = claim.margin / points(found)
    if claim.kind == "non-inferiority":
        return found.p_at(-margin)
    bounds = found.p_at(-margin), found.p_at(margin)
    if abs(found.value) < margin:
        return max(bounds)  # both must be left behind
    return bounds[0] if found.value < 0 else bounds[1]


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
