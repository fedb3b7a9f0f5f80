"""AverageFrames: average neighbouring frames of a video, cell by cell (a control of merging)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.frames import video_shares
from mustdrop.functional import even_cells
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class AverageFrames(KeepPerPrompt):
    """Replace the tokens that show one cell in neighbouring frames by their mean.

    A video that keeps k tokens, with n cells per frame, has k // n groups of frames. The cells of
    an even grid have one group more, so that the count is met; with fewer tokens than cells of a
    frame, the other cells are dropped. A mean stands in the place of the frame in the middle of its
    group. Key tokens stay as they are. Slots that show no cell (a frame's [CLS]) are dropped.

    Source: control, ours: temporal average pooling.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared by its videos; a number above the
            vision tokens keeps all.
        layer: Layer after which tokens are averaged; -1: before the language model.
    """

    videos_only = True

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: PrefillView) -> Decision:
        keep, keys = self.kept(view), view.protected_count
        if keep == len(view):
            return Reduction(torch.arange(keep, device=view.protected.device), ascending=True)
        table, groups = _groups(view, max(keep - keys, 0))
        group = view.of_cells(table, off_grid=-1.0)
        of_keys = groups + view.protected.cumsum(0) - 1
        group = torch.where(view.protected, of_keys, group)
        group = group.masked_fill(group < 0, groups + keys)  # the last group is dropped
        present = torch.zeros(groups + keys, dtype=torch.bool, device=group.device)
        present = torch.cat([present, present.new_zeros(1)]).index_fill(0, group, True)[:-1]
        all_cells = sum(rows * columns for rows, columns in view.grids)
        if not keys and len(view) == view.entered and view.entered_cells == all_cells:
            return _averages(view, group, present, groups)  # no group is empty
        return PendingReduction(
            present.sum()[None], lambda numbers: _averages(view, group, present, numbers[0])
        )


def _groups(view: PrefillView, keep: int) -> tuple[Int[Tensor, " cells"], int]:
    """Group of each cell of each frame, -1 if it is dropped, and the number of groups."""
    table, first = [torch.zeros(0, dtype=torch.long)], 0
    for frames, rows, columns, share in video_shares(view, keep):
        cells = rows * columns
        share = min(share, frames * cells)
        counts = torch.full((cells,), share // cells)
        counts[even_cells(rows, columns, share % cells)] += 1
        within = torch.arange(frames)[:, None] * counts // frames
        of_video = first + counts.cumsum(0) - counts + within
        table.append(of_video.masked_fill(counts == 0, -1).flatten())
        first += share
    return torch.cat(table), first


def _averages(
    view: PrefillView,
    group: Int[Tensor, " vision"],
    present: Bool[Tensor, " groups"],
    count: int,
) -> Reduction:
    """Average the tokens of each group that has some; the survivors are in sequence order."""
    last = present.new_full((1,), count, dtype=torch.long)
    group = torch.cat([present.cumsum(0) - 1, last])[group]
    tokens = last.new_zeros(count + 1).index_add(0, group, torch.ones_like(group))[:-1]
    middle = group.argsort(stable=True)[tokens.cumsum(0) - tokens + (tokens - 1) // 2]
    order = middle.argsort()
    group = torch.cat([order.argsort(), last])[group]
    sizes = view.sizes.new_zeros(count + 1).index_add(0, group, view.sizes)[:-1]
    return Reduction.averages(middle[order], group, torch.ones_like(view.sizes), sizes)
