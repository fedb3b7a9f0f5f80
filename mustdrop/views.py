"""What each kind of decision may look at. Lazy: what a strategy does not ask for is not computed.

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
Place = int | Literal["features", "projected"]  # a block, or behind the encoder


@dataclass(frozen=True, eq=False)
class VisionView:
    """One image inside the encoder, [CLS] left out.

    Attributes:
        block: The block that has just run (whose attention has, for a strategy ``inside_block``),
            or the name of the place behind the encoder.
        grid: The image's full grid as (rows, columns).
        has_cls: Whether a [CLS] stands in front of the tokens.
        patch_index: Raster index of the patch in whose place each token stands.
        sizes: Patches that each token stands for.
    """

    block: Place
    grid: tuple[int, int]
    has_cls: bool
    patch_index: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]
    get_hidden: Callable[[], Float[Tensor, "tokens dim"]]
    get_crops: Callable[[], Sequence[Float[Tensor, "tokens dim"]]]
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
        """Hidden states of all images (crops) of the same prompt, this one among them."""
        return self.get_crops()

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
        """Random numbers that depend on seed, image and place, and on nothing else."""
        return self.get_generator(seed)

    def annotated(self, name: str) -> Bool[Tensor, " tokens"]:
        """Which tokens stand in the place of patches that were marked from outside.

        Raises:
            ValueError: If nothing of that name was told of the image.
        """
        return self.get_known(name)[self.patch_index]


@dataclass(frozen=True, eq=False)
class PrefillView:
    """The vision tokens of one prompt between two decoder layers; ``len`` counts them.

    Attributes:
        layer: The layer that has just run; -1 at the language model's input.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        grid: Patches per image as (rows, columns).
        image_count: Images of the prompt.
        entered: Vision tokens that entered layer 0; at the language model's input, those that are
            there.
        protected: Key tokens; they must stay.
        protected_count: How many there are.
        sizes: Patches that each vision token stands for.
        text: Original positions of the text tokens behind the last vision token.
        inputs: The language model's input embeddings of the whole prompt.
        count_macs: Adds multiply-accumulates of the decision, attention rows left out.
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
            rows: All text behind the last vision token, only its last token, or an index into it.
            of: The layer that has just run, or the next one on this layer's output (one look
                ahead).
        """
        return self.get_attention(rows, of)

    def received_attention(self) -> Float[Tensor, " vision"]:
        """Attention that each vision token received from all tokens of the prompt in this layer.

        Mean over heads and rows, in float32; rows are read a few at a time.
        """
        return self.get_received()

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers that depend on seed, prompt (ids, pixels) and layer, and nothing else."""
        return self.get_generator(seed)

    def cached(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What does not change from layer to layer: computed at the first, kept for the others."""
        return self.get_once(name, compute)

    def top(self, score: Float[Tensor, " vision"], keep: int) -> Reduction:
        """The ``keep`` tokens of highest score, in sequence order, key tokens first among them.

        Fewer where there are fewer, more where there are more key tokens.
        """
        kept = min(max(keep, self.protected_count), len(self))
        return Reduction(top_keep(score, kept, self.protected))


@dataclass(frozen=True, eq=False)
class CacheView:
    """The KV cache of one prompt in one layer, when the prefill is over.

    Attributes:
        layer: The layer.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        positions: Original position of each vision token in this layer's cache.
        survives: Whether the token was still alive in the last layer.
        survivors: How many there were in the last layer.
        protected: Key tokens.
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
        """Random numbers that depend on seed, prompt (ids, pixels) and layer, and nothing else."""
        return self.get_generator(seed)
