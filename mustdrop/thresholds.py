"""Strategies whose thresholds can be calibrated from values observed once.

Such a strategy says which values it compares with its thresholds and what follows from them. A
calibration observes the values in one pass in which nothing is dropped, and then computes the
counts at any threshold without running the model (:mod:`mustdrop.calibration`). The strategy itself
decides by the same two methods, so that a replay and a run agree.
"""

from abc import abstractmethod
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import (
    KeyTokenStrategy,
    PrefillStrategy,
    PrefillView,
    VisionStrategy,
    VisionView,
)


class ThresholdVision(VisionStrategy):
    """Stage 1 whose number of tokens per image follows from observed values."""

    @abstractmethod
    def observe(self, view: VisionView) -> Any:
        """Values of an image that are compared with thresholds; they depend on no threshold."""

    @abstractmethod
    def remaining(self, observed: Any, entered: int) -> int:
        """Number of tokens that go on, of an image of ``entered`` tokens."""


class ThresholdKeyTokens(KeyTokenStrategy):
    """Stage 1b that protects tokens by a value of each of them."""

    @abstractmethod
    def observe(self, view: VisionView) -> Float[Tensor, " tokens"]:
        """Value of each token that is compared with thresholds; it depends on no threshold."""

    @abstractmethod
    def marked(self, observed: Float[Tensor, " tokens"]) -> Bool[Tensor, " tokens"]:
        """Whether each token of one image is a key token."""

    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        return self.marked(self.observe(view))


class ThresholdPrefill(PrefillStrategy):
    """Stage 2 that drops tokens by values of each of them.

    Attributes:
        min_keep: Least number of vision tokens kept.
    """

    min_keep: int = 0

    @abstractmethod
    def observe(self, view: PrefillView) -> Float[Tensor, "values vision"]:
        """Values of each token that are compared with thresholds; they depend on no threshold."""

    @abstractmethod
    def stays(
        self, observed: Float[Tensor, "values vision"], protected: Bool[Tensor, " vision"]
    ) -> Bool[Tensor, " vision"]:
        """Whether each token stays; protected ones always do.

        Args:
            observed: Values of the tokens that are left.
            protected: Whether each of them is a key token.
        """

    def survivors(
        self, observed: Float[Tensor, "values vision"], protected: Bool[Tensor, " vision"]
    ) -> Int[Tensor, " kept"]:
        """Indices of the tokens that stay."""
        return self.stays(observed, protected).nonzero().flatten()

    def begin(self, view: PrefillView) -> Decision:
        return PendingReduction.of(self.stays(self.observe(view), view.protected))

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]
