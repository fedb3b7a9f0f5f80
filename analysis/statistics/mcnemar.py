"""McNemar's test of two arms on the same samples, for scores of 0 and 1 that are independent.

Only samples that one arm alone gets right count. Exact (a sign test of them), or mid-p, which
counts the observed split half: the exact test's size lies well below 5 %, mid-p's near it. Samples
that share an image are not independent: :mod:`analysis.statistics.sign_flip` is for those.

Sources: Q. McNemar, Psychometrika 12 (1947) 153-157; M. W. Fagerland, S. Lydersen, P. Laake, BMC
Medical Research Methodology 13:91 (2013) (mid-p).
"""

from scipy import stats


def mcnemar_p(ours: int, theirs: int, mid: bool = True) -> float:
    """Two-sided p.

    Args:
        ours: Samples that only the first arm gets right.
        theirs: Samples that only the second gets right.
        mid: Mid-p rather than exact.

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
    # both tails hold the middle where the counts agree: there it was counted once only
    return exact - (observed / 2 if ours == theirs else observed) if mid else exact
