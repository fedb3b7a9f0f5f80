"""FastV: an image is worth half its tokens after layer two."""

from dataclasses import dataclass
from typing import final

from mustdrop.reduction import Reduction
from mustdrop.strategy import PrefillStrategy, PrefillView, require_counts


@final
@dataclass(frozen=True)
class FastV(PrefillStrategy):
    """Keep the vision tokens that the prompt's last token attends to most, averaged over heads.

    Source: FastV, arXiv:2403.06764, Sec. 4.1. The paper's K is ``layer`` + 1: K layers run on all
        tokens.
    Differs from the authors' code: ``keep`` is a count, not a ratio; each sample of a batch chooses
        for itself.

    Attributes:
        keep: Vision tokens kept per prompt.
        layer: Acts after this layer, on its attention.
    """

    keep: int
    layer: int = 1

    def __post_init__(self) -> None:
        require_counts(keep=self.keep)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        score = view.attention(rows="last").float().mean(0).squeeze(0)
        view.log_score(score)
        return view.best(score, self.keep)
