"""Decide whether one arm is no worse than another, up to a margin that was fixed in advance.

The 95 % interval decides. The arm is no worse if the whole interval lies above minus the margin (a
one-sided test at 2.5 %), worse if the whole interval lies below, and the decision is open
otherwise. "Not significantly different" is no proof of this: too few samples give the same result.
Knows nothing about runs.

Sources: ICH E9 (1998), Sec. 3.3.2; G. Piaggio et al., JAMA 308 (2012) 2594-2604 (CONSORT).
"""

from math import isfinite, isnan
from typing import Literal

Decision = Literal["yes", "no", "open"]


def check_margin(margin: float | None) -> float:
    """Return the margin as a float if it is valid.

    Raises:
        ValueError: If the margin is None, or not finite and above 0.
    """
    if margin is None:
        raise ValueError(
            "expected a margin: the largest loss that does not matter, fixed in advance"
        )
    if not (isfinite(margin) and margin > 0):
        raise ValueError(f"the margin must be finite and above 0, got {margin}")
    return float(margin)


def noninferior(low: float, high: float, margin: float | None) -> Decision:
    """Whether a difference with this interval is above minus the margin, in the same unit.

    Raises:
        ValueError: See :func:`check_margin`.
    """
    least = -check_margin(margin)
    if isnan(low) or isnan(high):
        return "open"
    return "yes" if low > least else "no" if high < least else "open"


def equivalent(low: float, high: float, margin: float | None) -> Decision:
    """Whether a difference is below the margin in both directions (two one-sided tests).

    Source: D. J. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680.

    Raises:
        ValueError: See :func:`check_margin`.
    """
    both = {noninferior(low, high, margin), noninferior(-high, -low, margin)}
    return "no" if "no" in both else "open" if "open" in both else "yes"
