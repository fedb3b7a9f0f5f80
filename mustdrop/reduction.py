"""Reduction: how a set of tokens becomes a smaller one. Knows nothing about why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Union

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.functional import true_indices
from mustdrop.mixing import full, product, product_macs, spread


@dataclass(frozen=True, eq=False)
class Reduction:
    """Tokens before -> tokens after: ``x[keep]``, or ``mix @ x`` where tokens are mixed.

    Attributes:
        keep: Index of the token that each survivor descends from and whose place it takes. The
            order of ``keep`` is the order of the survivors.
        matrix: Weight of every token in every survivor, also as a sparse tensor; None if nothing is
            mixed or no token is split. Rows sum to one unless the strategy sets
            ``normalised = False``.
        sizes: Number of tokens that each survivor stands for; None: one each.
        cls: Weight of the encoder's [CLS] in every survivor, if it takes part; with ``matrix``.
        group: Index of the survivor that each token is merged into, ``len(keep)`` if it is dropped;
            set where tokens are mixed and none is split (see :meth:`averages`).
        share: Weight of each token in its survivor, 0 if it is dropped; only with ``group``.
        ascending: Whether ``keep`` is known to ascend. That all tokens stay as they are is then
            clear without a wait for the device.
    """

    keep: Int[Tensor, " after"]
    matrix: Float[Tensor, "after before"] | None = None
    sizes: Float[Tensor, " after"] | None = None
    cls: Float[Tensor, " after"] | None = None
    group: Int[Tensor, " before"] | None = None
    share: Float[Tensor, " before"] | None = None
    ascending: bool = False

    def __post_init__(self) -> None:
        if self.cls is not None and self.matrix is None:
            raise ValueError("a reduction that mixes [CLS] in needs weights of the other tokens")
        if (self.group is None) != (self.share is None):
            raise ValueError("a reduction into groups needs the share of each token")

    @property
    def mixes(self) -> bool:
        """Whether tokens are mixed; a selection is exact to the bit."""
        return self.matrix is not None or self.group is not None

    @property
    def mix(self) -> Float[Tensor, "after before"] | None:
        """Weight of every token in every survivor; None if nothing is mixed.

        For groups it is made at each call: the number of its elements grows as the square of the
        number of tokens.
        """
        if self.group is None or self.share is None:
            return full(self.matrix)
        return spread(self.group, self.share, len(self))

    @classmethod
    def averages(
        cls,
        keep: Int[Tensor, " after"],
        group: Int[Tensor, " before"],
        weight: Float[Tensor, " before"],
        sizes: Float[Tensor, " after"] | None = None,
    ) -> "Reduction":
        """Make each survivor the weighted average of its group.

        Args:
            keep: Index of the token that each survivor descends from.
            group: Index of the survivor that each token is merged into; ``len(keep)``: dropped.
            weight: Weight of each token within its group.
            sizes: Number of tokens that each survivor stands for; None: one each.
        """
        total = weight.new_zeros(len(keep) + 1).index_add_(0, group, weight)
        share = (weight / total[group]).masked_fill(group == len(keep), 0.0)
        return cls(keep, None, sizes, group=group, share=share)

    def __len__(self) -> int:
        return len(self.keep)

    def __call__(
        self, x: Float[Tensor, "before dim"], cls: Float[Tensor, " dim"] | None = None
    ) -> Float[Tensor, "after dim"]:
        """Compute the survivors of ``x``; ``cls`` is [CLS], if it takes part.

        Raises:
            ValueError: If [CLS] takes part and is not given.
        """
        if self.group is not None and self.share is not None:
            group = self.group.to(x.device)
            weighted = x.float() * self.share.to(x.device)[:, None]
            rows = weighted.new_zeros(len(self) + 1, x.shape[1]).index_add_(0, group, weighted)
            return rows[:-1].to(x.dtype)
        if self.matrix is None:
            return x.index_select(0, self.keep.to(x.device))
        mixed = product(self.matrix, x)
        if self.cls is None:
            return mixed
        if cls is None:
            raise ValueError("this reduction mixes [CLS] in, but no [CLS] was given")
        return mixed + self.cls.to(x)[:, None] * cls

    def macs(self, dim: int) -> int:
        """Multiply-accumulates of the matrix product of one call; 0 if it needs none."""
        return 0 if self.matrix is None else product_macs(self.matrix, dim)

    def at(self, left: Int[Tensor, " left"]) -> "Reduction":
        """The reduction to some of the survivors only."""
        parts = (self.matrix, self.sizes, self.cls)
        matrix, sizes, cls = (
            None if part is None else part.index_select(0, left) for part in parts
        )
        if self.group is None or self.share is None:
            return Reduction(self.keep[left], matrix, sizes, cls)
        survivor = left.new_full((len(self) + 1,), len(left))
        survivor[left] = torch.arange(len(left), device=left.device)
        group = survivor[self.group]
        share = self.share.masked_fill(group == len(left), 0.0)
        return Reduction(self.keep[left], None, sizes, None, group, share)

    def to(self, device: torch.device) -> "Reduction":
        """The reduction on another device."""
        parts = {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **{name: part.to(device) for name, part in parts.items()})

    def then(self, later: "Reduction", before: int) -> "Reduction":
        """Combine this reduction of ``before`` tokens with a ``later`` one into a single reduction.

        Sizes count the tokens before this reduction, also the sizes of ``later``.
        """
        keep, sizes = self.keep[later.keep], later.sizes
        if sizes is None and self.sizes is not None:
            sizes = self.sizes[later.keep]
        if not self.mixes and not later.mixes:
            return Reduction(keep, None, sizes)
        first, second = self._groups(before), later._groups(len(self))
        if first is not None and second is not None:
            survivor = torch.cat([second[0], second[0].new_full((1,), len(later))])
            weight = torch.cat([second[1], second[1].new_zeros(1)])
            group, through = survivor[first[0]], first[1] * weight[first[0]]
            return Reduction(keep, None, sizes, group=group, share=through)
        if not later.mixes:
            cls = None if self.cls is None else self.cls[later.keep]
            return Reduction(keep, self.weights(before)[later.keep], sizes, cls)
        mix = later.weights(len(self))
        if not self.mixes:  # ``later`` mixes a selection of the tokens before
            mix = mix.new_zeros(len(later), before).index_copy_(1, self.keep, mix)
            return Reduction(keep, mix, sizes, later.cls)
        cls = later.cls
        if self.cls is not None:
            through = mix.to(self.cls) @ self.cls
            cls = through if cls is None else through + cls.to(through)
        before_mix = self.weights(before)
        return Reduction(keep, mix.to(before_mix) @ before_mix, sizes, cls)

    def weights(self, before: int) -> Float[Tensor, "after before"]:
        """Weight of every token in every survivor, also where ``mix`` is None."""
        mix = self.mix
        if mix is not None:
            return mix
        weights = torch.zeros(len(self.keep), before, device=self.keep.device)
        return weights.scatter_(1, self.keep[:, None], 1.0)

    def _groups(self, before: int) -> tuple[Tensor, Tensor] | None:
        """(survivor of each token, its weight there); None if a token goes into several."""
        if not self.mixes:
            group = self.keep.new_full((before,), len(self))
            group[self.keep] = torch.arange(len(self), device=self.keep.device)
            return group, torch.ones(before, device=self.keep.device)
        return None if self.group is None or self.share is None else (self.group, self.share)


@dataclass(frozen=True, eq=False)
class PendingReduction:
    """Reduction that depends on whole numbers which are still on the device.

    Attributes:
        numbers: The numbers.
        finish: Function from the numbers to the reduction, or to another one that is pending.
    """

    numbers: Int[Tensor, " numbers"]
    finish: Callable[[list[int]], Union[Reduction, "PendingReduction"]]

    @classmethod
    def of(cls, stays: Bool[Tensor, " before"]) -> "PendingReduction":
        """Selection of the tokens that stay."""
        return cls(
            stays.sum()[None],
            lambda numbers: Reduction(true_indices(stays, numbers[0]), ascending=True),
        )


Decision = Reduction | PendingReduction


def settled(decisions: Sequence[Decision]) -> list[Reduction]:
    """Finish decisions; the numbers of all that are pending are read with one wait at a time."""
    pending = [part for part in decisions if isinstance(part, PendingReduction)]
    if not pending:
        return [part for part in decisions if isinstance(part, Reduction)]
    device = pending[0].numbers.device
    numbers = iter(torch.cat([part.numbers.to(device) for part in pending]).tolist())
    return settled(
        [
            part.finish(list(islice(numbers, len(part.numbers))))
            if isinstance(part, PendingReduction)
            else part
            for part in decisions
        ]
    )


def changing(
    reductions: Sequence[Reduction],
    tokens: Sequence[int],
    order: Callable[[int], Int[Tensor, " kept"] | None] = lambda number: None,
) -> list[bool]:
    """Whether each reduction changes anything.

    The host waits for the device at most once, and only if some reduction drops and mixes nothing
    and may have another order.

    Args:
        reductions: Reductions of several sets of tokens.
        tokens: Number of tokens of each set.
        order: Order in which the survivors of a set, by its number, will stand; None: the order of
            the reduction.
    """
    changes = [
        reduction.mixes or len(reduction) != before
        for reduction, before in zip(reductions, tokens, strict=True)
    ]
    unsure = [
        number
        for number, change in enumerate(changes)
        if not change and tokens[number] and not reductions[number].ascending
    ]
    if unsure:
        keeps = [
            keep if (slots := order(number)) is None else keep[slots]
            for number in unsure
            for keep in (reductions[number].keep,)
        ]
        moved = torch.stack(
            [
                (keep != torch.arange(len(keep), device=keep.device)).any().to(keeps[0].device)
                for keep in keeps
            ]
        )
        for number, change in zip(unsure, moved.tolist(), strict=True):
            changes[number] = change
    return changes
