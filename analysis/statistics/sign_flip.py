"""Sign-flip test of a paired difference by images, for any score.

If the two arms are equivalent, they can be swapped for each image, so the sum of an image's
differences has either sign with equal probability. The observed total is compared with totals of
random signs. The cluster versions of McNemar's test (N. A. Obuchowski, Statistics in Medicine 17
(1998) 1495-1507; V. L. Durkalski et al., ibid. 22 (2003) 2417-2428) are not used: they need scores
of 0 and 1 and a variance estimated between clusters. This test keeps its level for few images and
for any score; with one question per image it is McNemar's exact test. Knows nothing about runs.

Sources: R. A. Fisher, The Design of Experiments (1935), Sec. 21; B. Phipson and G. K. Smyth, SAGMB
9 (2010) 39, arXiv:1603.05766 (never 0).
"""

import numpy as np

from analysis.statistics.bootstrap import BLOCK, DRAWS
from analysis.statistics.pairs import Pairs


def sign_flip_p(paired: Pairs, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of no difference; 1 if no image differs.

    Raises:
        ValueError: If ``draws`` is below 1.
    """
    if draws < 1:
        raise ValueError(f"expected 1 or more draws, got {draws}")
    sizes, counts = np.unique(np.abs(paired.sums[paired.sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    observed = abs(paired.sums.sum())
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // len(sizes))
    beyond = 0
    for start in range(0, draws, block):
        shape = min(block, draws - start), len(sizes)
        # Number of positive signs among the `counts` images whose sums have the same size.
        totals = (2 * generator.binomial(counts, 0.5, size=shape) - counts) @ sizes
        beyond += int((np.abs(totals) >= observed * (1 - 1e-9)).sum())
    return (1 + beyond) / (1 + draws)
