"""Mean of a claim's measurements over its benchmarks, each benchmark with the same weight.

The bootstrap draws the images of every benchmark by itself. Knows nothing about runs and verdicts.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.claims.arms import ArmRuns
from analysis.claims.hypotheses import Hypothesis
from analysis.claims.judgement import Judgement, p_value
from analysis.statistics.bootstrap import percentiles
from analysis.statistics.difference import Difference, difference
from analysis.statistics.pairs import Pairs


def averages(claim: Hypothesis, judged: Sequence[Judgement]) -> list[Judgement]:
    """One judgement per model and image condition, from those on each benchmark."""
    groups: dict[tuple[str, str], list[Judgement]] = {}
    for judgement in judged:
        model, _, image = judgement.setting
        groups.setdefault((model, image), []).append(judgement)
    return [_average(claim, *group, members) for group, members in groups.items()]


def _average(claim: Hypothesis, model: str, image: str, members: Sequence[Judgement]) -> Judgement:
    """Mean over the benchmarks, or the reason why there is none."""
    by_benchmark: dict[str, list[Judgement]] = {name: [] for name in claim.benchmarks}
    for member in members:
        by_benchmark[member.setting[1]].append(member)
    known = [member for member in members if member.ours and member.theirs]
    average = Judgement(
        claim,
        (model, ",".join(claim.benchmarks), image),
        " + ".join(dict.fromkeys(name for m in members for name in m.where.split(" + "))),
        ours=_together([member.ours for member in known]),
        theirs=_together([member.theirs for member in known]),
    )
    reasons = []
    for name, same in by_benchmark.items():
        measured = [member for member in same if member.difference]
        if len(measured) > 1:
            names = ", ".join(member.where for member in measured)
            reasons.append(f"{name}: {len(measured)} experiments differ ({names})")
        elif not measured:
            reasons.append(f"{name}: {same[0].reason if same else 'no run'}")
    if reasons:
        open_ones = [same for same in by_benchmark.values() if not any(m.difference for m in same)]
        unjudged = all(same and same[0].verdict == "unjudged" for same in open_ones)
        verdict = "unjudged" if open_ones and unjudged else "not measured"
        if verdict == "not measured":
            average = replace(average, ours=None, theirs=None)
        return replace(average, verdict=verdict, reason="; ".join(reasons))
    parts = [member for same in by_benchmark.values() for member in same if member.difference]
    result = mean_difference([part.difference for part in parts if part.difference])
    notes = [f"{part.setting[1]}: {part.reason}" for part in parts if part.reason]
    average = replace(average, difference=result, reason="; ".join(notes))
    return replace(average, p=p_value(claim, result, average.scale))


def mean_difference(parts: Sequence[Difference]) -> Difference:
    """Mean of the differences on several benchmarks, with its interval and test.

    The samples of a benchmark with fewer of them weigh more, so that every benchmark counts once.
    """
    total = sum(part.pairs.n for part in parts)
    weights = [total / (len(parts) * part.pairs.n) for part in parts]
    first = np.cumsum([0, *(part.pairs.images for part in parts)])
    pooled = Pairs(
        np.concatenate([part.pairs.ours * w for part, w in zip(parts, weights, strict=True)]),
        np.concatenate([part.pairs.theirs * w for part, w in zip(parts, weights, strict=True)]),
        np.concatenate([part.pairs.clusters + at for part, at in zip(parts, first, strict=False)]),
    )
    result = difference(pooled)
    draws = [
        difference(part.pairs, seed=number).drawn for number, part in enumerate(parts)
    ]  # with a seed of its own, so that the draws of two benchmarks are independent
    known = [drawn for drawn in draws if drawn is not None]
    if len(known) < len(parts):
        return result
    mean = np.mean(known, axis=0)
    low, high = percentiles(mean)
    return replace(result, low=low, high=high, method="bootstrap", drawn=mean)


def _together(arms: Sequence[ArmRuns | None]) -> ArmRuns | None:
    """Runs of one arm on all benchmarks."""
    known = [arm for arm in arms if arm]
    if not known:
        return None
    return ArmRuns(
        known[0].arm,
        tuple(cell for arm in known for cell in arm.cells),
        tuple(frame for arm in known for frame in arm.frames),
        sum(arm.executed for arm in known) / len(known),
    )
