"""The four kinds of decision, and what each may look at.

A strategy decides which tokens stay; it never touches a model. Views compute lazily: what a
strategy does not ask for is never computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.reduction import Reduction

Rows = Literal["text", "last"] | Int[Tensor, " rows"]
Place = int | Literal["features", "projected"]  # after a block, or behind the encoder


@dataclass(frozen=True)
class ModelFacts:
    """What a strategy may know of the model before work starts.

    Attributes:
        depth: Decoder layers.
        blocks: Encoder blocks.
        grid: Patches per image as (rows, columns).
        has_cls: Whether the encoder has a [CLS] token.
        feature_block: The block whose output the projector reads.
    """

    depth: int
    blocks: int
    grid: tuple[int, int]
    has_cls: bool
    feature_block: int

    def block(self, block: int) -> int:
        """``block`` counted from the front.

        Raises:
            ValueError: If the encoder has no such block.
        """
        if not -self.blocks <= block < self.blocks:
            raise ValueError(f"the encoder has blocks 0 to {self.blocks - 1}, got {block}")
        return block % self.blocks

    def require_cls(self, block: int) -> None:
        """Check that ``block`` has [CLS] attention to read.

        Raises:
            ValueError: If the encoder has no such block, or no [CLS] token.
        """
        self.block(block)
        if not self.has_cls:
            raise ValueError("[CLS] attention was asked for, but this encoder has no [CLS] token")


def require_counts(**counts: int) -> None:
    """Check that hyper-parameters which count tokens are counts.

    Raises:
        ValueError: If one is negative.
    """
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name} must be a count of tokens, 0 or more, got {count}")


def require_choices(**choices: tuple[object, Sequence[str]]) -> None:
    """Check hyper-parameters that are one of a few words; a misspelt one must not mean another.

    Args:
        choices: By name, what came and what may come.

    Raises:
        ValueError: If one is unknown.
    """
    for name, (came, known) in choices.items():
        if came not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {came!r}")


def require_layers(layers: object) -> tuple[int, ...]:
    """``layers`` as a tuple.

    Raises:
        ValueError: If they are no list of whole numbers, or none at all.
    """
    listed = () if isinstance(layers, str) or not isinstance(layers, Iterable) else tuple(layers)
    if not listed or any(isinstance(at, bool) or not isinstance(at, int) for at in listed):
        raise ValueError(f"layers must be a list of one layer or more, like [2, 6], got {layers!r}")
    return listed


@dataclass(frozen=True, eq=False)
class VisionView:
    """One image inside the encoder, [CLS] left out.

    Attributes:
        block: The block that has just run, or the name of the place behind the encoder.
        grid: The image's full grid as (rows, columns).
        cells: Raster index of the patch in whose place each token stands.
        sizes: Patches that each token stands for.
    """

    block: Place
    grid: tuple[int, int]
    cells: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]
    get_hidden: Callable[[], Float[Tensor, "tokens dim"]]
    get_crops: Callable[[], Sequence[Float[Tensor, "tokens dim"]]]
    get_cls_attention: Callable[[int], Float[Tensor, "heads tokens"]]
    get_generator: Callable[[int], torch.Generator]
    get_known: Callable[[str], Bool[Tensor, " patches"]]

    @property
    def hidden(self) -> Float[Tensor, "tokens dim"]:
        """Hidden states of the image's tokens."""
        return self.get_hidden()

    @property
    def crops(self) -> Sequence[Float[Tensor, "_ dim"]]:
        """Hidden states of all images (crops) of the same prompt, this one among them."""
        return self.get_crops()

    def cls_attention(self, block: int) -> Float[Tensor, "heads tokens"]:
        """Attention of [CLS] to each token in ``block``; [CLS]'s own column is left out.

        Raises:
            ValueError: If the encoder has no [CLS], or the strategy did not list the block in
                ``reads``.
        """
        return self.get_cls_attention(block)

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers that depend on seed, image and place, and on nothing else."""
        return self.get_generator(seed)

    def known(self, name: str) -> Bool[Tensor, " tokens"]:
        """Which tokens stand in the place of patches that were marked from outside.

        Raises:
            ValueError: If nothing of that name was told of the image.
        """
        return self.get_known(name)[self.cells]


@dataclass(frozen=True, eq=False)
class PrefillView:
    """The vision tokens of one prompt between two decoder layers; ``len`` counts them.

    Attributes:
        layer: The layer that has just run; -1 at the language model's input.
        depth: Number of decoder layers.
        grid: Patches per image as (rows, columns).
        image_count: Images of the prompt.
        protected: Key tokens; they must stay.
        protected_count: How many there are.
        sizes: Patches that each vision token stands for.
        text: Original positions of the text tokens behind the last vision token.
        inputs: The language model's input embeddings of the whole prompt.
    """

    layer: int
    depth: int
    grid: tuple[int, int]
    image_count: int
    protected: Bool[Tensor, " vision"]
    protected_count: int
    sizes: Float[Tensor, " vision"]
    text: Int[Tensor, " text"]
    inputs: Float[Tensor, "prompt dim"]
    get_positions: Callable[[], Int[Tensor, " vision"]]
    get_cells: Callable[[], Int[Tensor, "vision 3"]]
    get_hidden: Callable[[], Float[Tensor, "vision dim"]]
    get_attention: Callable[[Rows, str], Float[Tensor, "heads rows vision"]]
    get_generator: Callable[[int], torch.Generator]
    log_score: Callable[[Float[Tensor, " vision"]], None]

    def __len__(self) -> int:
        return len(self.protected)

    @property
    def positions(self) -> Int[Tensor, " vision"]:
        """Original position of each vision token."""
        return self.get_positions()

    @property
    def cells(self) -> Int[Tensor, "vision 3"]:
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

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers that depend on seed, prompt (ids, pixels) and layer, and nothing else."""
        return self.get_generator(seed)


