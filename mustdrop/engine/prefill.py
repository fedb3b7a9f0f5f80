"""Stage 2: drops tokens between decoder layers, so that later layers process fewer tokens.

A decision after layer l is applied in the pre-hook of layer l + 1, which shortens the hidden
states; the pre-hooks of all later layers pass on matching masks and rotary embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.engine.checks import DeferredChecks
from mustdrop.engine.layout import Masks, align, padding, seen_in, take
from mustdrop.engine.prefill_view import PrefillState, PromptView
from mustdrop.reduction import Reduction, changing, settled


@dataclass(eq=False, kw_only=True)
class PrefillPass(PrefillState):
    """One prefill of a batch.

    Attributes:
        entering: Reduction of each prompt's vision slots by the encoder; None: nothing was dropped.
        added: States that the model adds after layer 0, layer 1, and so on, of the tokens that
            remain; they are dropped and mixed with the tokens.
        masks: Attention masks.
        layer_pads: Padding in front of each prompt at the input of each layer.
        layer_shifts: Distance by which each prompt's last token moved forward in rotary position,
            per layer; None where no positions were renumbered.
        layer_lengths: Length of the padded batch at the input of each layer.
        mixed: Layer -> decision of each prompt, where tokens were mixed.
        called: Layers after which the strategy was called.
        checks: Checks of the strategy's decisions and of the model.
    """

    entering: Sequence[Reduction] | None
    added: list[Float[Tensor, "batch seq dim"]] = field(default_factory=list)
    masks: Masks
    layer_pads: list[list[int]] = field(default_factory=list)
    layer_shifts: list[Int[Tensor, " batch"] | None] = field(default_factory=list)
    layer_lengths: list[int] = field(default_factory=list)
    mixed: dict[int, list[Reduction]] = field(default_factory=dict)
    called: set[int] = field(default_factory=set)
    checks: DeferredChecks = field(default_factory=DeferredChecks)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.length = self.inputs.shape[1]
        depth = self.adapter.facts.depth
        if len(self.added) >= depth:
            raise ValueError(
                f"the model adds states after {len(self.added)} of its layers, which must be fewer "
                f"than all {depth}"
            )
        strategy = self.stages.prefill
        self.decides = {layer + 1 for layer in strategy.layers} if strategy is not None else set()
        # arguments of the layers up to the next drop, by the ids of the model's own, which are held
        self.fitting: dict[tuple[int, ...], tuple[Any, dict[str, Any]]] = {}
        self.shifts: Tensor | None = None

    def probe(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """Store the queries and keys of a layer after which the strategy acts."""
        self.heads = (query, key, scaling)

    def before(self, layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        """Pre-hook of a decoder layer."""
        hidden = args[0]
        if layer == 0 and hidden is not self.inputs:
            name = type(self.adapter.language_model).__name__
            message = (
                f"{name} is not supported: it changes {{count}} values of its input embeddings "
                "before layer 0"
            )
            self.checks.equal(message, hidden, self.inputs.to(hidden.device))
        if 0 < layer <= len(self.added):
            hidden = hidden + self.added[layer - 1].to(hidden)
        if layer == 0 and self.entering is not None:
            hidden = self._drop(self.entering, hidden, None)
        if layer in self.decides:
            decisions = self._decide(layer - 1, hidden, kwargs)
            hidden = self._drop(decisions, hidden, layer - 1)
        self.layer_pads.append(self.pads)
        self.layer_lengths.append(self.length)
        self.layer_shifts.append(self.shifts)
        for prompt in self.prompts:
            prompt.ledger.alive[layer] = prompt.ledger.cached[layer] = prompt.alive
        if not self.dropped:
            return (hidden, *args[1:]), kwargs
        given = kwargs.get("attention_mask"), kwargs["position_embeddings"]
        key = tuple(map(id, given))
        if key not in self.fitting:
            allowed = None if self.adapter.causal else seen_in(given[0])
            fitting = {
                "attention_mask": self.masks.prefill(self.pads, self.length, hidden)
                if allowed is None
                else self.masks.gathered(allowed, self.index, self.pads, hidden),
                "position_embeddings": self.rotary(layer, hidden, kwargs),
                "position_ids": None if self.masks.flash else self.position_ids,
            }
            self.fitting[key] = given, fitting
        return (hidden, *args[1:]), {**kwargs, **self.fitting[key][1]}

    def require_complete(self) -> None:
        """Check that every layer was recorded, that the strategy was called, and its decisions.

        Raises:
            RuntimeError: If a layer or a decision was left out.
            ValueError: If a decision was wrong.
        """
        depth, strategy = self.adapter.facts.depth, self.stages.prefill
        if len(self.layer_pads) != depth:
            raise RuntimeError(f"{len(self.layer_pads)} of {depth} layers ran under the hooks")
        if strategy is not None and self.called != set(strategy.layers):
            raise RuntimeError(
                f"{type(strategy).__name__} was called after layers {sorted(self.called)}, "
                f"not {sorted(set(strategy.layers))}"
            )
        self.checks.require()

    def _decide(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> list[Reduction]:
        """Let the strategy decide for each prompt after ``layer``."""
        strategy = self.stages.prefill
        assert strategy is not None
        self.called.add(layer)
        for number, pad in enumerate(self.pads if layer >= 0 else ()):
            self.finite.note(f"the hidden states after layer {layer}", number, hidden[number, pad:])
        begun = [
            strategy.begin(PromptView(self, number, layer, hidden, kwargs))
            if prompt.vision_count
            else Reduction(prompt.vision_index())
            for number, prompt in enumerate(self.prompts)
        ]
        decisions = settled(begun)
        self.heads = None
        for number, (prompt, decision) in enumerate(zip(self.prompts, decisions, strict=True)):
            where = f"{type(strategy).__name__}, after layer {layer} of prompt {number},"
            self.checks.decision(where, decision.keep, prompt.protected)
        return decisions

    def _drop(
        self,
        decisions: Sequence[Reduction],
        hidden: Float[Tensor, "batch before dim"],
        layer: int | None,
    ) -> Float[Tensor, "batch after dim"]:
        """Apply decisions to the hidden states; ``layer`` None: slots that the encoder emptied."""
        between_layers = layer is not None and layer >= 0
        rule = self.stages.positions if between_layers else self.stages.vision_positions
        compact = rule == "compact" and not self.adapter.facts.coordinates
        moved = changing(
            decisions,
            [prompt.vision_count for prompt in self.prompts],
            lambda number: self.prompts[number].order_of(decisions[number]),
        )
        if not any(moved):
            return hidden
        later = 0 if layer is None else layer + 1  # what earlier layers add is part of the states
        streams = [hidden, *self.added[later:]]
        merged: dict[int, list[Tensor]] = {}
        gather = []
        for number, (prompt, decision) in enumerate(zip(self.prompts, decisions, strict=True)):
            if decision.mixes:
                prompt.ledger.decision_macs += len(streams) * decision.macs(hidden.shape[-1])
                rows = [
                    decision(states[number, self.pads[number] :][prompt.vision])
                    for states in streams
                ]
                order = prompt.order_of(decision)
                merged[number] = rows if order is None else [row[order] for row in rows]
            # a prompt that is unchanged keeps its positions, also if others of the batch changed
            gather.append(prompt.reduce(decision, compact and moved[number]))
        if merged and layer is not None:
            self.mixed[layer] = list(decisions)
        index = align(gather, self.pads)
        self.pads = padding([len(prompt) for prompt in self.prompts])
        self.length = index.shape[1]
        streams = [take(states, index.to(states.device)) for states in streams]
        for number, mixed in merged.items():
            where = self.prompts[number].vision_index() + self.pads[number]
            for states, rows in zip(streams, mixed, strict=True):
                states[number] = states[number].index_copy(0, where.to(states.device), rows)
        hidden, *self.added[later:] = streams
        positions = align([prompt.position for prompt in self.prompts], [0] * len(self.prompts))
        self.position_ids = positions.to(hidden.device)
        if any(prompt.recounted for prompt in self.prompts):
            self.shifts = torch.stack([p.last - p.position[-1] for p in self.prompts])
        self.dropped, self.fitting, self.rotaries = True, {}, {}
        return hidden
