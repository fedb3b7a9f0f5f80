"""Answer single samples again and record a :class:`Trace` of each one.

Strategies decide as in the run; the recorder only reads what they see. Knows nothing about files.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from mustdrop.reduction import Reduction
from mustdrop.runs.trace import DecodeAttention, TextAttention, Trace
from mustdrop.strategy import ModelFacts, PrefillStrategy, PrefillView, Rows

SIDE = 336  # longest side of an image in a trace, in pixels
QUALITY = 80  # WebP quality of an image in a trace


def trace(job: EvalJob, documents: Sequence[int]) -> Iterator[tuple[int, Trace]]:
    """Traces of some samples of a job, in the order of the documents.

    Raises:
        ValueError: If the benchmark does not have one of the documents.
    """
    available = len(job.task.eval_docs)
    missing = [doc for doc in documents if not 0 <= doc < available]
    if missing:
        raise ValueError(f"documents must be in [0, {available}), got {missing[0]}")
    job.task.build_all_requests(limit=max(documents, default=-1) + 1, rank=0, world_size=1)
    adapter = DroppedVLM(job.model, job.processor, job.dropper, image=job.image)
    adapter.task_dict[job.task.config.task] = job.task.dataset
    instances = list[Any](job.task.instances or ())
    by_document = {instance.arguments[3]: instance for instance in instances}
    for doc in sorted(documents):
        yield doc, traced(adapter, adapter.read(by_document[doc]))


@torch.inference_mode()
def traced(adapter: DroppedVLM, request: Request) -> Trace:
    """Trace of one request, which is answered again."""
    dropper, model, processor = adapter.dropper, adapter.model, adapter.processor
    recorder = None
    if dropper.prefill is not None:
        recorder = _TextAttentionRecorder(dropper.prefill)
        dropper = replace(dropper, prefill=recorder)
    needs = dropper.vision.annotations if dropper.vision is not None else ()
    inputs = prompt_inputs(model, processor, [request.chat], [request.name])
    pad = processor.tokenizer.pad_token_id
    options = generate_options(request.options, adapter.max_new_tokens, pad)
    with (
        record_decode_attention(adapter_for(model)) as decode_attention,
        dropper.attach(model, request.annotations(needs)) as run,
    ):
        tokens = model.generate(**inputs, **options)
    run.require_finite()
    ledger = run.ledgers[0]
    if recorder is not None:
        recorder.remove_extra_rows(ledger)
    prompt = inputs["input_ids"].shape[1]
    text, _ = answer(model, processor.tokenizer, tokens[0, prompt:].cpu(), request.options)
    method = adapter.dropper
    stages = (method.vision, method.key_tokens, method.prefill, method.decode)
    region = request.target if adapter.image is None else None
    return Trace(
        ledger=ledger,
        text_attention=recorder.recorded if recorder is not None else {},
        decode_attention=_decode_attention(decode_attention, ledger),
        words=_words(processor.tokenizer, inputs["input_ids"][0].cpu(), ledger),
        values={
            name: np.asarray(value, dtype=float)
            for stage in stages
            if stage is not None
            for name, value in stage.traced.items()
        },
        pictures=_pictures(processor, inputs),
        region=None if region is None else np.asarray(region, dtype=bool),
        answer=text.strip(),
    )


@dataclass(frozen=True, eq=False)
class _TextAttentionRecorder(PrefillStrategy):
    """Decides as the wrapped strategy does, and records the attention of the text tokens."""

    strategy: PrefillStrategy
    recorded: dict[int, TextAttention] = field(default_factory=dict)
    extra: dict[int, int] = field(default_factory=dict)  # rows that only the recorder requested

    @property
    def layers(self) -> Sequence[int]:
        return self.strategy.layers

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def fitted(self, facts: ModelFacts) -> "_TextAttentionRecorder":
        return replace(self, strategy=self.strategy.fitted(facts))

    def reduce(self, view: PrefillView) -> Reduction:
        if view.layer < 0 or not len(view):
            return self.strategy.reduce(view)
        text_rows = view.attention(rows="text")
        self.extra[view.layer] = text_rows.shape[1]

        def attention(rows: Rows, of: str) -> Tensor:
            if of != "this" or isinstance(rows, Tensor) or rows != "text":
                return view.get_attention(rows, of)
            self.extra[view.layer] = 0  # the strategy uses these rows too
            return text_rows

        weights = text_rows.float().mean(0)
        share, largest = weights.sum(0), weights.max(0)
        self.recorded[view.layer] = TextAttention(
            view.positions.cpu().numpy(),
            (share / share.sum()).cpu().numpy(),
            largest.values.cpu().numpy(),
            largest.indices.cpu().numpy(),
        )
        return self.strategy.reduce(replace(view, get_attention=attention))

    def remove_extra_rows(self, ledger: TokenLedger) -> None:
        """Subtract the attention rows that only the recorder requested from the ledger."""
        for layer, rows in self.extra.items():
            ledger.scored_rows[layer] = ledger.scored_rows.get(layer, 0) - rows
            if not ledger.scored_rows[layer]:
                del ledger.scored_rows[layer]


def _decode_attention(
    recorder: DecodeAttentionRecorder, ledger: TokenLedger
) -> dict[int, DecodeAttention]:
    out = {}
    for layer in sorted(recorder.steps):
        row, cached = recorder.mean(layer).cpu(), ledger.cached[layer].cpu()
        vision = ledger.vision.cpu()[cached]
        share = row[vision].numpy()
        out[layer] = DecodeAttention(cached[vision].numpy(), share, float(1 - share.sum()))
    return out


def _words(tokenizer: Any, ids: Tensor, ledger: TokenLedger) -> tuple[str, ...]:
    """Text after the last vision token, one string per token."""
    slots = ledger.vision.nonzero()
    first = int(slots[-1]) + 1 if len(slots) else 0
    return tuple(tokenizer.decode([token]) for token in ids[first:].tolist())


def _pictures(processor: Any, inputs: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Input images of the encoder as WebP, with the processor's normalisation undone."""
    if inputs.get("pixel_values") is None:
        return ()
    pixels = inputs["pixel_values"].float().cpu()
    images = processor.image_processor
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
    pixels = pixels.reshape(-1, *pixels.shape[-3:]) * std + mean
    values = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return tuple(_webp(Image.fromarray(picture)) for picture in values)


def _webp(picture: Image.Image) -> bytes:
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=QUALITY, method=6)
    return buffer.getvalue()
