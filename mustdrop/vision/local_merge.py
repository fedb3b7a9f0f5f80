"""LocalMerge: merge each window of similar neighbouring patches into one token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.functional import ranked, true_indices, window_similarity, windows
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import ModelFacts, VisionView, Within, require_fields
from mustdrop.thresholds import ThresholdVision


@final
@dataclass(frozen=True)
class LocalMerge(ThresholdVision):
    """Merge each k x k window of similar patches into one token, their mean.

    A window w of k^2 neighbouring patches is merged iff  S_w = sum_{m != n} cos(v_m, v_n) > tau.

    Source: MustDrop, arXiv:2411.10803, Sec. 3.2, Eq. 5.
    Differs from the authors' code: nothing, with ``score="mean"``, ``strict=False``,
    ``crops="fewest"`` and ``order="similarity"`` (909afa5, local_merge.py).

    Attributes:
        tau: Threshold on the similarity: a cosine in [-1, 1] for ``mean``, times k^2 (k^2 - 1) for
            ``sum``. A value above the range merges nothing; more than twice the range is an error.
        window: Side k of a window, in patches, at least 2; it must divide the grid.
        block: Encoder block after which windows are merged.
        score: ``sum``: sum over the ordered pairs, as in Eq. 5. ``mean``: their mean, as in the
            authors' code.
        strict: Whether a window must exceed tau (the paper) or may equal it (the code).
        crops: ``own``: each image merges all windows above tau. ``fewest``: each image merges only
            its r most similar windows, where r is the smallest number of windows above tau among
            the crops of the same prompt.
        edges: ``refuse``: a grid that the windows do not fill is an error. ``keep``: the cells at
            the right and bottom that fill no window stay as they are.
        order: ``raster``: a merged token takes the position of its window's last patch.
            ``similarity``: merged tokens come first, sorted by falling similarity.
    """

    tau: float
    window: Annotated[int, Within("at least 2 patches wide", 2.0)] = 3
    block: int = 0
    score: Literal["mean", "sum"] = "sum"
    strict: bool = True
    crops: Literal["own", "fewest"] = "own"
    order: Literal["raster", "similarity"] = "raster"
    edges: Literal["refuse", "keep"] = "refuse"

    def __post_init__(self) -> None:
        require_fields(self)
        most = self._most
        # Values up to twice the range are allowed, so that a user can request "merge nothing". A
        # value farther out belongs to the other score and would silently merge nothing.
        if abs(self.tau) > 2 * most:
            raise ValueError(
                f"LocalMerge.tau must be near the range of score={self.score}, which is [-{most}, "
                f"{most}] for a window of {self.window}x{self.window}, got {self.tau}"
            )

    @property
    def _most(self) -> int:
        """Score of a window of equal patches."""
        return 1 if self.score == "mean" else self.window**2 * (self.window**2 - 1)

    @property
    def thresholds(self) -> Mapping[str, tuple[float, float]]:
        return {"tau": (0.0, float(self._most))}

    @property
    def places(self) -> tuple[int]:
        return (self.block,)

    def check(self, facts: ModelFacts) -> None:
        if self.edges == "keep":
            return
        if facts.grid is None:
            raise ValueError(
                "images of this model differ in size, so windows may not fill their grids: set "
                "LocalMerge.edges to keep"
            )
        try:
            windows(*facts.grid, self.window)
        except ValueError as error:
            raise ValueError(f"{error}: set LocalMerge.edges to keep") from error

    def reduce(self, view: VisionView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: VisionView) -> Decision:
        hidden = view.hidden
        if len(hidden) != view.grid[0] * view.grid[1]:
            raise ValueError(
                f"LocalMerge needs the full grid of {view.grid[0]} x {view.grid[1]}, got "
                f"{len(hidden)} tokens; it must act before any other reduction"
            )
        index = self.windows(view.grid, hidden.device)
        similarity = window_similarity(hidden, index, self.score)
        comparisons = 1 if self.crops == "own" else 1 + len(view.prompt_images)
        view.count_macs(comparisons * index.numel() * index.shape[1] * hidden.shape[1])
        similar = self.alike(similarity)
        if self.crops == "own":
            fewest = similar.sum()
        else:
            if len({len(crop) for crop in view.prompt_images}) > 1:
                raise ValueError(
                    "LocalMerge.crops=fewest compares crops of one size, but the images of this "
                    "prompt differ in size: use crops=own"
                )
            alike = [
                self.alike(window_similarity(crop, index, self.score))
                for crop in view.prompt_images
            ]
            fewest = torch.stack([crop.sum() for crop in alike]).min()

        def merged(numbers: list[int]) -> Reduction:
            order = true_indices(similar, numbers[0]) if self.crops == "own" else ranked(similarity)
            chosen = order[: numbers[0]]
            if self.order == "similarity":
                chosen = chosen[ranked(similarity[chosen])]
            return self._merge(index[chosen], hidden)

        return PendingReduction(fewest[None], merged)

    def windows(
        self, grid: tuple[int, int], device: torch.device | None = None
    ) -> Int[Tensor, "windows cells"]:
        """Raster indices of the cells of each window of a grid."""
        if self.edges == "refuse":
            return windows(*grid, self.window, device)
        rows, columns = (side - side % self.window for side in grid)
        index = windows(rows, columns, self.window, device)
        row, column = index // max(columns, 1), index % max(columns, 1)
        return row * grid[1] + column

    def observe(self, view: VisionView) -> Sequence[Float[Tensor, " windows"]]:
        """Similarity of the windows, in each crop that the image depends on."""
        crops = [view.hidden] if self.crops == "own" else view.prompt_images
        index = self.windows(view.grid, view.cells.device)
        return [window_similarity(crop, index, self.score) for crop in crops]

    def remaining(self, observed: Sequence[Float[Tensor, " windows"]], entered: int) -> int:
        fewest = min(int(self.alike(crop).sum()) for crop in observed)
        return entered - fewest * (self.window**2 - 1)

    def alike(self, similarity: Float[Tensor, " windows"]) -> Bool[Tensor, " windows"]:
        """Whether each window is similar enough to be merged."""
        return similarity > self.tau if self.strict else similarity >= self.tau

    def _merge(self, merged: Tensor, hidden: Float[Tensor, "tokens dim"]) -> Reduction:
        """Build the reduction that averages each row of ``merged`` (window x patch).

        The average takes the slot of the window's last patch.
        """
        tokens = len(hidden)
        single = torch.ones(tokens, dtype=torch.bool, device=hidden.device)
        single[merged] = False
        rest = true_indices(single, tokens - merged.numel())
        keep = torch.cat([merged[:, -1], rest])
        sizes = torch.ones_like(keep, dtype=torch.float32)
        sizes[: len(merged)] = merged.shape[1]
        if self.order == "raster":
            order = keep.argsort()
            keep, sizes = keep[order], sizes[order]
        if not len(merged):
            return Reduction(keep, None, sizes, ascending=True)
        group = torch.empty(tokens, dtype=torch.long, device=hidden.device)
        group[keep] = torch.arange(len(keep), device=hidden.device)
        group[merged] = group[merged[:, -1:]].expand_as(merged)
        return Reduction.averages(keep, group, sizes.new_ones(tokens), sizes)
