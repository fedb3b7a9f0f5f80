"""The four kinds of strategy. A strategy decides which tokens stay; it never touches a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from jaxtyping import Bool, Float
from torch import Tensor

from mustdrop.budget import Budget, keep_for, part_of
from mustdrop.fields import Count, Keep, Layers, Positive, Share, Weight, Within, require_fields
from mustdrop.reduction import Reduction
from mustdrop.views import CacheView, Place, PrefillView, Rows, VisionView

__all__ = [
    "Budget", "CacheView", "Count", "DecodeStrategy", "Keep", "KeepPerImage", "KeyTokenStrategy",
    "Layers", "ModelFacts", "Place", "Positive", "PrefillStrategy", "PrefillView", "Rows", "Share",
    "Strategy", "TopK", "VisionStrategy", "VisionView", "Weight", "Within", "require_choices",
    "require_fields",
]  # fmt: skip


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
    """

    depth: int
    blocks: int
    grid: tuple[int, int] | None
    has_cls: bool
    feature_block: int
    unit: int = 1
    coordinates: bool = False
    received: bool = False

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

    def fitted(self, facts: ModelFacts) -> "Strategy":
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

    def plan(self, entered: int, blocks: int) -> "VisionStrategy":
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


class KeepPerImage(VisionStrategy):
    """Stage 1 with a fixed number of tokens per image.

    Attributes:
        keep: Number of tokens kept per image, or the budget of a prompt, whose images share it;
            None if the image decides.
        fewest: Least number of tokens that the strategy can keep.
    """

    keep: Keep | None
    fewest: int = 0

    def kept(self, view: VisionView) -> int:
        """Number of tokens kept of an image, all of them if it has fewer."""
        assert self.keep is not None
        if isinstance(self.keep, Budget):
            return max(part_of(self.keep, *view.span), self.fewest)
        return min(self.keep, len(view.cells))

    def plan(self, entered: int, blocks: int) -> "KeepPerImage":
        if not isinstance(self.keep, Budget):
            return self
        return replace(cast(Any, self), keep=max(keep_for(self.keep, entered), self.fewest))

    def left(self, entered: int) -> int | None:
        return min(self.keep, entered) if isinstance(self.keep, int) else None


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
    """

    layers: Sequence[int]

    def plan(self, entered: int, depth: int) -> "PrefillStrategy":
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


@dataclass(frozen=True)
class TopK(PrefillStrategy):
    """Base of the prefill strategies that keep the tokens of highest score, after one layer.

    Attributes:
        keep: Number of tokens kept per prompt, or the budget that it follows from.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Keep
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        return view.top(self.score(view), self.kept(view))

    @abstractmethod
    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        """Score of each vision token of one prompt."""

    def kept(self, view: PrefillView) -> int:
        """Number of tokens kept of a prompt, all of them if it has fewer."""
        return min(keep_for(self.keep, view.entered_cells, view.depth, self.layer), len(view))

    def plan(self, entered: int, depth: int) -> "TopK":
        keep = keep_for(self.keep, entered, depth, self.layer)
        return replace(cast(Any, self), keep=keep)

    def left(self, entered: int) -> Sequence[int] | None:
        return None if isinstance(self.keep, Budget) else [min(self.keep, entered)]


class DecodeStrategy(Strategy, ABC):
    """Stage 3: chooses the vision tokens that stay in the KV cache for decoding."""

    @abstractmethod
    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        """Whether each vision token stays in one layer's cache; called once per layer."""
