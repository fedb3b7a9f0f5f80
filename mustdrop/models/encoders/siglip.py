"""SigLIP's vision encoder (arXiv:2303.15343): CLIP's names, without [CLS] or a first norm."""

from dataclasses import dataclass

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from mustdrop.models.encoders.base import cells_together
from mustdrop.models.encoders.clip import ClipEncoder


@dataclass(frozen=True, eq=False)
class SiglipEncoder(ClipEncoder):
    """Parts of ``SiglipVisionModel``."""

    has_cls = False

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.module.embeddings(pixels)


@dataclass(frozen=True, eq=False)
class PooledSiglipEncoder(SiglipEncoder):
    """The same in front of a projector that takes the mean of the patches of a cell (Gemma 3)."""

    gathered = True

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return cells_together(super().embed(pixels, grid), 0, self.unit)

    def gather(
        self, states: Float[Tensor, "images patches dim"]
    ) -> Float[Tensor, "images cells dim"]:
        return reduce(states, "b (n p) d -> b n d", "mean", p=self.unit**2)
