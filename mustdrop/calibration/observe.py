"""One pass over prompts that records the values compared with thresholds. Knows no benchmark.

Observing strategies replace those of the method. They drop nothing in the layers that they observe,
and all vision tokens that may be dropped after these, so that the rest of the pass is cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.calibration.replay import ObservedLayer, ObservedPrompt, Replay
from mustdrop.dropper import TokenDropper
from mustdrop.functional import window_similarity
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
    field_path: str,
    batches: Sequence[Mapping[str, Any]],
    tick: Callable[[], None] = lambda: None,
) -> Replay | None:
    """Record in one pass over the prompts the values that a threshold is compared with.

    Args:
        model: Model that a dropper can be attached to.
        dropper: Method with the threshold.
        field_path: Stage and field of the threshold, like ``prefill.gamma``.
        batches: Inputs of ``generate``.
        tick: Called after each batch.

    Returns:
        Replay of the pass; None if the token counts do not follow from what can be observed.
    """
    kind = field_path, type(getattr(dropper, field_path.partition(".")[0], None))
    merging = kind == ("vision.tau", LocalMerge)
    dual = isinstance(dropper.prefill, DualAttention)
    if not merging and not (dual and kind in _FILTERED):
        return None
    prompts: list[ObservedPrompt] = []
    for inputs in batches:
        observed = (
            _observe_windows(model, dropper, inputs)
            if merging
            else _observe_text(model, dropper, inputs, keys=field_path == "key_tokens.mu")
        )
        if observed is None:
            return None
        prompts += observed
        tick()
    return Replay(prompts)


def unset(dropper: TokenDropper, field_path: str) -> TokenDropper:
    """The dropper with thresholds set to 0 if an observing pass does not depend on them.

    Droppers that are equal after this share a replay.
    """
    if field_path == "vision.tau" and isinstance(dropper.vision, LocalMerge):
        return TokenDropper(vision=replace(dropper.vision, tau=0.0))
    if field_path == "key_tokens.mu" and isinstance(dropper.key_tokens, ClsAttention):
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
def _observe_text(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any], keys: bool
) -> list[ObservedPrompt] | None:
    """Observe dual attention and, where ``keys``, the attention that selects key tokens.

    None if a later step of the encoder drops tokens whose attention was observed.
    """
    assert isinstance(dropper.prefill, DualAttention)
    text = _ObservedText(tuple(sorted(set(dropper.prefill.layers))))
    key_tokens = dropper.key_tokens
    if keys:
        assert isinstance(key_tokens, ClsAttention)
        key_tokens = _ObservedKeyTokens(key_tokens)
    observing = replace(dropper, prefill=text, key_tokens=key_tokens, decode=None)
    ledgers = _prefill(model, observing, inputs)
    image_attention = iter(key_tokens.seen if isinstance(key_tokens, _ObservedKeyTokens) else ())
    observed = {layer: iter(prompts) for layer, prompts in text.seen.items()}
    result = []
    for ledger in ledgers:
        # a strategy is not called for a prompt without an image
        has_image = bool(ledger.vision.any())
        layers = {layer: next(prompts) for layer, prompts in observed.items()} if has_image else {}
        images = [(source.slots, next(image_attention)) for source in ledger.sources if keys]
        if any(len(slots) != len(attention) for slots, attention in images):
            return None
        entered = ledger.vision_per_layer()[0]
        result.append(ObservedPrompt(ledger.depth, entered, ledger.protected, layers, images))
    return result


@torch.inference_mode()
def _observe_windows(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]
) -> list[ObservedPrompt] | None:
    """Observe the windows of merging; None if the patches do not match the vision tokens."""
    assert isinstance(dropper.vision, LocalMerge)
    merge = _ObservedWindows(dropper.vision)
    observing = TokenDropper(vision=merge, prefill=_ObservedText((-1,)))
    ledgers = _prefill(model, observing, inputs)
    patches = sum(len(source.cells) for ledger in ledgers for source in ledger.sources)
    if patches != sum(int(ledger.vision.sum()) for ledger in ledgers):
        return None
    similarity = iter(merge.seen)
    return [
        ObservedPrompt(
            ledger.depth,
            int(ledger.vision.sum()),
            ledger.protected,
            windows=[next(similarity) for _ in ledger.sources],
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
    """Records attention and drops nothing; after its last layer it keeps the key tokens only."""

    layers: Sequence[int]
    seen: dict[int, list[ObservedLayer]] = field(default_factory=dict)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.layer >= 0:
            attention = view.attention(rows="text").float().mean(0)
            observed = ObservedLayer(view.positions, attention.sum(0), attention.amax(0))
            self.seen.setdefault(view.layer, []).append(observed)
        if view.layer >= self.layers[-1]:
            return Reduction(view.protected.nonzero().flatten())
        return Reduction(torch.arange(len(view), device=view.protected.device))


@dataclass(frozen=True, eq=False)
class _ObservedKeyTokens(KeyTokenStrategy):
    """Protects what ``strategy`` protects, and records the attention that selects it."""

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
    """Merges nothing, and records the similarity of the patches in each window."""

    strategy: LocalMerge
    seen: list[Sequence[Tensor]] = field(default_factory=list)

    @property
    def places(self) -> Sequence[int]:
        return self.strategy.places

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: VisionView) -> Reduction:
        crops = [view.hidden] if self.strategy.crops == "own" else view.prompt_images
        index = self.strategy.windows(view.grid).to(view.cells.device)
        self.seen.append([window_similarity(crop, index, self.strategy.score) for crop in crops])
        return Reduction(torch.arange(len(view.cells), device=view.cells.device))
