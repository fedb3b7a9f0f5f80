"""One pass over prompts that records what thresholds are held against. Knows no benchmark.

Strategies that only look stand in for a method's own: they drop nothing where they look, and
everything behind it, so that the rest of the pass is cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.calibration.replay import ObservedLayer, ObservedPrompt, Replay
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


def observe(
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
    seen: list[ObservedPrompt] = []
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


@torch.inference_mode()
def _watch_text(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any], judged: bool
) -> list[ObservedPrompt] | None:
    """Dual attention; where ``judged``, also what marks key tokens.

    None where a later step of the encoder drops what was judged.
    """
    assert isinstance(dropper.prefill, DualAttention)
    text = _ObservedText(tuple(sorted(set(dropper.prefill.layers))))
    keys = dropper.key_tokens
    if judged:
        assert isinstance(keys, ClsAttention)
        keys = _ObservedKeyTokens(keys)
    ledgers = _prefill(model, replace(dropper, prefill=text, key_tokens=keys, decode=None), inputs)
    heads = iter(keys.seen if isinstance(keys, _ObservedKeyTokens) else ())
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
        out.append(ObservedPrompt(ledger.depth, entered, ledger.protected, own, stands))
    return out


@torch.inference_mode()
def _watch_windows(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]
) -> list[ObservedPrompt] | None:
    """Merging; None where a patch may have no slot, so that patches are no tokens."""
    assert isinstance(dropper.vision, LocalMerge)
    merge = _ObservedWindows(dropper.vision)
    watched = TokenDropper(vision=merge, prefill=_ObservedText((-1,)))
    ledgers = _prefill(model, watched, inputs)
    patches = sum(len(source.cells) for ledger in ledgers for source in ledger.sources)
    if patches != sum(int(ledger.vision.sum()) for ledger in ledgers):
        return None
    similar = iter(merge.seen)
    return [
        ObservedPrompt(
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
    run.require_finite()
    return run.ledgers


@dataclass(frozen=True, eq=False)
class _ObservedText(PrefillStrategy):
    """Keeps everything while it looks; behind its last layer key tokens alone, for a cheap rest."""

    layers: Sequence[int]
    seen: dict[int, list[ObservedLayer]] = field(default_factory=dict)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.layer >= 0:
            attention = view.attention(rows="text").float().mean(0)
            look = ObservedLayer(view.positions, attention.sum(0), attention.amax(0))
            self.seen.setdefault(view.layer, []).append(look)
        if view.layer >= self.layers[-1]:
            return Reduction(view.protected.nonzero().flatten())
        return Reduction(torch.arange(len(view), device=view.protected.device))


@dataclass(frozen=True, eq=False)
class _ObservedKeyTokens(KeyTokenStrategy):
    """Protects what its strategy protects, and remembers the attention that was judged."""

    strategy: ClsAttention
    seen: list[Tensor] = field(default_factory=list)

    @property
    def cls_attention_blocks(self) -> Sequence[int]:
        return self.strategy.cls_attention_blocks

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        self.seen.append(self.strategy.joined(view))
        return self.strategy.outstanding(self.seen[-1])


@dataclass(frozen=True, eq=False)
class _ObservedWindows(VisionStrategy):
    """Merges nothing, and remembers how alike the patches of each window are."""

    strategy: LocalMerge
    seen: list[Sequence[Tensor]] = field(default_factory=list)

    @property
    def places(self) -> Sequence[int]:
        return self.strategy.places

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: VisionView) -> Reduction:
        crops = [view.hidden] if self.strategy.crops == "own" else view.prompt_images
        index = windows(*view.grid, self.strategy.window).to(view.patch_index.device)
        self.seen.append([window_similarity(crop, index, self.strategy.score) for crop in crops])
        return Reduction(torch.arange(len(view.patch_index), device=view.patch_index.device))
