"""What a method would keep at other thresholds, from one pass that watched it. Knows no benchmark.

Nothing up to the first dropping layer depends on gamma, alpha or mu: the attention seen there says
exactly which tokens leave after it, at any threshold, and how many stay is what each later layer
receives at most. Nothing up to the merging block depends on tau: the similarity of the windows
seen there says exactly how many tokens enter the decoder. Hence bounds of the executed average,
which meet where no other layer drops, and an estimate of it in between. What the thresholds decide
is asked of the strategies themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.dropper import TokenDropper
from mustdrop.functional import window_similarity, windows
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.ledger import TokenLedger
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    KeyTokenStrategy,
    ModelFacts,
    PrefillStrategy,
    PrefillView,
    VisionStrategy,
    VisionView,
)
from mustdrop.vision.local_merge import LocalMerge


@dataclass(frozen=True)
class Range:
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
class Look:
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
class Seen:
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
    looks: Mapping[int, Look] = field(default_factory=dict)
    stands: Sequence[tuple[Tensor, Tensor]] = ()
    windows: Sequence[Sequence[Tensor]] = ()


@dataclass(frozen=True, eq=False)
class Replay:
    """All prompts of a pass that watched.

    Attributes:
        prompts: What was seen.
    """

    prompts: Sequence[Seen]

    def range(self, dropper: TokenDropper, likely: bool = True) -> Range:
        """Mean executed average of the prompts under other thresholds.

        Args:
            dropper: The one that was watched, with other values of the fields that were.
            likely: Whether to estimate what later layers do; without, ``likely`` is ``high``.
        """
        found = [_range(seen, dropper, likely) for seen in self.prompts]
        count = len(found)
        low, middle, high = (sum(column) / count for column in zip(*found, strict=True))
        return Range(low, middle, high)


def watch(
    model: Any,
    dropper: TokenDropper,
    place: str,
    batches: Sequence[Mapping[str, Any]],
    tick: Callable[[], None] = lambda: None,
) -> Replay | None:
    """One pass over the prompts that records what the threshold at ``place`` is held against.

    Nothing is dropped while the layers that drop are watched, everything behind them.

    Args:
        model: Any that a dropper can be attached to.
        dropper: The method.
        place: Stage and field, like ``prefill.gamma``.
        batches: Inputs of ``generate``.
        tick: Called after each batch.

    Returns:
        None where that field's counts do not follow from what can be watched.
    """
    kind = place, type(getattr(dropper, place.partition(".")[0], None))
    merging = kind == ("vision.tau", LocalMerge)
    dual = isinstance(dropper.prefill, DualAttention)
    if not merging and not (dual and kind in _FILTERED):
        return None
    seen: list[Seen] = []
    for inputs in batches:
        found = (
            _watch_windows(model, dropper, inputs)
            if merging
            else _watch_text(model, dropper, inputs, judged=place == "key_tokens.mu")
        )
        if found is None:
            return None
        seen += found
        tick()
    return Replay(seen)


def unset(dropper: TokenDropper, place: str) -> TokenDropper:
    """The dropper without what a watched pass does not depend on; equal ones share a replay."""
    if place == "vision.tau" and isinstance(dropper.vision, LocalMerge):
        return TokenDropper(vision=replace(dropper.vision, tau=0.0))
    if place == "key_tokens.mu" and isinstance(dropper.key_tokens, ClsAttention):
        dropper = replace(dropper, key_tokens=replace(dropper.key_tokens, mu=0.0))
    if isinstance(dropper.prefill, DualAttention):
        dropper = replace(dropper, prefill=replace(dropper.prefill, gamma=0.0, alpha=0.0))
    return dropper


_FILTERED = {
    ("prefill.gamma", DualAttention),
    ("prefill.alpha", DualAttention),
    ("key_tokens.mu", ClsAttention),
}


def _range(seen: Seen, dropper: TokenDropper, likely: bool) -> tuple[float, float, float]:
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
    strategy = dropper.prefill
    assert isinstance(strategy, DualAttention)
    protected = _protected(seen, dropper.key_tokens)
    acts = sorted(seen.looks)
    ends = [*acts[1:], depth - 1]
    alive = torch.ones_like(protected)
    counts: list[int] = []
    for layer in acts if likely else acts[:1]:
        look = seen.looks[layer]
        here = alive[look.positions].nonzero().flatten()
        at, share, peak = look.positions[here], look.share[here], look.peak[here]
        kept = at[strategy.survivors(peak[None], share, protected[at])]
        alive = torch.zeros_like(protected).index_fill_(0, kept, True)
        counts.append(len(kept))
    first = counts[0]
    fewest = max(int(protected.sum()), min(strategy.min_keep, first))
    before = seen.entered * (acts[0] + 1) + first * (ends[0] - acts[0])
    behind = depth - 1 - ends[0]
    tail = zip(acts[1:], ends[1:], counts[1:], strict=True) if likely else ()
    estimate = sum(count * (end - layer) for layer, end, count in tail) if likely else 0
    high = before + first * behind
    middle = before + estimate if likely else high
    return (before + min(fewest, first) * behind) / depth, middle / depth, high / depth


def _merged(strategy: LocalMerge, crops: Sequence[Tensor]) -> int:
    """Patches that an image loses; ``crops`` are itself, or all that it has to keep step with."""
    return min(int(strategy.alike(crop).sum()) for crop in crops) * (strategy.window**2 - 1)


def _protected(seen: Seen, strategy: KeyTokenStrategy | None) -> Bool[Tensor, " seq"]:
    if not seen.stands:
        return seen.protected
    assert isinstance(strategy, ClsAttention)
    protected = torch.zeros_like(seen.protected)
    for slots, attention in seen.stands:
        protected[slots] = strategy.outstanding(attention)
    return protected


@torch.inference_mode()
def _watch_text(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any], judged: bool
) -> list[Seen] | None:
    """Dual attention; where ``judged``, also what marks key tokens.

    None where a later step of the encoder drops what was judged.
    """
    assert isinstance(dropper.prefill, DualAttention)
    text = _WatchedText(tuple(sorted(set(dropper.prefill.layers))))
    keys = dropper.key_tokens
    if judged:
        assert isinstance(keys, ClsAttention)
        keys = _WatchedKeys(keys)
    ledgers = _prefill(model, replace(dropper, prefill=text, key_tokens=keys, decode=None), inputs)
    heads = iter(keys.seen if isinstance(keys, _WatchedKeys) else ())
    looks = {layer: iter(found) for layer, found in text.seen.items()}
    out = []
    for ledger in ledgers:
        # a prompt without an image is asked nothing
        shown = bool(ledger.vision.any())
        own = {layer: next(found) for layer, found in looks.items()} if shown else {}
        stands = [(source.slots, next(heads)) for source in ledger.sources if judged]
        if any(len(slots) != len(attention) for slots, attention in stands):
            return None
        entered = ledger.vision_per_layer()[0]
        out.append(Seen(ledger.depth, entered, ledger.protected, own, stands))
    return out


@torch.inference_mode()
def _watch_windows(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]
) -> list[Seen] | None:
    """Merging; None where a patch may have no slot, so that patches are no tokens."""
    assert isinstance(dropper.vision, LocalMerge)
    merge = _WatchedWindows(dropper.vision)
    watched = TokenDropper(vision=merge, prefill=_WatchedText((-1,)))
    ledgers = _prefill(model, watched, inputs)
    patches = sum(len(source.cells) for ledger in ledgers for source in ledger.sources)
    if patches != sum(int(ledger.vision.sum()) for ledger in ledgers):
        return None
    similar = iter(merge.seen)
    return [
        Seen(
            ledger.depth,
            int(ledger.vision.sum()),
            ledger.protected,
            windows=[next(similar) for _ in ledger.sources],
        )
        for ledger in ledgers
    ]


def _prefill(model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]) -> list[TokenLedger]:
    with dropper.attach(model) as run:
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    return run.ledgers


@dataclass(frozen=True, eq=False)
class _WatchedText(PrefillStrategy):
    """Keeps everything while it looks; lets all go behind its last layer, for a cheap rest."""

    layers: Sequence[int]
    seen: dict[int, list[Look]] = field(default_factory=dict)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.layer >= 0:
            attention = view.attention(rows="text").float().mean(0)
            look = Look(view.positions, attention.sum(0), attention.amax(0))
            self.seen.setdefault(view.layer, []).append(look)
        stay = len(view) if view.layer < self.layers[-1] else 0
        return Reduction(torch.arange(stay, device=view.protected.device))


@dataclass(frozen=True, eq=False)
class _WatchedKeys(KeyTokenStrategy):
    """Protects what its strategy protects, and remembers the attention that was judged."""

    strategy: ClsAttention
    seen: list[Tensor] = field(default_factory=list)

    @property
    def reads(self) -> Sequence[int]:
        return self.strategy.reads

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        self.seen.append(self.strategy.joined(view))
        return self.strategy.outstanding(self.seen[-1])


@dataclass(frozen=True, eq=False)
class _WatchedWindows(VisionStrategy):
    """Merges nothing, and remembers how alike the patches of each window are."""

    strategy: LocalMerge
    seen: list[Sequence[Tensor]] = field(default_factory=list)

    @property
    def at(self) -> Sequence[int]:
        return self.strategy.at

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: VisionView) -> Reduction:
        crops = [view.hidden] if self.strategy.crops == "own" else view.crops
        index = windows(*view.grid, self.strategy.window).to(view.cells.device)
        self.seen.append([window_similarity(crop, index, self.strategy.score) for crop in crops])
        return Reduction(torch.arange(len(view.cells), device=view.cells.device))
