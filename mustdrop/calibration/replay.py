"""What a method would keep at other thresholds, from what was seen. Knows no model.

Nothing up to the first dropping layer depends on gamma, alpha or mu: the attention seen there says
exactly which tokens leave after it, at any threshold, and how many stay is what each later layer
receives at most. Nothing up to the merging block depends on tau: the similarity of the windows
seen there says exactly how many tokens enter the decoder. Hence bounds of the executed average,
which meet where no other layer drops, and an estimate of it in between. What the thresholds decide
is asked of the strategies themselves.
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
    """Executed averages that a threshold may give.

    Attributes:
        low: It cannot give less.
        likely: What it gives if later layers look at the image as they do when nothing is dropped.
        high: It cannot give more.
    """

    low: float
    likely: float
    high: float


@dataclass(frozen=True, eq=False)
class ObservedLayer:
    """How the text looked at one prompt's vision tokens in one layer.

    Attributes:
        positions: Original position of each token.
        share: Attention it got, summed over the text.
        peak: The most it got from one text token.
    """

    positions: Int[Tensor, " vision"]
    share: Float[Tensor, " vision"]
    peak: Float[Tensor, " vision"]


@dataclass(frozen=True, eq=False)
class ObservedPrompt:
    """One prompt.

    Attributes:
        depth: Decoder layers.
        entered: Vision tokens that entered the first; without merging, where windows were watched.
        protected: Key tokens, by original position.
        looks: By layer after which dual attention acts.
        stands: Of each image, the original positions of its tokens and their [CLS] attention.
        windows: Of each image, the similarity of the windows of each crop that counts for it.
    """

    depth: int
    entered: int
    protected: Bool[Tensor, " seq"]
    looks: Mapping[int, ObservedLayer] = field(default_factory=dict)
    stands: Sequence[tuple[Tensor, Tensor]] = ()
    windows: Sequence[Sequence[Tensor]] = ()


@dataclass(frozen=True, eq=False)
class Replay:
    """All prompts of a pass that watched.

    Attributes:
        prompts: What was seen.
    """

    prompts: Sequence[ObservedPrompt]

    def range(self, dropper: TokenDropper, likely: bool = True) -> CountRange:
        """Mean executed average of the prompts under other thresholds.

        Args:
            dropper: The one that was watched, with other values of the fields that were.
            likely: Whether to estimate what later layers do; without, ``likely`` is ``high``.
        """
        found = [_range(seen, dropper, likely) for seen in self.prompts]
        count = len(found)
        low, middle, high = (sum(column) / count for column in zip(*found, strict=True))
        return CountRange(low, middle, high)


def _range(seen: ObservedPrompt, dropper: TokenDropper, likely: bool) -> tuple[float, float, float]:
    """(low, likely, high) of one prompt."""
    depth = seen.depth
    if seen.windows:
        assert isinstance(dropper.vision, LocalMerge)
        entered = seen.entered - sum(_merged(dropper.vision, crops) for crops in seen.windows)
        layers = dropper.prefill.layers if dropper.prefill is not None else ()
        untouched = min(layers, default=depth - 1) + 1
        return entered * untouched / depth, float(entered), float(entered)
    if not seen.looks:
        alone = float(seen.entered)
        return alone, alone, alone
    assert isinstance(dropper.prefill, DualAttention)
    acts = sorted(seen.looks)
    spans = [until - layer for layer, until in pairwise([*acts, depth - 1])]
    protected = _protected(seen, dropper.key_tokens)
    counts = _survivors(seen, acts if likely else acts[:1], dropper.prefill, protected)
    first = counts[0]
    later = len(acts) - 1
    # key tokens stay, all else may leave after the second layer
    fewest = min(max(int(protected.sum()), dropper.prefill.min_keep), first)

    def average(kept: Sequence[int]) -> float:
        return (seen.entered * (acts[0] + 1) + sum(map(mul, kept, spans))) / depth

    most = average([first] * len(acts))
    return average([first, *[fewest] * later]), average(counts) if likely else most, most


def _survivors(
    seen: ObservedPrompt,
    layers: Sequence[int],
    strategy: DualAttention,
    protected: Bool[Tensor, " seq"],
) -> list[int]:
    """Tokens that stay after each layer; exact for the first."""
    alive = torch.ones_like(protected)
    counts: list[int] = []
    for layer in layers:
        look = seen.looks[layer]
        here = alive[look.positions].nonzero().flatten()
        at, share, peak = look.positions[here], look.share[here], look.peak[here]
        kept = at[strategy.survivors(peak[None], share, protected[at])]
        alive = torch.zeros_like(protected).index_fill_(0, kept, True)
        counts.append(len(kept))
    return counts


def _merged(strategy: LocalMerge, crops: Sequence[Tensor]) -> int:
    """Patches that an image loses; ``crops`` are itself, or all that it has to keep step with."""
    return min(int(strategy.alike(crop).sum()) for crop in crops) * (strategy.window**2 - 1)


def _protected(seen: ObservedPrompt, strategy: KeyTokenStrategy | None) -> Bool[Tensor, " seq"]:
    if not seen.stands:
        return seen.protected
    assert isinstance(strategy, ClsAttention)
    protected = torch.zeros_like(seen.protected)
    for slots, attention in seen.stands:
        protected[slots] = strategy.outstanding(attention)
    return protected
