"""Answers single samples again, one at a time, and keeps how: a :class:`Trace` each.

Strategies decide as they always do; what they look at is read beside them. Knows no files.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mustdrop.engine.decode_attention import DecodeAttentionRecorder, record_decode_attention
from mustdrop.evaluation.answers import answer, generate_options
from mustdrop.evaluation.chat import prompt_inputs
from mustdrop.evaluation.job import EvalJob
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.requests import Request
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.reduction import Reduction
from mustdrop.runs.trace import DecodeAttention, TextAttention, Trace
from mustdrop.strategy import ModelFacts, PrefillStrategy, PrefillView, Rows

SIDE = 336  # longest side of a picture in a trace, in pixels
QUALITY = 80  # of its WebP


def trace(cell: EvalJob, documents: Sequence[int]) -> Iterator[tuple[int, Trace]]:
    """The traces of some samples of a cell, in the order of the documents.

    Raises:
        ValueError: If the benchmark has no such document.
    """
    available = len(cell.task.eval_docs)
    missing = [doc for doc in documents if not 0 <= doc < available]
    if missing:
        raise ValueError(f"documents must be in [0, {available}), got {missing[0]}")
    cell.task.build_all_requests(limit=max(documents, default=-1) + 1, rank=0, world_size=1)
    adapter = DroppedVLM(cell.model, cell.processor, cell.dropper, image=cell.image)
    adapter.task_dict[cell.task.config.task] = cell.task.dataset
    instances = list[Any](cell.task.instances or ())
    asked = {instance.arguments[3]: instance for instance in instances}
    for doc in sorted(documents):
        yield doc, traced(adapter, adapter.read(asked[doc]))


@torch.inference_mode()
def traced(adapter: DroppedVLM, request: Request) -> Trace:
    """One sample, answered and watched."""
    dropper, model, processor = adapter.dropper, adapter.model, adapter.processor
    watched = None
    if dropper.prefill is not None:
        watched = _Watched(dropper.prefill)
        dropper = replace(dropper, prefill=watched)
    needs = dropper.vision.annotations if dropper.vision is not None else ()
    inputs = prompt_inputs(model, processor, [request.chat], [request.name])
    pad = processor.tokenizer.pad_token_id
    options = generate_options(request.options, adapter.max_new_tokens, pad)
    with (
        record_decode_attention(adapter_for(model)) as gaze,
        dropper.attach(model, request.known(needs)) as run,
    ):
        tokens = model.generate(**inputs, **options)
    run.require_finite()
    ledger = run.ledgers[0]
    if watched is not None:
        watched.take_back(ledger)
    prompt = inputs["input_ids"].shape[1]
    said, _ = answer(model, processor.tokenizer, tokens[0, prompt:].cpu(), request.options)
    filters = adapter.dropper.prefill
    dual = filters if isinstance(filters, DualAttention) else None
    region = request.doc.get("target_patches") if adapter.image is None else None
    return Trace(
        ledger=ledger,
        text_attention=watched.looks if watched is not None else {},
        decode_attention=_gazes(gaze, ledger),
        words=_words(processor.tokenizer, inputs["input_ids"][0].cpu(), ledger),
        gamma=nan if dual is None or dual.gamma is None else dual.gamma,
        alpha=nan if dual is None or dual.alpha is None else dual.alpha,
        pictures=_pictures(processor, inputs),
        region=None if region is None else np.asarray(region, dtype=bool),
        answer=said.strip(),
    )


@dataclass(frozen=True, eq=False)
class _Watched(PrefillStrategy):
    """Decides as its strategy does, and remembers what the text attended to."""

    strategy: PrefillStrategy
    looks: dict[int, TextAttention] = field(default_factory=dict)
    extra: dict[int, int] = field(default_factory=dict)  # rows that only the watching asked for

    @property
    def layers(self) -> Sequence[int]:
        return self.strategy.layers

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.layer < 0 or not len(view):
            return self.strategy.reduce(view)
        seen = view.attention(rows="text")
        self.extra[view.layer] = seen.shape[1]

        def attention(rows: Rows, of: str) -> Tensor:
            if of != "this" or isinstance(rows, Tensor) or rows != "text":
                return view.get_attention(rows, of)
            self.extra[view.layer] = 0  # the strategy wants these rows too
            return seen

        weights = seen.float().mean(0)
        share, largest = weights.sum(0), weights.max(0)
        self.looks[view.layer] = TextAttention(
            view.positions.cpu().numpy(),
            (share / share.sum()).cpu().numpy(),
            largest.values.cpu().numpy(),
            largest.indices.cpu().numpy(),
        )
        return self.strategy.reduce(replace(view, get_attention=attention))

    def take_back(self, ledger: TokenLedger) -> None:
        """Strike what the watching itself computed from the ledger."""
        for layer, rows in self.extra.items():
            ledger.scored_rows[layer] = ledger.scored_rows.get(layer, 0) - rows
            if not ledger.scored_rows[layer]:
                del ledger.scored_rows[layer]


def _gazes(gaze: DecodeAttentionRecorder, ledger: TokenLedger) -> dict[int, DecodeAttention]:
    out = {}
    for layer in sorted(gaze.steps):
        row, cached = gaze.mean(layer).cpu(), ledger.cached[layer].cpu()
        vision = ledger.vision.cpu()[cached]
        seen = row[vision].numpy()
        out[layer] = DecodeAttention(cached[vision].numpy(), seen, float(1 - seen.sum()))
    return out


def _words(tokenizer: Any, ids: Tensor, ledger: TokenLedger) -> tuple[str, ...]:
    """The text behind the last vision token, token by token."""
    at = ledger.vision.nonzero()
    first = int(at[-1]) + 1 if len(at) else 0
    return tuple(tokenizer.decode([token]) for token in ids[first:].tolist())


def _pictures(processor: Any, inputs: Mapping[str, Any]) -> tuple[bytes, ...]:
    """What the encoder is shown, as pictures: the processor's normalisation undone."""
    if inputs.get("pixel_values") is None:
        return ()
    pixels = inputs["pixel_values"].float().cpu()
    shape = processor.image_processor
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (shape.image_mean, shape.image_std))
    pixels = pixels.reshape(-1, *pixels.shape[-3:]) * std + mean
    shown = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return tuple(_webp(Image.fromarray(picture)) for picture in shown)


def _webp(picture: Image.Image) -> bytes:
    picture.thumbnail((SIDE, SIDE))
    held = io.BytesIO()
    picture.save(held, "webp", quality=QUALITY, method=6)
    return held.getvalue()
