"""EveryOtherFrame: keep every second frame of a video (a control that reads no content)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.reduction import PendingReduction, Reduction, settled
from mustdrop.strategy import PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class EveryOtherFrame(PrefillStrategy):
    """Keep the frames 0, 2, 4, ... of each video and all key tokens.

    No count is given: half of the tokens that show a cell stay, and half a frame more where a video
    has an odd number of frames. Slots that show no cell (a frame's [CLS]) are dropped.

    Source: control, ours.

    Attributes:
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    layer: int = -1
    videos_only = True

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def left(self, entered: int) -> list[int]:
        return [entered - entered // 2]

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: PrefillView) -> PendingReduction:
        stays = [torch.zeros(0, dtype=torch.bool)]
        for images, _ in view.visual_inputs:
            for frame, image in enumerate(images):
                rows, columns = view.grids[image]
                stays.append(torch.full((rows * columns,), frame % 2 == 0))
        return PendingReduction.of(view.of_cells(torch.cat(stays), off_grid=0.0) | view.protected)
