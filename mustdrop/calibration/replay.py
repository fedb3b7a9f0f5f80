"""Token counts of a method at other thresholds, from one observed pass. Knows no model.

Nothing up to the first dropping layer depends on the thresholds of the prefill or of the key
tokens. So the values observed there determine exactly which tokens are dropped after it at any
threshold, and later layers get at most the tokens left. Nothing up to the block in which images are
reduced depends on the thresholds of the vision stage. So the values observed there determine
exactly how many tokens enter the decoder. This gives bounds of the executed average, which are
equal if no other layer drops, and an estimate between them. The strategies themselves apply the
thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import mul
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.dropper import TokenDropper
from mustdrop.strategy import KeyTokenStrategy
from mustdrop.thresholds import ThresholdKeyTokens, ThresholdPrefill, ThresholdVision


@dataclass(frozen=True)
class CountRange:
    """Bounds and estimate of the executed average at a threshold.

    Attributes:
        low: Lower bound.
        likely: Estimate: the average if later layers attend to the image as without dropping.
        high: Upper bound.
    """

    low: float
    likely: float
    high: float


@dataclass(frozen=True, eq=False)
class ObservedLayer:
    """Values of one prompt's vision tokens after one layer.

    Attributes:
        positions: Original position of each vision token.
        values: Values that the strategy compares with its thresholds.
    """

    positions: Int[Tensor, " vision"]
    values: Float[Tensor, "values vision"]


@dataclass(frozen=True, eq=False)
class ObservedPrompt:
    """Observations of one prompt.

    Attributes:
        depth: Number of decoder layers.
        cells: Number of cells that the prompt's vision tokens show, before any stage.
        entered: Number of vision tokens that entered the first layer; the number that no stage has
            reduced if images were observed.
        protected: Mask of the key tokens over original positions.
        layers: Observed values by the layer after which the prefill strategy acts.
        images: Original positions of the tokens of each image, and the values by which key tokens
            are selected.
        encoded: Number of tokens of each image, and the values by which it is reduced.
    """

    depth: int
    cells: int
    entered: int
    protected: Bool[Tensor, " seq"]
    layers: Mapping[int, ObservedLayer] = field(default_factory=dict)
    images: Sequence[tuple[Tensor, Tensor]] = ()
    encoded: Sequence[tuple[int, Any]] = ()


@dataclass(frozen=True, eq=False)
class Replay:
    """Observations of one pass.

    Attributes:
        prompts: Observations of each prompt.
    """

    prompts: Sequence[ObservedPrompt]

    def range(self, dropper: TokenDropper, likely: bool = True, shares: bool = False) -> CountRange:
        """Mean executed average of the prompts at other thresholds.

        Args:
            dropper: The observed dropper with other values of the observed fields.
            likely: Whether to estimate the drops of later layers; if not, ``likely`` is ``high``.
            shares: Whether to divide each prompt's average by its number of cells; prompts without
                any are left out.
        """
        prompts = [prompt for prompt in self.prompts if prompt.cells or not shares]
        ranges = [
            [value / prompt.cells if shares else value for value in _range(prompt, dropper, likely)]
            for prompt in prompts
        ]
        low, middle, high = (sum(column) / len(ranges) for column in zip(*ranges, strict=True))
        return CountRange(low, middle, high)


def _range(
    prompt: ObservedPrompt, dropper: TokenDropper, likely: bool
) -> tuple[float, float, float]:
    """(low, likely, high) of one prompt."""
    depth, vision, prefill = prompt.depth, dropper.vision, dropper.prefill
    if prompt.encoded:
        assert isinstance(vision, ThresholdVision)
        reduced = sum(
            tokens - vision.remaining(values, tokens) for tokens, values in prompt.encoded
        )
        entered = prompt.entered - reduced
        untouched = min(prefill.layers if prefill is not None else (), default=depth - 1) + 1
        return entered * untouched / depth, float(entered), float(entered)
    if not prompt.layers:
        constant = float(prompt.entered)
        return constant, constant, constant
    assert isinstance(prefill, ThresholdPrefill)
    layers = sorted(prompt.layers)
    spans = [until - layer for layer, until in pairwise([*layers, depth - 1])]
    protected = _protected(prompt, dropper.key_tokens)
    counts = _survivors(prompt, layers if likely else layers[:1], prefill, protected)
    first = counts[0]
    later = len(layers) - 1
    # key tokens stay, and all others may be dropped after the second layer
    fewest = min(max(int(protected.sum()), prefill.min_keep), first)

    def average(kept: Sequence[int]) -> float:
        return (prompt.entered * (layers[0] + 1) + sum(map(mul, kept, spans))) / depth

    most = average([first] * len(layers))
    return average([first, *[fewest] * later]), average(counts) if likely else most, most


def _survivors(
    prompt: ObservedPrompt,
    layers: Sequence[int],
    strategy: ThresholdPrefill,
    protected: Bool[Tensor, " seq"],
) -> list[int]:
    """Number of tokens kept after each layer; exact for the first layer."""
    alive = torch.ones_like(protected)
    counts: list[int] = []
    for layer in layers:
        observed = prompt.layers[layer]
        index = alive[observed.positions].nonzero().flatten()
        positions, values = observed.positions[index], observed.values[:, index]
        kept = positions[strategy.survivors(values, protected[positions])]
        alive = torch.zeros_like(protected).index_fill_(0, kept, True)
        counts.append(len(kept))
    return counts


def _protected(prompt: ObservedPrompt, strategy: KeyTokenStrategy | None) -> Bool[Tensor, " seq"]:
    if not prompt.images:
        return prompt.protected
    assert isinstance(strategy, ThresholdKeyTokens)
    protected = torch.zeros_like(prompt.protected)
    for slots, values in prompt.images:
        protected[slots] = strategy.marked(values)
    return protected
