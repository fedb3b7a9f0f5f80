"""PyramidDrop: keep fewer vision tokens after each of a few layers, by last-token attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mustdrop.reduction import Reduction
from mustdrop.strategy import Layers, PrefillStrategy, PrefillView, Share, require_fields


@final
@dataclass(frozen=True)
class PyramidDrop(PrefillStrategy):
    """After each of a few layers, keep a smaller share of vision tokens, by last-token attention.

    int(M * ratio) tokens are kept, M being the number that entered the model. The score is the
    attention that the prompt's last token would pay in the next layer, on the hidden states before
    the drop, averaged over heads:
      s_j = mean_h softmax(q_last^h K^h^T / sqrt(d))_j.

    Source: PyramidDrop, arXiv:2410.17247, Sec. 3.2; Cooperx521/PyramidDrop 6444f304,
        modeling_llama_pdrop.py:1291-1465. Its rank layer l is our layer l - 1: l layers run before.
    Differs from the authors' code: grouped heads, several images and any batch work.

    Attributes:
        ratios: Share of the entered vision tokens that is kept after each layer, in [0, 1].
        layers: Layers after which tokens are dropped, counted from 0, ascending; the model's last
            layer is not allowed, as it has no next layer.
    """

    ratios: Sequence[Share]
    layers: Layers = (7, 15, 23)

    def __post_init__(self) -> None:
        require_fields(self)
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"PyramidDrop.layers must ascend, got {list(self.layers)}")
        if len(self.ratios) != len(self.layers):
            raise ValueError(
                f"PyramidDrop.ratios must have one ratio for each of {len(self.layers)} layers, "
                f"got {list(self.ratios)}"
            )

    def reduce(self, view: PrefillView) -> Reduction:
        score = view.attention(rows="last", of="next").float().mean(0).squeeze(0)
        view.log_score(score)
        ratio = self.ratios[tuple(self.layers).index(view.layer)]
        return view.top(score, int(view.entered * ratio))
