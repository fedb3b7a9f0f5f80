"""What a strategy sees of one image inside the encoder, or behind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mustdrop.engine.known import told
from mustdrop.functional import stable_seed
from mustdrop.strategy import Place, VisionView

if TYPE_CHECKING:
    from mustdrop.engine.encoder import EncoderStage


def view_of(
    stage: "EncoderStage", number: int, place: Place, hidden: Sequence[Tensor]
) -> VisionView:
    """An image at a place; ``hidden`` holds the tokens of all images of the batch there."""
    image = stage.batch[number]

    def crops() -> list[Tensor]:
        owner = stage.owners(len(hidden))
        return [states for states, own in zip(hidden, owner, strict=True) if own == owner[number]]

    def cls_attention(block: int) -> Tensor:
        asked = stage.facts.block(block)
        if asked not in image.cls_attention:
            raise ValueError(
                f"[CLS] attention of block {asked} was not read; list it in 'reads', and ask "
                f"for blocks that have run (now: {sorted(image.cls_attention)})"
            )
        return image.cls_attention[asked]

    def queries_keys(block: int) -> tuple[Tensor, Tensor]:
        asked = stage.facts.block(block)
        if asked not in image.queries_keys:
            raise ValueError(
                f"queries and keys of block {asked} were not read; list it in 'reads_keys', "
                f"and ask for blocks that have run (now: {sorted(image.queries_keys)})"
            )
        return image.queries_keys[asked]

    def generator(seed: int) -> torch.Generator:
        key = stage.keys(len(stage.encoded) + number)
        return torch.Generator().manual_seed(stable_seed(seed, key, place))

    def known(name: str) -> Tensor:
        marked = told(stage.known, len(stage.encoded) + number, name, stage.facts.grid)
        return marked.to(image.cells.device)

    return VisionView(
        place, stage.facts.grid, stage.facts.has_cls, image.cells, image.sizes,
        lambda: hidden[number], crops, cls_attention, queries_keys, generator, known,
        image.spend,
    )  # fmt: skip
