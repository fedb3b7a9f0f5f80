"""View of one image for a vision strategy, inside the encoder or after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
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


class ImageView(VisionView):
    """View of an image of a call at one location."""

    def __init__(
        self, state: EncoderState, number: int, location: Place, hidden: Sequence[Tensor]
    ) -> None:
        """Make the view; ``hidden`` holds the tokens of all images of the call there."""
        self._state, self._number, self._hidden = state, number, hidden
        self._facts, self._image = state.adapter.facts, state.batch[number]
        self.block, self.grid, self.has_cls = location, self._facts.grid, self._facts.has_cls
        self.patch_index, self.sizes = self._image.cells, self._image.sizes
        self._index = len(state.encoded) + number  # among the images of all calls

    @property
    def hidden(self) -> Float[Tensor, "tokens dim"]:
        name = f"block {self.block}" if isinstance(self.block, int) else self.block
        return self._noted(f"the encoder's hidden states at {name}", self._hidden[self._number])

    @property
    def prompt_images(self) -> Sequence[Float[Tensor, "_ dim"]]:
        owners = self._state.owners(len(self._hidden))
        owner = owners[self._number]
        return [crop for crop, other in zip(self._hidden, owners, strict=True) if other == owner]

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
        key = self._state.keys(self._index)
        return torch.Generator().manual_seed(stable_seed(seed, key, self.block))

    def annotation(self, name: str) -> Bool[Tensor, " patches"]:
        marked = annotated(self._state.annotations, self._index, name, self.grid)
        return marked.to(self.patch_index.device)

    def count_macs(self, macs: int) -> None:
        self._image.count_macs(macs)

    def _noted(self, name: str, values: Tensor) -> Tensor:
        """The values, after a note on whether they are finite."""
        self._state.finite.note_image(name, self._number, values)
        return values
