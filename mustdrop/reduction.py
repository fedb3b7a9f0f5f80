"""Reduction: how a set of tokens becomes a smaller one. Knows nothing about why."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reduction:
    """Tokens before -> tokens after: ``x[keep]``, or ``mix @ x`` where tokens were mixed.

    Attributes:
        keep: Per survivor, the token that it descends from and in whose place it stands. The order
            of ``keep`` is the order of the survivors.
        mix: Weight of every token in every survivor; None where nothing is mixed, and the selection
            is exact to the bit. Rows sum to one unless the strategy says ``normalised = False``.
        sizes: How many tokens each survivor stands for; None: one each.
    """

    keep: Int[Tensor, " after"]
    mix: Float[Tensor, "after before"] | None = None
    sizes: Float[Tensor, " after"] | None = None

    def __len__(self) -> int:
        return len(self.keep)

    def __call__(self, x: Float[Tensor, "before dim"]) -> Float[Tensor, "after dim"]:
        """The survivors of ``x``."""
        if self.mix is None:
            return x.index_select(0, self.keep.to(x.device))
        return self.mix.to(x) @ x

    def then(self, later: "Reduction", before: int) -> "Reduction":
        """This reduction of ``before`` tokens, followed by ``later``."""
        keep = self.keep[later.keep]
        if self.mix is None and later.mix is None:
            return Reduction(keep, None, later.sizes)
        mine = self.weights(before)
        mix = mine[later.keep] if later.mix is None else later.mix.to(mine) @ mine
        return Reduction(keep, mix, later.sizes)

    def weights(self, before: int) -> Float[Tensor, "after before"]:
        """``mix``, written out also where nothing was mixed."""
        if self.mix is not None:
            return self.mix
        weights = torch.zeros(len(self.keep), before, device=self.keep.device)
        return weights.scatter_(1, self.keep[:, None], 1.0)
