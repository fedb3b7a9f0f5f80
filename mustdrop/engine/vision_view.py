"""View of one image for a vision strategy, inside the encoder or after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mustdrop.engine.annotations import Annotations, annotated
from mustdrop.engine.draws import image_key
from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.prompts import ArrivedImage
from mustdrop.functional import stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.strategy import Place, VisionView


@dataclass(eq=False, kw_only=True)
class EncoderState:
    """State of the images of an encoder call.

    Attributes:
        adapter: Facts about the model.
        arrived: Function that lists the images of the batch of prompts as they will be encoded.
        annotations: Marked cells of each image.
        encoded: Images of earlier calls for the same prompts.
        batch: Images of this call; at the language model's input, those of all prompts.
        finite: Notes on whether all numbers are finite.
    """

    adapter: ModelAdapter
    arrived: Callable[[], list[ArrivedImage]]
    annotations: Annotations = ()
    encoded: list[EncodedImage] = field(default_factory=list)
    batch: list[EncodedImage] = field(default_factory=list)
    finite: FiniteNotes = field(default_factory=FiniteNotes)


class ImageView(VisionView):
    """View of an image of a call at one location."""

    def __init__(
        self, state: EncoderState, number: int, location: Place, hidden: Sequence[Tensor]
    ) -> None:
        """Make the view; ``hidden`` holds the tokens of all images of the call there."""
        self._state, self._number, self._hidden = state, number, hidden
        self._facts, self._image = state.adapter.facts, state.batch[number]
        self.block, self.grid = location, self._image.image.grid
        self.has_cls = self._facts.has_cls
        self.cells, self.sizes = self._image.cells, self._image.sizes

    @property
    def hidden(self) -> Float[Tensor, "tokens dim"]:
        name = f"block {self.block}" if isinstance(self.block, int) else self.block
        return self._noted(f"the encoder's hidden states at {name}", self._hidden[self._number])

    @property
    def prompt_images(self) -> Sequence[Float[Tensor, "_ dim"]]:
        batch = zip(self._hidden, self._state.batch, strict=True)
        prompt = self._image.image.prompt
        return [states for states, other in batch if other.image.prompt == prompt]

    @property
    def span(self) -> tuple[int, int, int]:
        return self._image.image.span

    def cls_attention(self, block: int) -> Float[Tensor, "heads tokens"]:
        block, recorded = self._facts.block(block), self._image.cls_attention
        if block not in recorded:
            raise ValueError(
                f"[CLS] attention of block {block} was not recorded; list it in "
                "'cls_attention_blocks', and read only blocks that have run "
                f"(now: {sorted(recorded)})"
            )
        return self._noted(f"the [CLS] attention scores of block {block}", recorded[block])

    def queries_keys(
        self, block: int
    ) -> tuple[Float[Tensor, "heads all dim"], Float[Tensor, "heads all dim"]]:
        block, recorded = self._facts.block(block), self._image.queries_keys
        if block not in recorded:
            raise ValueError(
                f"queries and keys of block {block} were not recorded; list it in "
                "'query_key_blocks', and read only blocks that have run "
                f"(now: {sorted(recorded)})"
            )
        query, key = recorded[block]
        return query, self._noted(f"the keys of block {block}", key)

    def generator(self, seed: int) -> torch.Generator:
        key = image_key(self._image.image.pixels)
        return torch.Generator().manual_seed(stable_seed(seed, key, self.block))

    def annotation(self, name: str) -> Bool[Tensor, " cells"]:
        order = self._image.image.order
        marked = annotated(self._state.annotations, order, name, self.grid)
        return marked.to(self.cells.device)

    def count_macs(self, macs: int) -> None:
        self._image.count_macs(macs)

    def _noted(self, name: str, values: Tensor) -> Tensor:
        """The values, after a note on whether they are finite."""
        self._state.finite.note_image(name, self._image.image.encoded, values)
        return values
