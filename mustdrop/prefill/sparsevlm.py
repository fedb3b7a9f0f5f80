"""SparseVLM: keep the vision tokens that image-related words attend to; merge the next best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.budget import average, require_ascending, rising_root
from mustdrop.functional import complement, top_keep, true_indices
from mustdrop.pairwise import density_peaks
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import (
    Budget,
    Count,
    Layers,
    Positive,
    PrefillStrategy,
    PrefillView,
    Share,
    Within,
    require_fields,
)

RATERS = "SparseVLM.raters"  # name of the raters among the values cached for all layers


def recycled(entered: int, counts: Sequence[int], recycle: float, per_cluster: int) -> list[int]:
    """Number of tokens after each drop: kept tokens and clusters of recycled ones.

    Args:
        entered: Number of vision tokens that enter.
        counts: Number of tokens kept after each layer.
        recycle: Share of the dropped tokens that is merged.
        per_cluster: Number of merged tokens for each further cluster.
    """
    left = []
    for count in counts:
        before = left[-1] if left else entered
        leaving = before - min(count, before)
        members = min(int(recycle * leaving) + 1, leaving)
        left.append(before - leaving + min(members // per_cluster + 1, members))
    return left


@final
@dataclass(frozen=True)
class SparseVLM(PrefillStrategy):
    """Keep the vision tokens that image-related text tokens attend to most; merge the next best.

    The image-related text tokens, the raters, are chosen once: with H_v, H_t the input embeddings
    of vision and of the text behind it, and
      R = mean_v softmax_t(H_v H_t^T),
    they are the text tokens with R_t > mean(R), or the whole text if there is none, as when the
    text is one token.
    After each layer, with P the head-mean attention from the raters to the V vision tokens:
      kept = min(int(scale * rank(P) + bias), V - 1), or V where rank(P) = V         (version 1)
      kept = keep[layer]                                                           (fixed counts)
    The tokens of highest mean_raters P are kept. Of the n others, the m = int(recycle * n) + 1 next
    ones are clustered by density peaks into int(m / per_cluster) + 1 clusters. Each cluster becomes
    the plain mean of its tokens, at its centre's position and listed after all kept tokens.

    Source: SparseVLM, arXiv:2410.04417; version 1 is Gumpest/SparseVLMs b72c5d6 (score.py:23-44,
        utils.py:155-212), fixed counts its 26a5f48 with USE_VERSION=1_0.
    Differs from the authors' code: no noise on the densities, so equal ones stay equal; a mean is
        divided by n, not n + 1e-6; fixed counts of V or more drop nothing (theirs: V - 1).

    Attributes:
        scale: Vision tokens kept per unit of rank; None with fixed counts.
        bias: Vision tokens kept in addition; None with fixed counts.
        keep: Fixed counts, one per layer, or the budget that they follow from; None for version 1.
        layers: Layers after which tokens are dropped, counted from 0, ascending.
        recycle: Share of the dropped tokens that is merged, in [0, 1].
        per_cluster: Merged tokens for each further cluster, 1 or more.
    """

    scale: Annotated[float, Within("0 or more", 0.0)] | None = None
    bias: float | None = None
    keep: Sequence[Count] | Budget | None = None
    layers: Layers = (2, 6, 15, 19)
    recycle: Share = 0.3
    per_cluster: Positive = 10

    def __post_init__(self) -> None:
        require_fields(self)
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"SparseVLM.layers must ascend, got {list(self.layers)}")
        given = (self.scale is not None, self.bias is not None)
        if given != ((True, True) if self.keep is None else (False, False)):
            raise ValueError(
                "SparseVLM: give scale and bias, or keep, but not both, got "
                f"scale={self.scale}, bias={self.bias}, keep={self.keep}"
            )
        if isinstance(self.keep, tuple) and len(self.keep) != len(self.layers):
            raise ValueError(
                f"SparseVLM.keep must have one count for each of {len(self.layers)} layers, "
                f"got {list(self.keep)}"
            )

    @property
    def thresholds(self) -> Mapping[str, tuple[float, float]]:
        # tokens per unit of rank; the rank is at most the number of raters
        return {} if self.scale is None else {"scale": (0.1, 600.0)}

    def counts(self, entered: int, depth: int) -> Sequence[int] | None:
        """Fixed counts for a prompt of ``entered`` vision tokens; None for version 1.

        With a budget they are N l, N l^2, ... rounded; the last one makes up for rounding. The
        executed average includes recycled tokens. The authors' counts (300, 200, 110 for "192" and
        so on) meet their budgets if tokens are counted after each layer's drop; with those for
        192, 128 and 64, 206.5, 145.4 and 82.3 tokens enter a layer on average.
        """
        if not isinstance(self.keep, Budget):
            return self.keep
        require_ascending(self.layers, depth)
        tokens, steps = self.keep.target(entered), range(1, len(self.layers) + 1)

        def error(counts: Sequence[int]) -> float:
            left = recycled(entered, counts, self.recycle, self.per_cluster)
            return average(entered, left, self.layers, depth) - tokens

        def kept(ratio: float) -> list[int]:
            return [round(entered * ratio**step) for step in steps]

        if tokens >= entered or error(kept(0.0)) >= 0:
            return kept(float(tokens >= entered))
        *first, _ = kept(rising_root(lambda ratio: error(kept(ratio))))
        last = range((first or [entered])[-1] + 1)
        return [*first, min(last, key=lambda count: abs(error([*first, count])))]

    def plan(self, entered: int, depth: int) -> "SparseVLM":
        return replace(self, keep=self.counts(entered, depth))

    def left(self, entered: int) -> list[int] | None:
        if self.keep is None or isinstance(self.keep, Budget):
            return None
        return recycled(entered, self.keep, self.recycle, self.per_cluster)

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: PrefillView) -> Decision:
        if view.layer > self.layers[0]:
            return self._rated(view, view.cached(RATERS, lambda: self.raters(view)))
        is_rater = self.is_rater(view)

        def chosen(numbers: list[int]) -> Reduction:
            raters = true_indices(is_rater, numbers[0])
            return self._rated(view, view.cached(RATERS, lambda: raters))

        return PendingReduction(is_rater.sum()[None], chosen)

    def _rated(self, view: PrefillView, raters: Int[Tensor, " raters"]) -> Reduction:
        attention = view.attention(rows=raters).float().mean(0)
        relation = attention.mean(0)
        view.log_score(relation)
        kept = max(self._count(view, attention), view.protected_count)
        stay = view.top(relation, kept).keep
        return Reduction(stay) if len(stay) == len(view) else self._recycled(view, relation, stay)

    @classmethod
    def raters(cls, view: PrefillView) -> Int[Tensor, " raters"]:
        """Indices of the raters among the text behind the image."""
        return cls.is_rater(view).nonzero().flatten()

    @staticmethod
    def is_rater(view: PrefillView) -> Bool[Tensor, " text"]:
        """Whether each token of the text behind the image is a rater."""
        inputs = view.inputs.float()
        vision, text = inputs[view.entered_positions], inputs[view.text]
        view.count_macs(vision.numel() * len(text))
        share = (vision @ text.T).softmax(-1).mean(0)
        above = share > share.mean()
        return above | ~above.any()

    def _count(self, view: PrefillView, attention: Float[Tensor, "raters vision"]) -> int:
        """Number of vision tokens to keep, without the merged ones."""
        counts = self.counts(view.entered_cells, view.depth)
        if counts is not None:
            return counts[tuple(self.layers).index(view.layer)]
        assert self.scale is not None and self.bias is not None
        # the cost of the singular values
        view.count_macs(2 * max(attention.shape) * min(attention.shape) ** 2)
        rank = int(torch.linalg.matrix_rank(attention))
        if rank == len(view):
            return rank
        return min(max(int(rank * self.scale + self.bias), 0), len(view) - 1)

    def _recycled(
        self, view: PrefillView, relation: Float[Tensor, " vision"], stay: Int[Tensor, " stay"]
    ) -> Reduction:
        """Keep the tokens ``stay`` and append the clusters of the best dropped tokens."""
        dropped = complement(stay, len(view))
        count = min(int(self.recycle * len(dropped)) + 1, len(dropped))
        member = dropped[top_keep(relation[dropped], count)]
        clusters = min(count // self.per_cluster + 1, count)
        hidden = view.hidden[member]
        view.count_macs(hidden.numel() * count)  # the cost of the pairwise distances
        peaks = density_peaks(hidden, clusters)
        keep = torch.cat([stay, member[peaks.centres]])
        # The last group holds the tokens that are dropped without being merged.
        group = torch.full((len(view),), len(keep), device=keep.device)
        group = group.index_copy(0, stay, torch.arange(len(stay), device=keep.device))
        group = group.index_copy(0, member, len(stay) + peaks.cluster)
        sizes = view.sizes.new_zeros(len(keep) + 1).index_add(0, group, view.sizes)[:-1]
        return Reduction.averages(keep, group, torch.ones_like(view.sizes), sizes)
