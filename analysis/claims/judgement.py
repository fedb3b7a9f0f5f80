"""What is found out about a claim: a verdict, and what it rests on.

Knows nothing about how it is found.
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

    claim: Hypothesis
    setting: Setting = ("", "", "")
    where: str = ""
    verdict: Verdict = "not measured"
    reason: str = ""
    found: Difference | None = None
    ours: ArmRuns | None = None
    theirs: ArmRuns | None = None
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
