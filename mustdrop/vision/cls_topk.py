"""Selection by [CLS] attention: what the encoder itself looks at, whatever the question."""

from dataclasses import dataclass
from typing import final

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, ModelFacts, VisionStrategy, VisionView, require_fields


@final
@dataclass(frozen=True)
class ClsTopK(VisionStrategy):
    """Keep the tokens of an image that [CLS] attends to most, before the projector.

    Source: MustDrop, arXiv:2411.10803, Table 4 row (a): "we retain an average of 64 vision tokens
        based on their correlation with the [CLS] token in the vision encoder". Block and heads are
        not said; the block and the head mean of the authors' key tokens are taken.
        With ``block=-2`` it is FasterVLM, arXiv:2412.01818v1 (Theia-4869/FasterVLM at
        f5d5f121), and, for one image, HiRED, arXiv:2408.10945 (hasanar1f/HiRED at
        502d6dd7), whose sum over heads ranks alike.
    Differs from the authors' code: FasterVLM drops behind the projector, which treats tokens one by
        one; HiRED's code drops the patches of a batch's first image from all.

    Attributes:
        keep: Tokens kept per image.
        block: The encoder block whose attention is read.
    """

    keep: Count
    block: int = -1
    places = ("features",)

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def cls_attention_blocks(self) -> tuple[int]:
        return (self.block,)

    def check(self, facts: ModelFacts) -> None:
        facts.require_cls(self.block)

    def reduce(self, view: VisionView) -> Reduction:
        score = view.cls_attention(self.block).float().mean(0)
        return Reduction(top_keep(score, min(self.keep, len(score))))
