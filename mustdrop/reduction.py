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
        cls: Weight of the encoder's [CLS] in every survivor, where it takes part; with ``mix``
            only.
    """

    keep: Int[Tensor, " after"]
    mix: Float[Tensor, "after before"] | None = None
    sizes: Float[Tensor, " after"] | None = None
    cls: Float[Tensor, " after"] | None = None

    def __post_init__(self) -> None:
        if self.cls is not None and self.mix is None:
            raise ValueError("a reduction that mixes [CLS] in needs mix for the other tokens")

    def __len__(self) -> int:
        return len(self.keep)

    def __call__(
        self, x: Float[Tensor, "before dim"], cls: Float[Tensor, " dim"] | None = None
    ) -> Float[Tensor, "after dim"]:
        """The survivors of ``x``; ``cls`` is [CLS], where it takes part.

        Raises:
            ValueError: If [CLS] takes part and is not given.
        """
        if self.mix is None:
            return x.index_select(0, self.keep.to(x.device))
        mixed = self.mix.to(x) @ x
        if self.cls is None:
            return mixed
        if cls is None:
            raise ValueError("this reduction mixes [CLS] in, and there is none to mix")
        return mixed + self.cls.to(x)[:, None] * cls

    def then(self, later: "Reduction", before: int) -> "Reduction":
        """This reduction of ``before`` tokens, followed by ``later``."""
        keep = self.keep[later.keep]
        if self.mix is None and later.mix is None:
            return Reduction(keep, None, later.sizes)
        mine = self.weights(before)
        if later.mix is None:
            cls = None if self.cls is None else self.cls[later.keep]
            return Reduction(keep, mine[later.keep], later.sizes, cls)
        cls = later.cls
        if self.cls is not None:
            through = later.mix.to(self.cls) @ self.cls
            cls = through if cls is None else through + cls.to(through)
        return Reduction(keep, later.mix.to(mine) @ mine, later.sizes, cls)

    def weights(self, before: int) -> Float[Tensor, "after before"]:
        """``mix``, written out also where nothing was mixed."""
        if self.mix is not None:
            return self.mix
        weights = torch.zeros(len(self.keep), before, device=self.keep.device)
        return weights.scatter_(1, self.keep[:, None], 1.0)
