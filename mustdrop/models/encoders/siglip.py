"""SigLIP's vision encoder (arXiv:2303.15343): CLIP's names, without [CLS] or a first norm."""

from dataclasses import dataclass

from torch import Tensor

from mustdrop.models.encoders.clip import ClipEncoder


@dataclass(frozen=True, eq=False)
class SiglipEncoder(ClipEncoder):
    """Parts of ``SiglipVisionModel``."""

    has_cls = False

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.module.embeddings(pixels)
