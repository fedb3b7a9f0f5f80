"""View of one image for a vision strategy, inside the encoder or after it."""

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
    """State of the images of an encoder call.

    Attributes:
        adapter: Facts about the model.
        owners: Function from the number of images of a call to the prompt index of each image.
        keys: Function from the index of an image to its key for random draws.
        annotations: Marked patches of each image.
        encoded: Images of earlier calls for the same prompts.
        batch: Images of this call.
        finite: Notes on whether all numbers are finite.
    """

    adapter: ModelAdapter
    owners: Callable[[int], Sequence[int]]
    keys: Callable[[int], int]
    annotations: Annotations = ()
    encoded: list[EncodedImage] = field(default_factory=list)
    batch: list[EncodedImage] = field(default_factory=list)
    finite: FiniteNotes = field(default_factory=FiniteNotes)


def view_of(
    stage: EncoderState, number: int, location: Place, hidden: Sequence[Tensor]
) -> VisionView:
    """View of an image at a location; ``hidden`` holds the tokens of all images there."""
    image, facts = stage.batch[number], stage.adapter.facts

    def states() -> Tensor:
        name = f"block {location}" if isinstance(location, int) else location
        stage.finite.note_image(f"the encoder's hidden states at {name}", number, hidden[number])
        return hidden[number]

    def crops() -> list[Tensor]:
        owners = stage.owners(len(hidden))
        return [c for c, owner in zip(hidden, owners, strict=True) if owner == owners[number]]

    def span() -> tuple[int, int]:
        owners = stage.owners(len(hidden))
        sizes = [len(c) * (i == owners[number]) for c, i in zip(hidden, owners, strict=True)]
        return sum(sizes[:number]), sum(sizes)

    def cls_attention(block: int) -> Tensor:
        block = facts.block(block)
        if block not in image.cls_attention:
            raise ValueError(
                f"[CLS] attention of block {block} was not recorded; list it in "
                "'cls_attention_blocks', and read only blocks that have run "
                f"(now: {sorted(image.cls_attention)})"
            )
        scores = image.cls_attention[block]
        stage.finite.note_image(f"the [CLS] attention scores of block {block}", number, scores)
        return scores

    def queries_keys(block: int) -> tuple[Tensor, Tensor]:
        block = facts.block(block)
        if block not in image.queries_keys:
            raise ValueError(
                f"queries and keys of block {block} were not recorded; list it in "
                "'query_key_blocks', and read only blocks that have run "
                f"(now: {sorted(image.queries_keys)})"
            )
        query, key = image.queries_keys[block]
        stage.finite.note_image(f"the keys of block {block}", number, key)
        return query, key

    def generator(seed: int) -> torch.Generator:
        key = stage.keys(len(stage.encoded) + number)
        return torch.Generator().manual_seed(stable_seed(seed, key, location))

    def annotation(name: str) -> Tensor:
        marked = annotated(stage.annotations, len(stage.encoded) + number, name, facts.grid)
        return marked.to(image.cells.device)

    return VisionView(
        location, facts.grid, facts.has_cls, image.cells, image.sizes,
        states, crops, span, cls_attention, queries_keys, generator, annotation,
        image.count_macs,
    )  # fmt: skip
