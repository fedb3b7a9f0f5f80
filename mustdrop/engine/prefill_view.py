"""View of one prompt for a prefill strategy; attention rows are computed when they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.layout import Prompt
from mustdrop.engine.prompts import cells
from mustdrop.engine.tap import attention_tap
from mustdrop.functional import attention_rows, stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.strategy import PrefillView, Rows

ROWS = 128  # rows of attention in memory at a time, where all of them are read


@dataclass(eq=False, kw_only=True)
class PrefillState:
    """State of a batch of prompts between two decoder layers.

    Attributes:
        adapter: Facts about the model.
        prompts: State of each prompt.
        inputs: Input embeddings of the language model.
        pads: Padding in front of each prompt now; at first, at the language model's input.
        keys: Function from the index of a prompt to its key for random draws.
        log_scores: Whether the strategies' scores go to the ledger.
        heads: Queries, keys and scaling of the layer that has just run, if the strategy acts there.
        rotary: Rotary embeddings of the tokens that remain; None: those of the model.
        protected_counts: Prompt -> number of its key tokens, once counted.
        finite: Notes on whether all numbers are finite.
    """

    adapter: ModelAdapter
    prompts: Sequence[Prompt]
    inputs: Float[Tensor, "batch seq dim"]
    pads: list[int]
    keys: Callable[[int], int]
    log_scores: bool = False
    heads: tuple[Tensor, Tensor, float] | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    protected_counts: dict[int, int] = field(default_factory=dict)
    finite: FiniteNotes = field(default_factory=FiniteNotes)

    def __post_init__(self) -> None:
        self.input_pads = self.pads


class _Caught(Exception):
    """Ends a look-ahead as soon as queries and keys are known."""


def view_of(
    stage: PrefillState, number: int, layer: int, hidden: Tensor, kwargs: dict[str, Any]
) -> PrefillView:
    """View of a prompt after ``layer``; the next layer will receive ``hidden`` and ``kwargs``."""
    prompt, pad = stage.prompts[number], stage.pads[number]
    if number not in stage.protected_counts:
        marked = bool(prompt.ledger.encoder)
        stage.protected_counts[number] = int(prompt.protected.sum()) if marked else 0

    def attention(rows: Rows, of: str) -> Tensor:
        if of == "this" and layer < 0:
            raise ValueError("no layer has run yet at the language model's input; use of='next'")
        query, key, scaling = (
            _look_ahead(stage, number, layer + 1, hidden, kwargs)
            if of == "next"
            else _this_layer(stage, number)
        )
        first = len(prompt) - prompt.trailing_text
        query, seen_from = query[:, first:], first
        if rows == "last":
            query, seen_from = query[:, -1:], len(prompt) - 1
        elif isinstance(rows, Tensor):
            query = query.index_select(1, rows.to(query.device))
        where = rows + first if isinstance(rows, Tensor) else None
        if of == "next":  # counted here: the ledger lists the tokens of the next layer after a drop
            prompt.ledger.decision_macs += (
                query.shape[1] * key.shape[1] * query.shape[0] * query.shape[2]
            )
        else:
            prompt.ledger.scored_rows[layer] = (
                prompt.ledger.scored_rows.get(layer, 0) + query.shape[1]
            )
        weights = attention_rows(query, key, scaling, seen_from, where)
        stage.finite.note(
            f"the attention scores of layer {layer + (of == 'next')}", number, weights
        )
        return weights.to(prompt.alive.device)[..., prompt.vision]

    def received() -> Tensor:
        if layer < 0:
            raise ValueError("no layer has run yet at the language model's input")
        query, key, scaling = _this_layer(stage, number)
        prompt.ledger.scored_rows[layer] = prompt.ledger.scored_rows.get(layer, 0) + len(prompt)
        total = torch.zeros(prompt.vision_count, device=query.device)
        for first in range(0, len(prompt), ROWS):
            rows = query[:, first : first + ROWS]
            weights = attention_rows(rows, key, scaling, first)
            total += weights[..., prompt.vision].float().sum((0, 1)) / len(weights)
        stage.finite.note(f"the attention scores of layer {layer}", number, total)
        return (total / len(prompt)).to(prompt.alive.device)

    def entered_positions() -> Tensor:
        if layer < 0:
            return prompt.alive[prompt.vision]
        first = prompt.ledger.alive[0]
        return first[prompt.vision_in(first)]

    def once(name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in prompt.memo:
            prompt.memo[name] = compute()
        return prompt.memo[name]

    def count_macs(macs: int) -> None:
        prompt.ledger.decision_macs += macs

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(stable_seed(seed, stage.keys(number), layer))

    def log_score(score: Tensor) -> None:
        if stage.log_scores:
            prompt.ledger.scores[layer] = score

    entered_count = len(prompt.ledger.alive[0]) - prompt.other_count if layer >= 0 else 0
    return PrefillView(
        layer=layer, depth=stage.adapter.facts.depth, prompt_index=number,
        grid=stage.adapter.facts.grid, image_count=prompt.images,
        entered=prompt.vision_count if layer < 0 else entered_count,
        protected=prompt.protected, protected_count=stage.protected_counts[number],
        sizes=prompt.sizes, text=prompt.alive[len(prompt) - prompt.trailing_text :],
        inputs=stage.inputs[number, stage.input_pads[number] :],
        get_positions=lambda: prompt.alive[prompt.vision],
        get_entered_positions=entered_positions,
        get_cells=lambda: cells(stage.adapter, prompt.tags),
        get_hidden=lambda: hidden[number, pad:][prompt.vision],
        get_attention=attention, get_received=received, get_generator=generator,
        get_once=once, log_score=log_score, count_macs=count_macs,
    )  # fmt: skip


def _this_layer(stage: PrefillState, number: int) -> tuple[Tensor, Tensor, float]:
    """Queries, keys and scaling of a prompt in the layer that has just run."""
    if stage.heads is None:
        raise ValueError(
            "the queries and keys of a layer were not captured: the attention implementation was "
            "changed while a dropper is attached; leave its context first"
        )
    query, key, scaling = stage.heads
    return query[number, :, stage.pads[number] :], key[number, :, stage.pads[number] :], scaling


def _look_ahead(
    stage: PrefillState, number: int, layer: int, hidden: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor, float]:
    """Queries, keys and scaling that ``layer`` would use on the input it is about to receive."""
    module = stage.adapter.layers[layer]
    row = slice(number, number + 1)
    rotary = stage.rotary or kwargs["position_embeddings"]
    cos, sin = (part.expand(len(hidden), -1, -1)[row, stage.pads[number] :] for part in rotary)
    caught: list[tuple[Tensor, Tensor, float]] = []

    def catch(query: Tensor, key: Tensor, scaling: float) -> None:
        caught.append((query[0], key[0], scaling))
        raise _Caught

    states = module.input_layernorm(hidden[row, stage.pads[number] :])
    try:
        with attention_tap({module.self_attn: catch}):
            module.self_attn(
                states, position_embeddings=(cos, sin), attention_mask=None,
                position_ids=stage.prompts[number].position[None].to(states.device),
            )  # fmt: skip
    except _Caught:
        pass
    query, key, _ = caught[0]
    projected = query.shape[0] * query.shape[2] + 2 * key.shape[0] * key.shape[2]
    stage.prompts[number].ledger.decision_macs += states[0].numel() * projected
    return caught[0]
