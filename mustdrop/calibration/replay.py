"""Token counts of a method at other thresholds, from one observed pass. Knows no model.

Nothing up to the first dropping layer depends on gamma, alpha or mu. So the attention observed
there determines exactly which tokens are dropped after it at any threshold, and later layers get at
most the tokens left. Nothing up to the merging block depends on tau. So the similarity of the
windows determines exactly how many tokens enter the decoder. This gives bounds of the executed
average, which are equal if no other layer drops, and an estimate between them. The strategies
themselves apply the thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import mul

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.dropper import TokenDropper
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.strategy import KeyTokenStrategy
from mustdrop.vision.local_merge import LocalMerge


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
    """Attention of the text to one prompt's vision tokens in one layer.

    Attributes:
        positions: Original position of each vision token.
        share: Attention to each vision token, summed over the text.
        peak: Largest attention to each vision token from one text token.
    """

    positions: Int[Tensor, " vision"]
    share: Float[Tensor, " vision"]
    peak: Float[Tensor, " vision"]


@dataclass(frozen=True, eq=False)
class ObservedPrompt:
    """Observations of one prompt.

    Attributes:
        depth: Number of decoder layers.
        entered: Number of vision tokens that entered the first layer; the number without merging
            if windows were observed.
        protected: Mask of the key tokens over original positions.
        layers: Observed attention by the layer after which dual attention acts.
        images: Original positions of the tokens of each image, and their [CLS] attention.
        windows: Similarity of the windows for each image, in each crop that it depends on.
    """

    depth: int
    entered: int
    protected: Bool[Tensor, " seq"]
    layers: Mapping[int, ObservedLayer] = field(default_factory=dict)
    images: Sequence[tuple[Tensor, Tensor]] = ()
    windows: Sequence[Sequence[Tensor]] = ()


@dataclass(frozen=True, eq=False)
class Replay:
    """Observations of one pass.

    Attributes:
        prompts: Observations of each prompt.
    """

    prompts: Sequence[ObservedPrompt]

    def range(self, dropper: TokenDropper, likely: bool = True) -> CountRange:
        """Mean executed average of the prompts at other thresholds.

        Args:
            dropper: The observed dropper with other values of the observed fields.
            likely: Whether to estimate the drops of later layers; if not, ``likely`` is ``high``.
        """
        ranges = [_range(prompt, dropper, likely) for prompt in self.prompts]
        low, middle, high = (sum(column) / len(ranges) for column in zip(*ranges, strict=True))
        return CountRange(low, middle, high)


def _range(
    prompt: ObservedPrompt, dropper: TokenDropper, likely: bool
) -> tuple[float, float, float]:
    """(low, likely, high) of one prompt."""
    depth = prompt.depth
    if prompt.windows:
        assert isinstance(dropper.vision, LocalMerge)
        entered = prompt.entered - sum(_merged(dropper.vision, crops) for crops in prompt.windows)
        layers = dropper.prefill.layers if dropper.prefill is not None else ()
        untouched = min(layers, default=depth - 1) + 1
        return entered * untouched / depth, float(entered), float(entered)
    if not prompt.layers:
        constant = float(prompt.entered)
        return constant, constant, constant
    assert isinstance(dropper.prefill, DualAttention)
    layers = sorted(prompt.layers)
    spans = [until - layer for layer, until in pairwise([*layers, depth - 1])]
    protected = _protected(prompt, dropper.key_tokens)
    counts = _survivors(prompt, layers if likely else layers[:1], dropper.prefill, protected)
    first = counts[0]
    later = len(layers) - 1
    # key tokens stay, and all others may be dropped after the second layer
    fewest = min(max(int(protected.sum()), dropper.prefill.min_keep), first)

    def average(kept: Sequence[int]) -> float:
        return (prompt.entered * (layers[0] + 1) + sum(map(mul, kept, spans))) / depth

    most = average([first] * len(layers))
    return average([first, *[fewest] * later]), average(counts) if likely else most, most


def _survivors(
    prompt: ObservedPrompt,
    layers: Sequence[int],
    strategy: DualAttention,
    protected: Bool[Tensor, " seq"],
) -> list[int]:
    """Number of tokens kept after each layer; exact for the first layer."""
    alive = torch.ones_like(protected)
    counts: list[int] = []
    for layer in layers:
        observed = prompt.layers[layer]
        index = alive[observed.positions].nonzero().flatten()
        positions, share = observed.positions[index], observed.share[index]
        peak = observed.peak[index]
        kept = positions[strategy.survivors(peak[None], share, protected[positions])]
        alive = torch.zeros_like(protected).index_fill_(0, kept, True)
        counts.append(len(kept))
    return counts


def _merged(strategy: LocalMerge, crops: Sequence[Tensor]) -> int:
    """Number of patches that an image loses: the least over the crops that it depends on."""
    return min(int(strategy.alike(crop).sum()) for crop in crops) * (strategy.window**2 - 1)


def _protected(prompt: ObservedPrompt, strategy: KeyTokenStrategy | None) -> Bool[Tensor, " seq"]:
    if not prompt.images:
        return prompt.protected
    assert isinstance(strategy, ClsAttention)
    protected = torch.zeros_like(prompt.protected)
    for slots, attention in prompt.images:
        protected[slots] = strategy.outstanding(attention)
    return protected
