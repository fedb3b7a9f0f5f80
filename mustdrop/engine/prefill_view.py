"""View of one prompt for a prefill strategy; attention rows are computed when they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.layout import Prompt, align, seen_in, take
from mustdrop.engine.prompt_vision import coordinates
from mustdrop.engine.tap import attention_tap
from mustdrop.functional import attention_rows, received_attention, stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.stages import Stages
from mustdrop.strategy import PrefillView, Rows


@dataclass(eq=False, kw_only=True)
class PrefillState:
    """State of a batch of prompts between two decoder layers.

    Attributes:
        adapter: Facts about the model.
        stages: Stages of the dropper.
        prompts: State of each prompt.
        inputs: Input embeddings of the language model.
        pads: Padding in front of each prompt now; at first, at the language model's input.
        keys: Function from the index of a prompt to its key for random draws.
        heads: Queries, keys and scaling of the layer that has just run, if the strategy acts there.
        dropped: Whether any token has left; if not, the model's arguments fit.
        position_ids: Rotary positions of the tokens that remain, once a token has left.
        finite: Notes on whether all numbers are finite.
    """

    adapter: ModelAdapter
    stages: Stages
    prompts: Sequence[Prompt]
    inputs: Float[Tensor, "batch seq dim"]
    pads: list[int]
    keys: Callable[[int], int]
    heads: tuple[Tensor, Tensor, float] | None = None
    dropped: bool = False
    position_ids: Int[Tensor, "batch tokens"] | None = None
    finite: FiniteNotes = field(default_factory=FiniteNotes)

    def __post_init__(self) -> None:
        self.input_pads = self.pads
        # rotary embeddings by the id of the model's own, which is held so that its id stays its own
        self.rotaries: dict[int, tuple[Any, Any]] = {}

    @property
    def index(self) -> Int[Tensor, "batch tokens"]:
        """Slot of each token that remains in the padded batch before any drop."""
        return align([prompt.alive for prompt in self.prompts], self.input_pads)

    def rotary(
        self, layer: int, hidden: Tensor, arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Rotary embeddings of the tokens that remain, at their positions, as a layer needs them.

        Args:
            layer: Layer that gets them.
            hidden: States of the tokens that remain.
            arguments: Arguments that the model has for the layer.
        """
        given = arguments["position_embeddings"]
        if not self.dropped:
            return given
        if id(given) not in self.rotaries:
            if any(prompt.recounted for prompt in self.prompts):
                assert self.position_ids is not None
                made = self.adapter.rotary(hidden, self.position_ids, layer)
            else:
                made = tuple(
                    take(part if part.dim() > 2 else part[None], self.index.to(part.device))
                    for part in given
                )
            self.rotaries[id(given)] = given, made
        return self.rotaries[id(given)][1]

    def seen(
        self, number: int, arguments: Mapping[str, Any]
    ) -> Bool[Tensor, "tokens tokens"] | None:
        """Whether each token of a prompt sees each other one in a layer; None: causally."""
        allowed = None if self.adapter.causal else seen_in(arguments.get("attention_mask"))
        if allowed is None:
            return None
        slots = self.prompts[number].alive.to(allowed.device) + self.input_pads[number]
        return allowed[min(number, len(allowed) - 1), 0][slots][:, slots]

    @cached_property
    def protected_counts(self) -> list[int]:
        """Number of key tokens of each prompt, which is the same in all layers."""
        counts = [0] * len(self.prompts)
        marked = [
            number
            for number, prompt in enumerate(self.prompts)
            if prompt.ledger.encoder and prompt.vision_count
        ]
        if marked and self.stages.key_tokens is not None:
            sums = torch.stack([self.prompts[number].protected.sum() for number in marked])
            for number, count in zip(marked, sums.tolist(), strict=True):
                counts[number] = count
        return counts


class _Caught(Exception):
    """Ends a look-ahead as soon as queries and keys are known."""


