"""Views: the data that each kind of strategy may read; a value is computed when it is first read.

Knows nothing about models; the engine fills the views.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction

Rows = Literal["text", "last"] | Int[Tensor, " rows"]
Place = int | Literal["features", "projected"]  # a block, or after the encoder


@dataclass(frozen=True, eq=False)
class VisionView:
    """View of one image inside the encoder, without [CLS].

    Attributes:
        block: Block that has just run (for a strategy ``inside_block``, only its attention has),
            or ``features`` or ``projected`` after the encoder.
        grid: Full patch grid of the image as (rows, columns).
        has_cls: Whether a [CLS] comes before the tokens.
        patch_index: Raster index of the patch in whose place each token stands.
        sizes: Number of patches that each token stands for.
    """

    block: Place
    grid: tuple[int, int]
    has_cls: bool
    patch_index: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]
    get_hidden: Callable[[], Float[Tensor, "tokens dim"]]
    get_crops: Callable[[], Sequence[Float[Tensor, "tokens dim"]]]
    get_span: Callable[[], tuple[int, int]]
    get_cls_attention: Callable[[int], Float[Tensor, "heads tokens"]]
    get_queries_keys: Callable[[int], tuple[Tensor, Tensor]]
    get_generator: Callable[[int], torch.Generator]
    get_known: Callable[[str], Bool[Tensor, " patches"]]
    count_macs: Callable[[int], None]

    @property
    def hidden(self) -> Float[Tensor, "tokens dim"]:
        """Hidden states of the image's tokens."""
        return self.get_hidden()

    @property
    def prompt_images(self) -> Sequence[Float[Tensor, "_ dim"]]:
        """Hidden states of all images (crops) of the same prompt, this one included."""
        return self.get_crops()

    @property
    def span(self) -> tuple[int, int]:
        """Number of tokens of the prompt's earlier images, and of all its images, at this place."""
        return self.get_span()

    def cls_attention(self, block: int) -> Float[Tensor, "heads tokens"]:
        """Attention of [CLS] to each token in ``block``; [CLS]'s own column is left out.

        Raises:
            ValueError: If the encoder has no [CLS], or the strategy did not list the block in
                ``cls_attention_blocks``.
        """
        return self.get_cls_attention(block)

    def queries_keys(
        self, block: int
    ) -> tuple[Float[Tensor, "heads all dim"], Float[Tensor, "heads all dim"]]:
        """Queries and keys of ``block``, as its attention gets them; [CLS] first, if there is one.

        Raises:
            ValueError: If the strategy did not list the block in ``query_key_blocks``.
        """
        return self.get_queries_keys(block)

    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, image and ``block`` only."""
        return self.get_generator(seed)

    def annotated(self, name: str) -> Bool[Tensor, " tokens"]:
        """Whether each token stands in the place of a patch that the annotation marks.

        Raises:
            ValueError: If the image has no annotation of that name.
        """
        return self.get_known(name)[self.patch_index]


@dataclass(frozen=True, eq=False)
class PrefillView:
    """View of one prompt's vision tokens between two decoder layers; ``len`` is their number.

    Attributes:
        layer: Layer that has just run; -1 at the language model's input.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        grid: Patch grid of an image as (rows, columns).
        image_count: Number of images of the prompt.
        entered: Number of vision tokens that entered layer 0; at the language model's input, the
            number present there.
        protected: Whether each vision token is a key token, which must stay.
        protected_count: Number of key tokens.
        sizes: Number of patches that each vision token stands for.
        text: Original positions of the text tokens after the last vision token.
        inputs: Input embeddings of the whole prompt at the language model.
        count_macs: Function that adds multiply-accumulates of a decision, without attention rows.
    """

    layer: int
    depth: int
    prompt_index: int
    grid: tuple[int, int]
    image_count: int
    entered: int
    protected: Bool[Tensor, " vision"]
    protected_count: int
    sizes: Float[Tensor, " vision"]
    text: Int[Tensor, " text"]
    inputs: Float[Tensor, "prompt dim"]
    get_positions: Callable[[], Int[Tensor, " vision"]]
    get_entered_positions: Callable[[], Int[Tensor, " entered"]]
    get_cells: Callable[[], Int[Tensor, "vision 3"]]
    get_hidden: Callable[[], Float[Tensor, "vision dim"]]
    get_attention: Callable[[Rows, str], Float[Tensor, "heads rows vision"]]
    get_received: Callable[[], Float[Tensor, " vision"]]
    get_generator: Callable[[int], torch.Generator]
    get_once: Callable[[str, Callable[[], Tensor]], Tensor]
    log_score: Callable[[Float[Tensor, " vision"]], None]
    count_macs: Callable[[int], None]

    def __len__(self) -> int:
        return len(self.protected)

    @property
    def positions(self) -> Int[Tensor, " vision"]:
        """Original position of each vision token."""
        return self.get_positions()

    @property
    def entered_positions(self) -> Int[Tensor, " entered"]:
        """Original positions of the vision tokens that entered layer 0."""
        return self.get_entered_positions()

    @property
    def patch_coordinates(self) -> Int[Tensor, "vision 3"]:
        """(image, row, column) of each vision token; -1 for newlines and the like."""
        return self.get_cells()

    @property
    def hidden(self) -> Float[Tensor, "vision dim"]:
        """Hidden states of the vision tokens."""
        return self.get_hidden()

    def attention(
        self, rows: Rows = "text", of: Literal["this", "next"] = "this"
    ) -> Float[Tensor, "heads rows vision"]:
        """Attention from text to the vision tokens.

        Args:
            rows: Rows to return: all text after the last vision token, only its last token, or
                indices into it.
            of: Layer that has just run, or the next one on this layer's output (a look-ahead).
        """
        return self.get_attention(rows, of)

    def received_attention(self) -> Float[Tensor, " vision"]:
        """Attention that each vision token received from all tokens of the prompt in this layer.

        Mean over heads and rows, in float32; a few rows are computed at a time.
        """
        return self.get_received()

    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, prompt (ids, pixels) and layer only."""
        return self.get_generator(seed)

    def cached(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Value that is the same for all layers: computed at the first, then reused."""
        return self.get_once(name, compute)

    def top(self, score: Float[Tensor, " vision"], keep: int) -> Reduction:
        """Keep the ``keep`` tokens of highest score, in sequence order; key tokens rank first.

        The result is smaller if there are fewer tokens, larger if there are more key tokens.
        """
        kept = min(max(keep, self.protected_count), len(self))
        return Reduction(top_keep(score, kept, self.protected))


@dataclass(frozen=True, eq=False)
class CacheView:
    """View of one prompt's KV cache in one layer, after the prefill.

    Attributes:
        layer: Index of the layer.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        positions: Original position of each vision token in this layer's cache.
        survives: Whether each vision token was still alive in the last layer.
        survivors: Number of vision tokens alive in the last layer.
        protected: Whether each vision token is a key token.
    """

    layer: int
    depth: int
    prompt_index: int
    positions: Int[Tensor, " vision"]
    survives: Bool[Tensor, " vision"]
    survivors: int
    protected: Bool[Tensor, " vision"]
    get_generator: Callable[[int], torch.Generator]

    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, prompt (ids, pixels) and layer only."""
        return self.get_generator(seed)
