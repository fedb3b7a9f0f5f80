"""The four kinds of strategy. A strategy decides which tokens stay; it never touches a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxtyping import Bool
from torch import Tensor

from mustdrop.budget import Budget
from mustdrop.fields import Count, Keep, Layers, Positive, Share, Weight, Within, require_fields
from mustdrop.reduction import Decision, Reduction
from mustdrop.views import CacheView, Place, PrefillView, Rows, VisionView

__all__ = [
    "Budget", "CacheView", "Count", "DecodeStrategy", "Keep", "KeyTokenStrategy", "Layers",
    "ModelFacts", "Place", "Positive", "PrefillStrategy", "PrefillView", "Rows", "Share",
    "Strategy", "VisionStrategy", "VisionView", "Weight", "Within", "require_choices",
    "require_fields",
]  # fmt: skip

Same = TypeVar("Same", bound=Any)  # the class of the strategy itself


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the model that a strategy may use before work starts.

    Attributes:
        depth: Number of decoder layers.
        blocks: Number of encoder blocks.
        grid: Cells of every encoded image as (rows, columns); None: images differ in size.
        has_cls: Whether the encoder has a [CLS] token.
        feature_block: Index of the block whose output the projector reads.
        unit: Number of patches along each side of a cell, which one vision token shows.
        coordinates: Whether rotary positions are coordinates of the image, which a rule that
            renumbers positions leaves as they are.
        received: Whether the attention that a patch receives stands for that of [CLS].
        whole_encoder: Reason why the encoder runs whole and is not read, so that stage 1 acts at
            ``projected`` only; None: tokens may leave inside it.
    """

    depth: int
    blocks: int
    grid: tuple[int, int] | None
    has_cls: bool
    feature_block: int
    unit: int = 1
    coordinates: bool = False
    received: bool = False
    whole_encoder: str | None = None

    def block(self, block: int) -> int:
        """Index of ``block`` counted from the front.

        Raises:
            ValueError: If the encoder has no such block.
        """
        if not -self.blocks <= block < self.blocks:
            raise ValueError(f"the encoder has blocks 0 to {self.blocks - 1}, got {block}")
        return block % self.blocks

    def require_cls(self, block: int) -> None:
        """Check that ``block`` has [CLS] attention to read, or attention that stands for it.

        Raises:
            ValueError: If the encoder has no such block, or no [CLS] token.
        """
        self.block(block)
        if not self.has_cls and not self.received:
            raise ValueError(
                "[CLS] attention is required, but this encoder has no [CLS] token; "
                "TokenDropper(cls_attention='received') takes the attention that each patch "
                "receives from all patches instead"
            )


def require_choices(**choices: tuple[object, Sequence[str]]) -> None:
    """Check hyper-parameters that must be one of a few words, so that misspelt ones are refused.

    Args:
        choices: Name -> (given value, allowed values).

    Raises:
        ValueError: If a value is not allowed.
    """
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


class Strategy:
    """What all four kinds of strategy may say about themselves.

    Attributes:
        thresholds: Fields that calibration may search to meet a budget, the first one by default,
            each with the ends of its range. A range that starts above 0 is searched on a log scale.
        traced: Numbers and arrays that the trace of a sample keeps, by name.
    """

    @property
    def thresholds(self) -> Mapping[str, tuple[float, float]]:
        return {}

    @property
    def traced(self) -> Mapping[str, float | Sequence[float]]:
        return {}

    def check(self, facts: ModelFacts) -> None:
        """Raise ValueError if this strategy cannot work on the model; called before work starts."""

    def fitted(self: Same, facts: ModelFacts) -> Same:
        """This strategy with what it must know of the model before work starts."""
        return self


