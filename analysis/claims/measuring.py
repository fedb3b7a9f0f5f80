"""Measure the difference that a claim is about, or state why it cannot be measured.

Runs of one experiment are compared with each other. If no experiment has both arms at one budget,
the second arm may come from any experiment. Knows nothing about verdicts.
"""

from collections.abc import Sequence
from dataclasses import replace

from analysis.claims.arms import ArmRuns, NotMeasured, find, fits
from analysis.claims.averages import averages
from analysis.claims.hypotheses import ArmSpec, Hypothesis
from analysis.claims.judgement import Judgement, Setting, p_value
from analysis.claims.pairing import pair
from analysis.claims.savings import saved_pairs, with_costs
from analysis.claims.verdicts import WithoutVerdicts, with_verdicts
from analysis.records.cells import MATCH, RunResult, agree
from analysis.statistics.difference import difference


def measure(claim: Hypothesis, cells: Sequence[RunResult], match: float = MATCH) -> list[Judgement]:
    """Measure a claim on every model, benchmark and image condition with a run of either arm.

    A claim about a mean over benchmarks is measured on every model and image condition. Equal
    scores in several experiments count as one measurement. Verdicts are not set here.

    Raises:
        ValueError: If runs of one benchmark are not on the same documents.
    """
    settings: dict[Setting, list[RunResult]] = {}
    for cell in cells:
        if claim.benchmarks and cell["benchmark"] not in claim.benchmarks:
            continue
        settings.setdefault((cell["model"], cell["benchmark"], cell.image or ""), []).append(cell)
    assert claim.ours is not None and claim.theirs is not None
    arms = claim.ours, claim.theirs
    out: list[Judgement] = []
    for setting, runs in settings.items():
        if any(fits(cell, arm) for cell in runs for arm in arms):
            out += _measure_setting(claim, arms, setting, runs, match)
    if claim.averaged and out:
        return averages(claim, out)
    missing = f"no run of {claim.ours}, nor of {claim.theirs}"
    return out or [Judgement(claim, reason=missing)]


def _measure_setting(
    claim: Hypothesis,
    arms: tuple[ArmSpec, ArmSpec],
    setting: Setting,
    cells: Sequence[RunResult],
    match: float,
) -> list[Judgement]:
    """One judgement per experiment with both arms; else across experiments, or the reason."""
    pools: dict[str, list[RunResult]] = {}
    for cell in cells:
        pools.setdefault(cell["experiment"], []).append(cell)
    # an experiment that has no run of the first arm has nothing to compare
    pools = {
        name: pool for name, pool in pools.items() if any(fits(cell, arms[0]) for cell in pool)
    }
    failed: list[Judgement] = []
    for others in (None, cells):
        tried = [
            _compare(claim, arms, setting, pool, pool if others is None else others, match)
            for pool in pools.values()
        ]
        if measured := _merged([judgement for judgement in tried if judgement.difference]):
            return measured
        failed += tried
    # report the reason of the attempt that got furthest: both arms, one arm, no arm
    nearest = [j for j in failed if j.theirs] or [j for j in failed if j.ours]
    nearest = nearest or failed[len(pools) :]
    return nearest[:1] or [Judgement(claim, setting, reason=f"no run of {arms[0]}")]


def _compare(
    claim: Hypothesis,
    arms: tuple[ArmSpec, ArmSpec],
    setting: Setting,
    first: Sequence[RunResult],
    second: Sequence[RunResult],
    match: float,
) -> Judgement:
    """Compare the first arm, from the first runs, with the second arm, from the second runs."""
    judgement = Judgement(claim, setting, str(first[0]["experiment"]))
    try:
        if not any(fits(cell, arms[1]) for cell in second):
            raise NotMeasured(f"no run of {arms[1]}")
        ours = find(first, arms[0])
        judgement = replace(judgement, ours=ours)
        # a control is compared with its run, even if other runs have the same executed average
        fixed = arms[0].control or arms[1].control or not claim.matched
        theirs = find(second, arms[1], None if fixed else ours.executed, match)
        judgement = replace(judgement, ours=ours, theirs=theirs, where=_where(ours, theirs))
        our_run, their_run = ours.cells[0], theirs.cells[0]
        for name, our_value, their_value in (
            ("metrics", our_run.metric, their_run.metric),
            ("models", our_run["config"]["model"], their_run["config"]["model"]),
        ):
            if our_value != their_value:
                raise NotMeasured(f"{name} differ ({our_value} against {their_value})")
        if claim.matched and not agree(ours.executed, theirs.executed, match):
            raise NotMeasured(
                f"budgets not matched ({ours.executed:.1f} against {theirs.executed:.1f})"
            )
        if claim.saves is not None:
            ours, theirs = with_costs(ours, theirs, claim.saves.cost)
        notes = []
        if claim.score is not None:
            ours, theirs, note = with_verdicts(ours, theirs, claim.score)
            notes += [note] if note else []
    except WithoutVerdicts as error:
        return replace(judgement, reason=str(error), verdict="unjudged")
    except NotMeasured as error:
        return replace(judgement, reason=str(error))
    paired = pair(ours.frames, theirs.frames)
    result = difference(paired if claim.saves is None else saved_pairs(paired, claim.saves))
    if claim.matched and not agree(ours.executed, theirs.executed):
        notes.append(f"at {ours.executed:.1f} against {theirs.executed:.1f} tokens")
    if len(ours.cells) > 1 or len(theirs.cells) > 1:
        notes.append(f"{len(ours.cells)} and {len(theirs.cells)} seeds averaged")
    if not fits(their_run, arms[1]):
        notes.append(f"{arms[1].method} at the budget {their_run['budget']}")
    judgement = replace(judgement, difference=result, reason="; ".join(notes))
    return replace(judgement, p=p_value(claim, result, judgement.scale))


def _where(*arms: ArmRuns) -> str:
    return " + ".join(dict.fromkeys(str(cell["experiment"]) for arm in arms for cell in arm.cells))


def _merged(judged: Sequence[Judgement]) -> list[Judgement]:
    """Combine judgements with equal scores into the first of them."""
    kept: dict[tuple, Judgement] = {}
    for judgement in judged:
        assert judgement.difference is not None
        pairs = judgement.difference.pairs
        key = pairs.ours.tobytes(), pairs.theirs.tobytes()
        first = kept.get(key)
        kept[key] = replace(first, also=(*first.also, judgement.where)) if first else judgement
    return list(kept.values())
