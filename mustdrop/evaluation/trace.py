"""Answer single samples again and record a :class:`Trace` of each one.

Strategies decide as in the run; the recorder only reads what they see. Knows nothing about files.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from mustdrop.engine.decode_attention import DecodeAttentionRecorder, record_decode_attention
from mustdrop.engine.prompt_vision import NO_SLOT, assign
from mustdrop.evaluation.answers import answer, generate_options
from mustdrop.evaluation.job import EvalJob
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.requests import Request
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter, adapter_for
from mustdrop.reduction import Decision, Reduction, settled
from mustdrop.runs.trace import DecodeAttention, TextAttention, Trace
from mustdrop.strategy import ModelFacts, PrefillStrategy, PrefillView

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
    adapter = DroppedVLM(
        job.model, job.processor, job.dropper, image=job.image, frame_cache=job.frame_cache
    )
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
        pictures=_pictures(adapter_for(model), processor, inputs),
        region=None if region is None else np.asarray(region, dtype=bool),
        answer=text.strip(),
    )


@dataclass(frozen=True, eq=False)
class _TextAttentionRecorder(PrefillStrategy):
    """Decides as the wrapped strategy does, and records the attention of the text tokens."""

    strategy: PrefillStrategy
    recorded: dict[int, TextAttention] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # layer -> attention rows read here

    @property
    def layers(self) -> Sequence[int]:
        return self.strategy.layers

    def check(self, facts: ModelFacts) -> None:
        self.strategy.check(facts)

    def fitted(self, facts: ModelFacts) -> "_TextAttentionRecorder":
        return replace(self, strategy=self.strategy.fitted(facts))

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: PrefillView) -> Decision:
        if view.layer >= 0 and len(view):
            weights = view.attention(rows="text").float().mean(0)
            share, largest = weights.sum(0), weights.max(0)
            self.rows[view.layer] = len(weights)
            self.recorded[view.layer] = TextAttention(
                view.positions.cpu().numpy(),
                (share / share.sum()).cpu().numpy(),
                largest.values.cpu().numpy(),
                largest.indices.cpu().numpy(),
            )
        return self.strategy.begin(view)

    def remove_extra_rows(self, ledger: TokenLedger) -> None:
        """Subtract the attention rows that only the recorder read from the ledger."""
        for layer, rows in self.rows.items():
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


def _pictures(
    adapter: ModelAdapter, processor: Any, inputs: Mapping[str, Any]
) -> tuple[bytes, ...]:
    """Images of one prompt as the encoder got them, as WebP, with the normalisation undone."""
    images = processor.image_processor
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
    shown = []
    for pixels in encoder_images(adapter, inputs):
        values = ((pixels * std + mean).clamp(0, 1) * 255).round().byte()
        shown.append(_webp(Image.fromarray(values.permute(1, 2, 0).numpy())))
    return tuple(shown)


def encoder_images(adapter: ModelAdapter, inputs: Mapping[str, Any]) -> list[Tensor]:
    """Images (crops, frames) of one prompt as the encoder gets them, each [3, height, width]."""
    visual = adapter.visual_inputs(inputs)
    ids = inputs["input_ids"].cpu()
    slots = ids.masked_fill(~torch.isin(ids, torch.tensor(list(visual))), NO_SLOT)
    (shown,) = assign(list(slots), visual)
    unit, images = adapter.facts.unit, []
    for pixels, (rows, _) in zip(shown.pixels, shown.grids, strict=True):
        pixels = pixels.float().cpu()
        if pixels.dim() == 2:  # a row per patch, cell after cell; the first of the images in time
            side = adapter.model.config.vision_config.patch_size
            pixels = rearrange(
                pixels, "(h w a b) (c t p q) -> t c (h a p) (w b q)",
                h=rows, a=unit, b=unit, c=3, p=side, q=side,
            )[0]  # fmt: skip
        images.append(pixels)
    return images


def _webp(picture: Image.Image) -> bytes:
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=QUALITY, method=6)
    return buffer.getvalue()