class VisionStrategy(Strategy, ABC):
    """Stage 1: drops or merges tokens inside the vision encoder or directly after it.

    Attributes:
        places: Blocks after which the strategy acts (negative: counted from the end), or
            ``features`` (before the projector) or ``projected`` (after it).
        inside_block: Whether the strategy acts in these blocks, between attention and MLP. A token
            can then be merged into one survivor only.
        proportional_attention: Whether later blocks add the log of a token's number of patches to
            its attention scores.
        cls_attention_blocks: Blocks whose [CLS] attention the strategy reads.
        query_key_blocks: Blocks whose queries and keys the strategy reads.
        normalised: Whether mixes are averages, so that each row of weights sums to one.
        annotations: Names of the annotations that each image must have; only the oracles do.
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

    def check(self, facts: ModelFacts) -> None:
        """Raise ValueError if this strategy cannot work on the model; called before work starts.

        By default, each block whose [CLS] attention is read must have one.
        """
        for block in self.cls_attention_blocks:
            facts.require_cls(block)

    def plan(self: Same, entered: int, blocks: int) -> Same:
        """This strategy with counts in place of budgets, for images of ``entered`` tokens.

        A budget that is out of reach gives the fewest tokens possible.

        Args:
            entered: Number of vision tokens of an image.
            blocks: Number of encoder blocks up to and including the one the projector reads.
        """
        return self

    def left(self, entered: int) -> int | None:
        """Number of an image's tokens that go on; None if it depends on the image.

        Args:
            entered: Number of vision tokens of the image.
        """
        return None

    @abstractmethod
    def reduce(self, view: VisionView) -> Reduction:
        """Reduce the tokens of one image to those that go on."""

    def begin(self, view: VisionView) -> Decision:
        """Reduce up to numbers that are read from the device, by default completely.

        The engine begins with all images of an encoder call before it reads any of these numbers.
        """
        return self.reduce(view)


class KeyTokenStrategy(Strategy, ABC):
    """Stage 1b: marks the tokens that no later stage may drop."""

    cls_attention_blocks: Sequence[int] = ()

    def check(self, facts: ModelFacts) -> None:
        """Raise ValueError if this strategy cannot work on the model; called before work starts.

        By default, each block whose [CLS] attention is read must have one.
        """
        for block in self.cls_attention_blocks:
            facts.require_cls(block)

    @abstractmethod
    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        """Whether each token of one image that stage 1 has kept is a key token."""


class PrefillStrategy(Strategy, ABC):
    """Stage 2: drops or merges vision tokens between decoder layers.

    Attributes:
        layers: Layers after which the strategy acts; -1 is the language model's input.
        videos_only: Whether prompts with images are refused, because the strategy chooses among the
            frames of a video.
    """

    layers: Sequence[int]
    videos_only: bool = False

    def plan(self: Same, entered: int, depth: int) -> Same:
        """This strategy with counts in place of budgets, for prompts of ``entered`` vision tokens.

        A budget that is out of reach gives the fewest tokens possible.

        Args:
            entered: Number of vision tokens at the language model's input.
            depth: Number of decoder layers.
        """
        return self

    def left(self, entered: int) -> Sequence[int] | None:
        """Number of vision tokens after each of ``layers``; None if it depends on the prompt.

        Args:
            entered: Number of vision tokens at the language model's input.
        """
        return None

    def step(self, entered: int, depth: int) -> float:
        """Difference between two neighbouring executed averages that the strategy can reach."""
        return 1.0

    @abstractmethod
    def reduce(self, view: PrefillView) -> Reduction:
        """Reduce the vision tokens of one prompt to those that go on."""

    def begin(self, view: PrefillView) -> Decision:
        """Reduce up to numbers that are read from the device, by default completely.

        The engine begins with all prompts of the batch before it reads any of these numbers.
        """
        return self.reduce(view)


class DecodeStrategy(Strategy, ABC):
    """Stage 3: chooses the vision tokens that stay in the KV cache for decoding."""

    @abstractmethod
    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        """Whether each vision token stays in one layer's cache; called once per layer."""
