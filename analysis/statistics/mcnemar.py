"""McNemar's test of two arms on the same samples, for independent scores of 0 and 1.

Only samples that exactly one arm gets right count. The test is exact (a sign test of these samples)
or mid-p, which gives the observed split half its weight: the size of the exact test is well below
5 %, that of mid-p is near it. Samples that share an image are not independent; use
:mod:`analysis.statistics.sign_flip` for them.

Sources: Q. McNemar, Psychometrika 12 (1947) 153-157; M. W. Fagerland, S. Lydersen, P. Laake, BMC
Medical Research Methodology 13:91 (2013) (mid-p).
"""

from scipy import stats


def mcnemar_p(ours: int, theirs: int, mid: bool = True) -> float:
    """Two-sided p of no difference.

    Args:
        ours: Number of samples that only the first arm gets right.
        theirs: Number of samples that only the second arm gets right.
        mid: Whether to return mid-p instead of the exact p.

    Raises:
        ValueError: If a count is negative.
    """
    if min(ours, theirs) < 0:
        raise ValueError(f"counts must be 0 or more, got {ours} and {theirs}")
    n = ours + theirs
    if not n:
        return 1.0
    exact = float(stats.binomtest(ours, n).pvalue)
    observed = float(stats.binom.pmf(ours, n, 0.5))
    # If the counts are equal, the observed split is in both tails, but was counted only once.
    return exact - (observed / 2 if ours == theirs else observed) if mid else exact
