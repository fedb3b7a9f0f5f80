"""Operations that torch's FLOP counter leaves out, as it knows products of matrices only."""

import torch


def distances(points, others, *args, out_shape=None, **kwargs) -> int:
    return 2 * points[0] * others[0] * points[1]


def singular_values(matrix, *args, out_shape=None, **kwargs) -> int:
    """Golub and Van Loan: 4 m n^2 for the values alone, m >= n."""
    return 4 * max(matrix) * min(matrix) ** 2


UNSEEN = {
    torch.ops.aten._cdist_forward: distances,
    torch.ops.aten._linalg_svd: singular_values,
}
