"""What a strategy sees of one image inside the encoder, or behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mustdrop.engine.annotations import Annotations, annotated
from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.image import EncodedImage
from mustdrop.functional import stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.strategy import Place, VisionView


@dataclass(eq=False, kw_only=True)
class EncoderState:
    """Where the images of an encoder call stand.

    Attributes:
        adapter: Facts of the model.
        owners: Told the number of images of one encoder call, says which prompt each belongs to.
        keys: Told the number of an image, returns its key for random draws.
        known: What was told of each image from outside.
        encoded: Images of earlier calls for the same prompts.
        batch: Those of this call.
        finite: Notes on whether all numbers are finite.
    """

    adapter: ModelAdapter
    owners: Callable[[int], Sequence[int]]
    keys: Callable[[int], int]
    known: Annotations = ()
    encoded: list[EncodedImage] = field(default_factory=list)
    batch: list[EncodedImage] = field(default_factory=list)
    finite: FiniteNotes = field(default_factory=FiniteNotes)


def view_of(stage: EncoderState, number: int, place: Place, hidden: Sequence[Tensor]) -> VisionView:
    """An image at a place; ``hidden`` holds the tokens of all images of the batch there."""
    image, facts = stage.batch[number], stage.adapter.facts

    def states() -> Tensor:
        at = f"block {place}" if isinstance(place, int) else place
        stage.finite.note_image(f"the encoder's hidden states at {at}", number, hidden[number])
        return hidden[number]

    def crops() -> list[Tensor]:
        owner = stage.owners(len(hidden))
        return [crop for crop, own in zip(hidden, owner, strict=True) if own == owner[number]]

    def cls_attention(block: int) -> Tensor:
        asked = facts.block(block)
        if asked not in image.cls_attention:
            raise ValueError(
                f"[CLS] attention of block {asked} was not read; list it in 'reads', and ask "
                f"for blocks that have run (now: {sorted(image.cls_attention)})"
            )
        scores = image.cls_attention[asked]
        stage.finite.note_image(f"the [CLS] attention scores of block {asked}", number, scores)
        return scores

    def queries_keys(block: int) -> tuple[Tensor, Tensor]:
        asked = facts.block(block)
        if asked not in image.queries_keys:
            raise ValueError(
                f"queries and keys of block {asked} were not read; list it in 'reads_keys', "
                f"and ask for blocks that have run (now: {sorted(image.queries_keys)})"
            )
        query, key = image.queries_keys[asked]
        stage.finite.note_image(f"the keys of block {asked}", number, key)
        return query, key

    def generator(seed: int) -> torch.Generator:
        key = stage.keys(len(stage.encoded) + number)
        return torch.Generator().manual_seed(stable_seed(seed, key, place))

    def known(name: str) -> Tensor:
        marked = annotated(stage.known, len(stage.encoded) + number, name, facts.grid)
        return marked.to(image.cells.device)

    return VisionView(
        place, facts.grid, facts.has_cls, image.cells, image.sizes,
        states, crops, cls_attention, queries_keys, generator, known,
        image.count_macs,
    )  # fmt: skip
