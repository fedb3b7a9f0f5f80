"""One pass over prompts that records the values compared with thresholds. Knows no benchmark.

Observing strategies replace those of the method. They drop nothing in the layers that they observe,
and all vision tokens that may be dropped after these, so that the rest of the pass is cheap. The
strategies themselves say what they compare (:mod:`mustdrop.thresholds`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.calibration.replay import ObservedLayer, ObservedPrompt, Replay
from mustdrop.dropper import TokenDropper
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    KeyTokenStrategy,
    ModelFacts,
    PrefillStrategy,
    PrefillView,
    VisionStrategy,
    VisionView,
)
from mustdrop.thresholds import ThresholdKeyTokens, ThresholdPrefill, ThresholdVision


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
    stage, _, name = field_path.partition(".")
    strategy = getattr(dropper, stage, None)
    if strategy is None or name not in strategy.thresholds:
        return None
    if isinstance(strategy, ThresholdVision):
        observed_batches = (_observe_images(model, strategy, inputs) for inputs in batches)
    elif isinstance(dropper.prefill, ThresholdPrefill) and isinstance(
        strategy, ThresholdPrefill | ThresholdKeyTokens
    ):
        keys = isinstance(strategy, ThresholdKeyTokens)
        observed_batches = (_observe_layers(model, dropper, inputs, keys) for inputs in batches)
    else:
        return None
    prompts: list[ObservedPrompt] = []
    for observed in observed_batches:
        if observed is None:
            return None
        prompts += observed
        tick()
    return Replay(prompts)


def unset(dropper: TokenDropper, field_path: str) -> TokenDropper:
    """The dropper with thresholds set to 0 if an observing pass does not depend on them.

    Droppers that are equal after this share a replay.
    """
    if field_path.startswith("vision.") and isinstance(dropper.vision, ThresholdVision):
        return TokenDropper(vision=_at_zero(dropper.vision))
    if field_path.startswith("key_tokens.") and isinstance(dropper.key_tokens, ThresholdKeyTokens):
        dropper = replace(dropper, key_tokens=_at_zero(dropper.key_tokens))
    if isinstance(dropper.prefill, ThresholdPrefill):
        dropper = replace(dropper, prefill=_at_zero(dropper.prefill))
    return dropper


def _at_zero(strategy: Any) -> Any:
    return replace(strategy, **dict.fromkeys(strategy.thresholds, 0.0))


@torch.inference_mode()
def _observe_layers(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any], keys: bool
) -> list[ObservedPrompt] | None:
    """Observe the layers after which tokens are dropped and, where ``keys``, the key tokens.

    None if a later step of the encoder drops tokens whose values were observed.
    """
    assert isinstance(dropper.prefill, ThresholdPrefill)
    layers = _ObservedLayers(dropper.prefill)
    key_tokens = dropper.key_tokens
    if keys:
        assert isinstance(key_tokens, ThresholdKeyTokens)
        key_tokens = _ObservedKeyTokens(key_tokens)
    observing = replace(dropper, prefill=layers, key_tokens=key_tokens, decode=None)
    ledgers = _prefill(model, observing, inputs)
    image_values = iter(key_tokens.seen if isinstance(key_tokens, _ObservedKeyTokens) else ())
    observed = {layer: iter(prompts) for layer, prompts in layers.seen.items()}
    result = []
    for ledger in ledgers:
        # a strategy is not called for a prompt without an image
        has_image = bool(ledger.vision.any())
        seen = {layer: next(prompts) for layer, prompts in observed.items()} if has_image else {}
        images = [(source.slots, next(image_values)) for source in ledger.sources if keys]
        if any(len(slots) != len(values) for slots, values in images):
            return None
        entered = ledger.vision_per_layer()[0]
        observed_prompt = ObservedPrompt(
            ledger.depth, ledger.shown_cells, entered, ledger.protected, seen, images
        )
        result.append(observed_prompt)
    return result


@torch.inference_mode()
def _observe_images(
    model: Any, strategy: ThresholdVision, inputs: Mapping[str, Any]
) -> list[ObservedPrompt] | None:
    """Observe images; None if their tokens do not match the prompts' vision tokens."""
    vision = _ObservedImages(strategy)
    ledgers = _prefill(model, TokenDropper(vision=vision, prefill=_Withdrawal()), inputs)
    patches = sum(len(source.cells) for ledger in ledgers for source in ledger.sources)
    if patches != sum(int(ledger.vision.sum()) for ledger in ledgers):
        return None
    values = iter(vision.seen)
    return [
        ObservedPrompt(
            ledger.depth,
            ledger.shown_cells,
            int(ledger.vision.sum()),
            ledger.protected,
            encoded=[(len(source.cells), next(values)) for source in ledger.sources],
        )
        for ledger in ledgers
    ]


def _prefill(model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]) -> list[TokenLedger]:
    with dropper.attach(model) as run:
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    run.require_finite()
    return run.ledgers


@dataclass(frozen=True, eq=False)
class _ObservedLayers(PrefillStrategy):
    """Records values and drops nothing; after its last layer it keeps the key tokens only."""

    strategy: ThresholdPrefill
    seen: dict[int, list[ObservedLayer]] = field(default_factory=dict)

    @property
    def layers(self) -> Sequence[int]:
        return self.strategy.layers

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: PrefillView) -> Reduction:
        observed = ObservedLayer(view.positions, self.strategy.observe(view))
        self.seen.setdefault(view.layer, []).append(observed)
        if view.layer >= max(self.layers):
            return Reduction(view.protected.nonzero().flatten())
        return Reduction(torch.arange(len(view), device=view.protected.device))


@dataclass(frozen=True, eq=False)
class _Withdrawal(PrefillStrategy):
    """Drops all vision tokens at the language model's input."""

    layers = (-1,)

    def reduce(self, view: PrefillView) -> Reduction:
        return Reduction(view.protected.nonzero().flatten())


@dataclass(frozen=True, eq=False)
class _ObservedKeyTokens(KeyTokenStrategy):
    """Protects what ``strategy`` protects, and records the values that select it."""

    strategy: ThresholdKeyTokens
    seen: list[Tensor] = field(default_factory=list)

    @property
    def cls_attention_blocks(self) -> Sequence[int]:
        return self.strategy.cls_attention_blocks

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def protect(self, view: VisionView) -> Bool[Tensor, " tokens"]:
        self.seen.append(self.strategy.observe(view))
        return self.strategy.marked(self.seen[-1])


@dataclass(frozen=True, eq=False)
class _ObservedImages(VisionStrategy):
    """Reduces nothing, and records the values of each image."""

    strategy: ThresholdVision
    seen: list[Any] = field(default_factory=list)

    @property
    def places(self) -> Sequence[Any]:
        return self.strategy.places

    @property
    def cls_attention_blocks(self) -> Sequence[int]:
        return self.strategy.cls_attention_blocks

    @property
    def query_key_blocks(self) -> Sequence[int]:
        return self.strategy.query_key_blocks

    @property
    def inside_block(self) -> bool:
        return self.strategy.inside_block

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: VisionView) -> Reduction:
        self.seen.append(self.strategy.observe(view))
        return Reduction(torch.arange(len(view.cells), device=view.cells.device))
