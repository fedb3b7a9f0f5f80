"""The four kinds of decision. A strategy decides which tokens stay; it never touches a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from mustdrop.fields import Count, Layers, Positive, Share, Weight, Within, require_fields
from mustdrop.reduction import Reduction
from mustdrop.views import CacheView, Place, PrefillView, Rows, VisionView

__all__ = [
    "CacheView", "Count", "DecodeStrategy", "KeyTokenStrategy", "Layers", "ModelFacts", "Place",
    "Positive", "PrefillStrategy", "PrefillView", "Rows", "Share", "VisionStrategy", "VisionView",
    "Weight", "Within", "require_choices", "require_fields",
]  # fmt: skip


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


class VisionStrategy(ABC):
    """Stage 1: drops or merges tokens inside the vision encoder or directly behind it.

    Attributes:
        places: Blocks after which it acts (negative: counted from the end), or ``features`` (before
            the projector) or ``projected`` (behind it).
        inside_block: Whether it acts in these blocks, between attention and MLP.
        proportional_attention: Whether later blocks add the log of a token's number of patches to
            its attention scores.
        cls_attention_blocks: Blocks whose [CLS] attention it reads.
        query_key_blocks: Blocks whose queries and keys it reads.
        normalised: Whether its mixes are averages, so that each row sums to one.
        annotations: Names of the annotations that each image must have; only bounds need any.
    """

    places: Sequence[Place]
    inside_block: bool = False
    proportional_attention: bool = False
    cls_attention_blocks: Sequence[int] = ()
    query_key_blocks: Sequence[int] = ()
    normalised: bool = True

    @property
    def annotations(self) -> Sequence[str]:
        return ()

    def check(self, facts: ModelFacts) -> None:  # noqa: B027  (most strategies fit any model)
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def reduce(self, view: VisionView) -> Reduction:
        """The tokens of one image that go on."""


class KeyTokenStrategy(ABC):
    """Stage 1b: marks the tokens that no later stage may drop."""

    cls_attention_blocks: Sequence[int] = ()

    def check(self, facts: ModelFacts) -> None:  # noqa: B027
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    @abstractmethod
    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        """The key tokens of one image, among the tokens that all of stage 1 has left."""


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