@dataclass(frozen=True, eq=False)
class CacheView:
    """The KV cache of one prompt in one layer, when the prefill is over.

    Attributes:
        layer: The layer.
        depth: Number of decoder layers.
        positions: Original position of each vision token in this layer's cache.
        survives: Whether the token was still alive in the last layer.
        protected: Key tokens.
    """

    layer: int
    depth: int
    positions: Int[Tensor, " vision"]
    survives: Bool[Tensor, " vision"]
    protected: Bool[Tensor, " vision"]


class VisionStrategy(ABC):
    """Stage 1: drops or merges tokens inside or right behind the vision encoder.

    Attributes:
        at: Blocks after which it acts (negative from the end), or ``features`` (before the
            projector) or ``projected`` (behind it).
        reads: Blocks whose [CLS] attention it asks for.
        needs: Names of what it has to be told of each image from outside; bounds alone need any.
    """

    at: Sequence[Place]
    reads: Sequence[int] = ()

    @property
    def needs(self) -> Sequence[str]:
        return ()

    def check(self, facts: ModelFacts) -> None:  # noqa: B027  (most strategies fit any model)
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def reduce(self, view: VisionView) -> Reduction:
        """The tokens of one image that go on."""


class KeyTokenStrategy(ABC):
    """Stage 1b: marks the tokens that no later stage may drop."""

    reads: Sequence[int] = ()

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        """The key tokens of one image, at the projector's input."""


class PrefillStrategy(ABC):
    """Stage 2: drops or merges vision tokens between decoder layers.

    Attributes:
        layers: Acts after these layers; -1 is the language model's input.
    """

    layers: Sequence[int]

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def reduce(self, view: PrefillView) -> Reduction:
        """The vision tokens of one prompt that go on."""


class DecodeStrategy(ABC):
    """Stage 3: chooses the vision tokens that stay in the KV cache for decoding."""

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        """Which vision tokens stay in one layer's cache; called once per layer."""
