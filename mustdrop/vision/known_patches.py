"""Selection by what is known beforehand: the upper and the lower bound of any selection."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, VisionStrategy, VisionView, require_fields


@final
@dataclass(frozen=True)
class KnownPatches(VisionStrategy):
    """Keep marked patches first (an oracle), or drop them first (an anti-oracle); others at random.

    Source: control, ours. What is marked has to be told with ``attach(model, annotations=...)``;
        PocketVQA tells ``target_patches``, the objects that a question is about, and
        ``object_patches``. No method may look at either, so this bounds them all.

    The draw among equals depends on the pixels as the model is given them; see
    :class:`mustdrop.prefill.random.Random`.

    Attributes:
        keep: Tokens kept per image; None: exactly the marked ones (the unmarked ones where
            ``invert``).
        mark: Name of what is marked.
        invert: Whether marked patches leave first instead of last.
        seed: Of the draw among equals.
    """

    keep: Count | None
    mark: str = "target_patches"
    invert: bool = False
    seed: int = 0
    places = ("features",)

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def annotations(self) -> tuple[str]:
        return (self.mark,)

    def reduce(self, view: VisionView) -> Reduction:
        first = view.annotated(self.mark) ^ self.invert
        if self.keep is None:
            return Reduction(first.nonzero().flatten())
        draw = torch.rand(len(first), generator=view.generator(self.seed)).to(first.device)
        return Reduction(top_keep(draw + first, min(self.keep, len(first))))
