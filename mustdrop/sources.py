"""TokenSources: the cells that vision tokens stand for where they enter the language model."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.mixing import full, spread


@dataclass(frozen=True, eq=False)
class TokenSources:
    """Cells that the vision tokens of one image stand for at the language model's input.

    Attributes:
        slots: Original position of each token, in the order in which they entered.
        cells: Raster index of the cell in whose place each token stands.
        matrix: Weight of every cell in every token, also as a sparse tensor, where cells are split
            among tokens.
        cls: Weight of the encoder's [CLS] in every token, if it takes part.
        group: Index of the token that each cell is merged into, the number of tokens if it is
            dropped; where cells are mixed and none is split.
        share: Weight of each cell in its token; with ``group``.
    """

    slots: Int[Tensor, " tokens"]
    cells: Int[Tensor, " tokens"]
    matrix: Float[Tensor, "tokens cells"] | None = None
    cls: Float[Tensor, " tokens"] | None = None
    group: Int[Tensor, " cells"] | None = None
    share: Float[Tensor, " cells"] | None = None

    @property
    def mix(self) -> Float[Tensor, "tokens cells"] | None:
        """Weight of every cell in every token; None: token i is cell ``cells[i]``."""
        if self.group is None or self.share is None:
            return full(self.matrix)
        return spread(self.group, self.share, len(self.slots))