class PromptView(PrefillView):
    """View of a prompt between two decoder layers."""

    def __init__(
        self, state: PrefillState, number: int, layer: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> None:
        """Make the view after ``layer``; the next layer will receive ``hidden`` and ``kwargs``."""
        prompt = state.prompts[number]
        self._state, self._prompt, self._hidden, self._kwargs = state, prompt, hidden, kwargs
        self._pad, self._first_text = state.pads[number], len(prompt) - prompt.trailing_text
        self.layer, self.depth, self.prompt_index = layer, state.adapter.facts.depth, number
        self.grids, self.visual_inputs = prompt.shown.grids, prompt.shown.ranges
        first = prompt.alive if layer < 0 else prompt.ledger.alive[0]
        self.entered = len(first) - prompt.other_count
        self.entered_cells = self.entered - prompt.shown.off_grid
        self.protected = prompt.protected
        self.sizes, self.text = prompt.sizes, prompt.alive[self._first_text :]
        self.inputs = state.inputs[number, state.input_pads[number] :]

    @property
    def protected_count(self) -> int:
        return self._state.protected_counts[self.prompt_index]

    @property
    def positions(self) -> Int[Tensor, " vision"]:
        return self._prompt.alive[self._prompt.vision]

    @property
    def entered_positions(self) -> Int[Tensor, " entered"]:
        if self.layer < 0:
            return self.positions
        first = self._prompt.ledger.alive[0]
        return first[self._prompt.vision_in(first)]

    @property
    def cell_coordinates(self) -> Int[Tensor, "vision 3"]:
        return coordinates(self._prompt.shown.grids, self._prompt.cells)

    @property
    def hidden(self) -> Float[Tensor, "vision dim"]:
        return self._hidden[self.prompt_index, self._pad :][self._prompt.vision]

    def attention(
        self, rows: Rows = "text", of: Literal["this", "next"] = "this"
    ) -> Float[Tensor, "heads rows vision"]:
        if of == "this" and self.layer < 0:
            raise ValueError("no layer has run yet at the language model's input; use of='next'")
        query, key, scaling = self._next_layer() if of == "next" else self._this_layer()
        first = self._first_text
        query, seen_from = query[:, first:], first
        if rows == "last":
            query, seen_from = query[:, -1:], len(self._prompt) - 1
        elif isinstance(rows, Tensor):
            query = query.index_select(1, rows.to(query.device))
        where = rows + first if isinstance(rows, Tensor) else None
        if of == "next":  # counted here: the ledger lists the tokens of the next layer after a drop
            self.count_macs(query.shape[1] * key.shape[1] * query.shape[0] * query.shape[2])
        else:
            self._count_rows(query.shape[1])
        seen = self._state.seen(self.prompt_index, self._kwargs)
        if seen is not None:
            seen = seen[slice(seen_from, None) if where is None else where]
        weights = attention_rows(query, key, scaling, seen_from, where, seen=seen)
        self._note_scores(self.layer + (of == "next"), weights)
        return weights.to(self._prompt.alive.device)[..., self._prompt.vision]

    def received_attention(self) -> Float[Tensor, " vision"]:
        if self.layer < 0:
            raise ValueError("no layer has run yet at the language model's input")
        query, key, scaling = self._this_layer()
        prompt = self._prompt
        self._count_rows(len(prompt))
        seen = self._state.seen(self.prompt_index, self._kwargs)
        received = received_attention(query, key, scaling, first=0, seen=seen)
        received = received.mean(0)[prompt.vision]
        self._note_scores(self.layer, received)
        return received.to(prompt.alive.device)

    def generator(self, seed: int) -> torch.Generator:
        key = self._state.keys(self.prompt_index)
        return torch.Generator().manual_seed(stable_seed(seed, key, self.layer))

    def cached(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in self._prompt.memo:
            self._prompt.memo[name] = compute()
        return self._prompt.memo[name]

    def log_score(self, score: Float[Tensor, " vision"]) -> None:
        if self._state.stages.log_scores:
            self._prompt.ledger.scores[self.layer] = score

    def count_macs(self, macs: int) -> None:
        self._prompt.ledger.decision_macs += macs

    def _count_rows(self, rows: int) -> None:
        """Count attention rows that are computed in addition to the model's own."""
        scored = self._prompt.ledger.scored_rows
        scored[self.layer] = scored.get(self.layer, 0) + rows

    def _note_scores(self, layer: int, scores: Tensor) -> None:
        name = f"the attention scores of layer {layer}"
        self._state.finite.note(name, self.prompt_index, scores)

    def _this_layer(self) -> tuple[Tensor, Tensor, float]:
        """Queries, keys and scaling of the prompt in the layer that has just run."""
        if self._state.heads is None:
            raise ValueError(
                "the queries and keys of a layer were not captured: the attention implementation "
                "was changed while a dropper is attached; leave its context first"
            )
        query, key, scaling = self._state.heads
        number, pad = self.prompt_index, self._pad
        return query[number, :, pad:], key[number, :, pad:], scaling

    def _next_layer(self) -> tuple[Tensor, Tensor, float]:
        """Queries, keys and scaling of the next layer on the input it is about to receive."""
        state, hidden = self._state, self._hidden
        module = state.adapter.layers[self.layer + 1]
        row = slice(self.prompt_index, self.prompt_index + 1)
        rotary = state.rotary(self.layer + 1, hidden, self._kwargs)
        cos, sin = (
            part.expand(*part.shape[:-3], len(hidden), -1, -1)[..., row, self._pad :, :]
            for part in rotary
        )
        caught: list[tuple[Tensor, Tensor, float]] = []

        def catch(query: Tensor, key: Tensor, scaling: float) -> None:
            caught.append((query[0], key[0], scaling))
            raise _Caught

        states = module.input_layernorm(hidden[row, self._pad :])
        try:
            with attention_tap({module.self_attn: catch}):
                module.self_attn(
                    states, position_embeddings=(cos, sin), attention_mask=None,
                    position_ids=self._prompt.position[None].to(states.device),
                )  # fmt: skip
        except _Caught:
            pass
        query, key, _ = caught[0]
        projected = query.shape[0] * query.shape[2] + 2 * key.shape[0] * key.shape[2]
        self.count_macs(states[0].numel() * projected)
        return caught[0]
