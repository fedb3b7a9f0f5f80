"""ClsTopK: keep the vision tokens that the encoder's [CLS] token attends to most."""

from dataclasses import dataclass
from typing import final

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, VisionView, require_fields


@final
@dataclass(frozen=True)
class ClsTopK(KeepPerImage):
    """Keep the vision tokens of an image that [CLS] attends to most in one encoder block.

    It acts before the projector and does not read the question.

    Source: MustDrop, arXiv:2411.10803, Table 4 row (a): "we retain an average of 64 vision tokens
        based on their correlation with the [CLS] token in the vision encoder". The paper gives
        neither block nor heads; block and head mean are those of the authors' key tokens.
        With ``block=-2`` it is FasterVLM, arXiv:2412.01818v1 (Theia-4869/FasterVLM at
        f5d5f121), and, for one image, HiRED, arXiv:2408.10945 (hasanar1f/HiRED at
        502d6dd7), whose sum over heads gives the same ranking.
    Differs from the authors' code: FasterVLM drops behind the projector, which gives the same
        tokens, as it maps each one separately; HiRED's code drops the patches chosen for a batch's
        first image from all images.

    Attributes:
        keep: Number of tokens kept per image.
        block: Encoder block whose attention is read.
    """

    keep: Keep
    block: int = -1
    places = ("features",)

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def cls_attention_blocks(self) -> tuple[int]:
        return (self.block,)

    def reduce(self, view: VisionView) -> Reduction:
        score = view.cls_attention(self.block).float().mean(0)
        return Reduction(top_keep(score, self.kept(view)), ascending=True)
