"""Weights that mix tokens into survivors: as a matrix, sparse or not, by entries, and by groups.

Knows nothing about strategies and models.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_WEIGHTS = 2**22  # elements of a matrix that is not sparse: 16 MiB in float32


class Entries(NamedTuple):
    """Weights of tokens in survivors; those that are not listed are zero.

    Attributes:
        survivor: Index of the survivor of each weight.
        token: Index of the token of each weight.
        weight: The weights.
    """

    survivor: Int[Tensor, " entries"]
    token: Int[Tensor, " entries"]
    weight: Float[Tensor, " entries"]

    def matrix(self, after: int, before: int) -> Float[Tensor, "after before"]:
        """Matrix of the weights; a sparse one if it would have many elements."""
        if after * before <= MOST_WEIGHTS:
            dense = self.weight.new_zeros(after, before)
            return dense.index_put_((self.survivor, self.token), self.weight)
        index = torch.stack([self.survivor, self.token])
        size = (after, before)
        made = torch.sparse_coo_tensor(index, self.weight, size, check_invariants=False)
        return made.coalesce()

    def sizes(self, sizes: Float[Tensor, " before"], after: int) -> Float[Tensor, " after"]:
        """Sizes of the survivors, from those of the tokens that have a weight in them."""
        counted = (self.weight > 0).to(sizes) * sizes[self.token]
        return sizes.new_zeros(after).index_add_(0, self.survivor, counted)


def full(matrix: Float[Tensor, "after before"] | None) -> Float[Tensor, "after before"] | None:
    """A matrix that may be sparse, with all of its elements."""
    return matrix.to_dense() if matrix is not None and matrix.is_sparse else matrix


def product(
    matrix: Float[Tensor, "after before"], x: Float[Tensor, "before dim"]
) -> Float[Tensor, "after dim"]:
    """Product of a matrix that may be sparse; a sparse one is multiplied in float32."""
    if matrix.is_sparse:
        return (matrix.to(x.device).float() @ x.float()).to(x.dtype)
    return matrix.to(x) @ x


def product_macs(matrix: Float[Tensor, "after before"], dim: int) -> int:
    """Multiply-accumulates of :func:`product`."""
    return (matrix._nnz() if matrix.is_sparse else matrix.numel()) * dim


def spread(
    group: Int[Tensor, " before"], share: Float[Tensor, " before"], after: int
) -> Float[Tensor, "after before"]:
    """Weight of every token in every survivor, from the survivor of each token and its weight."""
    mix = share.new_zeros(after + 1, len(group)).scatter_(0, group[None], share[None])
    return mix[:-1]
