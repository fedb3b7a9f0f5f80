"""Result of judging a claim: a verdict and the measurement behind it.

Knows nothing about how claims are measured and judged.
"""

from dataclasses import dataclass, field
from math import nan
from typing import Literal

import numpy as np

from analysis.claims.arms import ArmRuns
from analysis.claims.hypotheses import Hypothesis
from analysis.records.judgements import on_scale_of_five
from analysis.statistics.difference import Difference

Verdict = Literal["holds", "fails", "not distinguishable", "unjudged", "not measured"]
EMBEDDED = ("pocket", "pocket_vqa")
Setting = tuple[str, str, str]  # model, benchmark, image condition


@dataclass(frozen=True, eq=False)
class Judgement:
    """Verdict on a claim for one model, benchmark and image condition.

    Attributes:
        setting: Model, benchmark and image condition; empty strings without runs. The benchmark
            of a claim about a mean is the list of its benchmarks, joined by commas.
        where: Name of the experiment; several names are joined by `` + ``.
        verdict: Verdict after Holm's correction; ``unjudged`` if the claim is about a judge's score
            and a run has no verdicts of a judge.
        reason: Reason why the claim is not measured, or a note on the measurement.
        difference: Measured difference in the unit of the score; None if not measured.
        ours: Runs of the first arm.
        theirs: Runs of the second arm.
        p: Two-sided p value; the null hypothesis is no difference (superiority) or a difference
            equal to the margin.
        adjusted: p value after Holm's correction.
        also: Other experiments that have exactly the same scores.
    """

    claim: Hypothesis
    setting: Setting = ("", "", "")
    where: str = ""
    verdict: Verdict = "not measured"
    reason: str = ""
    difference: Difference | None = None
    ours: ArmRuns | None = None
    theirs: ArmRuns | None = None
    p: float = nan
    adjusted: float = nan
    also: tuple[str, ...] = field(default=())

    @property
    def scale(self) -> float:
        """Factor from the unit of the difference to points: 100 for scores in [0, 1] and costs."""
        if self.claim.saves is not None:
            return 100.0
        if self.claim.score is not None:
            return 1.0 if on_scale_of_five(self.claim.score) else 100.0
        return points(self.difference) if self.difference else 1.0

    @property
    def command(self) -> str:
        """Command that measures the claim on the model and benchmark of the given runs."""
        if self.verdict == "unjudged":
            arms = [arm for arm in (self.ours, self.theirs) if arm]
            folders = dict.fromkeys(folder for arm in arms for folder in arm.folders)
            return f"mustdrop judge {' '.join(folders)} --dry-run"
        names = (self.claim.model, ",".join(self.claim.benchmarks))
        unknown = (*(name or embedded for name, embedded in zip(names, EMBEDDED, strict=True)), "")
        model, benchmark, image = self.setting if any(self.setting) else unknown
        options = f" model={model} benchmark={benchmark}{f' image={image}' if image else ''}"
        if self.difference is None and self.ours and self.theirs:
            # budgets differ: run the second arm at the executed average of the first
            arm, tokens = self.theirs.arm, round(self.ours.executed)
            budget = f"budget={tokens}"
            return f"mustdrop run method={arm.method} {budget}{options}"
        return f"{self.claim.run}{options}"


def points(difference: Difference) -> float:
    """Factor from the unit of the score to points: 100 if all scores lie in [0, 1], else 1."""
    scores = np.concatenate([difference.pairs.ours, difference.pairs.theirs])
    return 100.0 if ((scores >= 0) & (scores <= 1)).all() else 1.0


def p_value(claim: Hypothesis, result: Difference, scale: float) -> float:
    """Two-sided p of no difference or, with a margin, of a difference equal to the margin.

    Args:
        claim: Claim that is judged.
        result: Measured difference.
        scale: Factor from the unit of the difference to points.
    """
    if claim.margin is None:
        return result.p
    margin = claim.margin / scale
    if claim.kind == "non-inferiority":
        return result.p_at(-margin)
    at_lower, at_upper = result.p_at(-margin), result.p_at(margin)
    if abs(result.value) < margin:
        return max(at_lower, at_upper)  # equivalence needs both tests to reject
    return at_lower if result.value < 0 else at_upper
