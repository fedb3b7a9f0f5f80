"""Is one arm no worse than another, by more than a margin that was named beforehand?

The decision is the interval's: no worse where all of the 95 % interval lies above minus the margin
(a one-sided test at 2.5 %), worse where all of it lies below, open otherwise. "Not significantly
different" is no such proof: it is what few samples say. Knows nothing about runs.

Sources: ICH E9 (1998), Sec. 3.3.2; G. Piaggio et al., JAMA 308 (2012) 2594-2604 (CONSORT).
"""

from math import isfinite, isnan
from typing import Literal

Decision = Literal["yes", "no", "open"]


def check_margin(margin: float | None) -> float:
    """The margin, if it can be one.

    Raises:
        ValueError: If there is none, or it is not above 0 and finite.
    """
    if margin is None:
        raise ValueError("name the margin beforehand: the loss that would not matter")
    if not (isfinite(margin) and margin > 0):
        raise ValueError(f"the margin must be above 0, got {margin}")
    return float(margin)


def noninferior(low: float, high: float, margin: float | None) -> Decision:
    """Whether a difference is above minus the margin, in the unit of the interval.

    Raises:
        ValueError: See :func:`check_margin`.
    """
    least = -check_margin(margin)
    if isnan(low) or isnan(high):
        return "open"
    return "yes" if low > least else "no" if high < least else "open"


def equivalent(low: float, high: float, margin: float | None) -> Decision:
    """Whether a difference is less than the margin, both ways (two one-sided tests).

    Source: D. J. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680.

    Raises:
        ValueError: See :func:`check_margin`.
    """
    both = {noninferior(low, high, margin), noninferior(-high, -low, margin)}
    return "no" if "no" in both else "open" if "open" in both else "yes"
