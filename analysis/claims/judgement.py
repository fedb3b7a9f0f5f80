"""Result of judging a claim: a verdict and the measurement behind it.

Knows nothing about how claims are measured and judged.
"""

from dataclasses import dataclass, field
from math import nan
from typing import Literal

import numpy as np

from analysis.claims.arms import ArmRuns
from analysis.claims.hypotheses import Hypothesis
from analysis.statistics.difference import Difference

Verdict = Literal["holds", "fails", "not distinguishable", "not measured"]
EMBEDDED = ("pocket", "pocket_vqa")
Setting = tuple[str, str, str]  # model, benchmark, image condition


@dataclass(frozen=True, eq=False)
class Judgement:
    """Verdict on a claim for one model, benchmark and image condition.

    Attributes:
        setting: Model, benchmark and image condition; empty strings without runs.
        where: Name of the experiment; several names are joined by `` + ``.
        verdict: Verdict after Holm's correction.
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
        return points(self.difference) if self.difference else 1.0

    @property
    def command(self) -> str:
        """Command that measures the claim on the model and benchmark of the given runs."""
        model, benchmark, image = self.setting if any(self.setting) else (*EMBEDDED, "")
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
