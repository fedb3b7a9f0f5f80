"""PyramidDrop: keep fewer vision tokens after each of a few layers, by last-token attention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import final

from mustdrop.budget import average, require_ascending, rising_root
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    Budget,
    Layers,
    PrefillStrategy,
    PrefillView,
    Share,
    require_fields,
)


def falling_ratios(
    tokens: float, entered: int, depth: int, layers: Sequence[int]
) -> tuple[float, ...]:
    """Ratios l, l^2, l^3, ... whose executed average is ``tokens``; all 0 or all 1 at the ends.

    PyramidDrop rounds each count down, so the executed average is up to one token lower.

    Args:
        tokens: Executed average.
        entered: Number of vision tokens that enter.
        depth: Number of decoder layers.
        layers: Layers after which tokens are dropped, ascending.
    """
    require_ascending(layers, depth)

    def error(ratio: float) -> float:
        kept = [entered * ratio**step for step in range(1, len(layers) + 1)]
        return average(entered, kept, layers, depth) - tokens

    ratio = rising_root(error)
    return tuple(round(ratio**step, 6) for step in range(1, len(layers) + 1))


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
        ratios: Share of the entered vision tokens that is kept after each layer, in [0, 1], or the
            budget that the shares follow from: l, l^2, l^3, ...
        layers: Layers after which tokens are dropped, counted from 0, ascending; the model's last
            layer is not allowed, as it has no next layer.
    """

    ratios: Sequence[Share] | Budget
    layers: Layers = (7, 15, 23)

    def __post_init__(self) -> None:
        require_fields(self)
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"PyramidDrop.layers must ascend, got {list(self.layers)}")
        if not isinstance(self.ratios, Budget) and len(self.ratios) != len(self.layers):
            raise ValueError(
                f"PyramidDrop.ratios must have one ratio for each of {len(self.layers)} layers, "
                f"got {list(self.ratios)}"
            )

    def shares(self, entered: int, depth: int) -> Sequence[float]:
        """Share that is kept after each layer of a prompt of ``entered`` vision tokens."""
        if isinstance(self.ratios, Budget):
            return falling_ratios(self.ratios.target(entered), entered, depth, self.layers)
        return self.ratios

    def plan(self, entered: int, depth: int) -> "PyramidDrop":
        return replace(self, ratios=self.shares(entered, depth))

    def left(self, entered: int) -> list[int] | None:
        if isinstance(self.ratios, Budget):
            return None
        return list(accumulate((int(entered * ratio) for ratio in self.ratios), min))

    def reduce(self, view: PrefillView) -> Reduction:
        score = view.attention(rows="last", of="next").float().mean(0).squeeze(0)
        view.log_score(score)
        ratios = self.shares(view.entered, view.depth)
        ratio = ratios[tuple(self.layers).index(view.layer)]
        return view.top(score, int(view.entered * ratio))
