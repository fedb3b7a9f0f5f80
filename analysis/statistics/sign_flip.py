"""Sign-flip test of a paired difference by images, for any score.

If it makes no difference which arm answered, the two arms may change places image by image, so the
sum of an image's differences is as likely to have the other sign. The observed total is held
against totals with signs at random. Chosen before the cluster versions of McNemar's test (N. A.
Obuchowski, Statistics in Medicine 17 (1998) 1495-1507; V. L. Durkalski et al., ibid. 22 (2003)
2417-2428), which rest on a variance estimated between clusters and on 0 and 1: this one holds its
level for few images, for any score, and with one question an image it is McNemar's exact test.
Knows no runs.

Sources: R. A. Fisher, The Design of Experiments (1935), Sec. 21; B. Phipson and G. K. Smyth, SAGMB
9 (2010) 39, arXiv:1603.05766 (never 0).
"""

import numpy as np

from analysis.statistics.bootstrap import BLOCK, DRAWS
from analysis.statistics.pairs import Pairs


def sign_flip_p(found: Pairs, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of no difference; 1 where no image differs.

    Raises:
        ValueError: If there are no draws.
    """
    if draws < 1:
        raise ValueError(f"expected 1 or more draws, got {draws}")
    sizes, counts = np.unique(np.abs(found.sums[found.sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    observed = abs(found.sums.sum())
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // len(sizes))
    beyond = 0
    for start in range(0, draws, block):
        shape = min(block, draws - start), len(sizes)
        # of `counts` images whose sums are as large, how many keep a plus
        totals = (2 * generator.binomial(counts, 0.5, size=shape) - counts) @ sizes
        beyond += int((np.abs(totals) >= observed * (1 - 1e-9)).sum())
    return (1 + beyond) / (1 + draws)
