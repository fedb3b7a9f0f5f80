"""KnownPatches: keep or drop annotated patches first, as upper and lower bound of any selection."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import top_keep
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import Keep, VisionView, require_fields


@final
@dataclass(frozen=True)
class KnownPatches(KeepPerImage):
    """Keep annotated patches first (oracle) or drop them first (anti-oracle); others at random.

    ``attach(model, annotations=...)`` must give the annotations. PocketVQA provides
    ``target_patches``, the patches of the objects that a question is about, and ``object_patches``.
    No real method may read either, so these are bounds of all methods.

    The random draw depends on the pixels that the model receives; see
    :class:`mustdrop.prefill.random.Random`.

    Source: control, ours.

    Attributes:
        keep: Number of tokens kept per image; None keeps exactly the annotated patches (with
            ``invert``, exactly the others).
        mark: Name of the annotation.
        invert: Whether annotated patches are dropped first instead of last.
        seed: Seed of the random draw.
    """

    keep: Keep | None
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
        return settled([self.begin(view)])[0]

    def begin(self, view: VisionView) -> Decision:
        preferred = view.annotated(self.mark) ^ self.invert
        if self.keep is None:
            return PendingReduction.of(preferred)
        draw = torch.rand(len(preferred), generator=view.generator(self.seed)).to(
            preferred.device, non_blocking=True
        )
        return Reduction(top_keep(draw + preferred, self.kept(view)), ascending=True)
