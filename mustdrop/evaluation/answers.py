"""Answers as text and scores, the way lmms-eval reads them. Knows nothing about dropping."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from mustdrop.evaluation.lmms_eval_api import GenerationResult, Instance, Task, TokenCounts

SAMPLING = ("temperature", "top_p", "top_k")
REPETITION_PENALTY = 1.0  # none
COUNTERS = ("vision_tokens", "resident_tokens", "counts", "prefill_macs", "kv_bytes", "seconds")


@dataclass
class SampleCounts(TokenCounts):
    """lmms-eval's token counters with ours added; lmms-eval calls only ``to_dict``."""

    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.measured}


# Stands for the answer to a document that cannot be read; it is never scored.
NOT_SCORED = GenerationResult("", SampleCounts(0, 0))


def generate_options(
    requested: Mapping[str, Any], max_new_tokens: int, pad_token_id: int | None
) -> dict[str, Any]:
    """Keyword arguments of ``generate``; ``until`` is left out, :func:`answer` applies it.

    Args:
        requested: Options of the task.
        max_new_tokens: Limit for tasks that set none.
        pad_token_id: Padding token of the tokenizer.
    """
    sampled = bool(requested.get("do_sample"))
    names = [name for name in SAMPLING if sampled and requested.get(name) is not None]
    sampling = {name: requested[name] for name in names}
    if sampled:
        sampling["logits_processor"] = LogitsProcessorList([_Drawable()])
    return {
        "do_sample": sampled,
        "num_beams": requested.get("num_beams") or 1,
        "num_return_sequences": 1,
        "max_new_tokens": requested.get("max_new_tokens") or max_new_tokens,
        # With another value, which some checkpoints set, greedy decoding is not greedy.
        "repetition_penalty": REPETITION_PENALTY,
        "pad_token_id": pad_token_id,
        **sampling,
    }


class _Drawable(LogitsProcessor):
    """Replaces NaN and infinity by 0, so that a token can be drawn; other scores stay.

    A draw from NaN fails without naming the document, and on a GPU it ends the process. The dropper
    records whether the original logits are finite, and the batch is refused if they are not.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # Minus infinity stays: other processors use it to exclude a token.
        return scores.masked_fill(scores.isnan() | scores.isposinf(), 0.0)


def answer(
    model: PreTrainedModel, tokenizer: Any, row: torch.Tensor, options: Mapping[str, Any]
) -> tuple[str, int]:
    """Text of one row of new tokens, cut at the task's ``until``, and the number of new tokens.

    The end token is counted.
    """
    length = _length(model, row)
    text = tokenizer.decode(row[:length], skip_special_tokens=True)
    until = options.get("until") or []
    for end in [until] if isinstance(until, str) else until:
        text = text.split(end)[0]
    return text, length


def _length(model: PreTrainedModel, row: torch.Tensor) -> int:
    ends = model.generation_config.eos_token_id if model.generation_config else None
    if ends is None:
        return len(row)
    ended = torch.isin(row, torch.tensor(ends if isinstance(ends, list) else [ends]))
    return int(ended.int().argmax()) + 1 if ended.any() else len(row)


def scores(task: Task, instance: Instance, doc: Mapping[str, Any], answer: str) -> dict[str, float]:
    """Scores of one answer by the task's own code, called as lmms-eval calls it at the end.

    A score that is not a number (for example a submission to a server) is left out.
    """
    scored = replace(instance, resps=[answer], filtered_resps={}, token_counts=[])
    # lmms-eval's VQA scoring overwrites the answers in the document, and a document is scored once
    # for each control.
    doc = _copied(doc)
    docs: Any = [doc]
    for ensemble in task._filters[:1]:
        ensemble.apply([scored], docs)
    filtered = next(iter(scored.filtered_resps.values()), answer)
    # Unwrapped: lmms-eval's wrapper tries five times and hides the error.
    raw = inspect.unwrap(type(task).process_results)(task, doc, [filtered])
    values = {
        name: value.get("score") if isinstance(value, Mapping) else value
        for name, value in raw.items()
    }
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _copied(value: Any) -> Any:
    """A copy of nested mappings and lists; all other objects, such as images, are shared."""
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def result(sample: Mapping[str, Any]) -> GenerationResult:
    """A recorded sample as lmms-eval's result type."""
    return GenerationResult(sample["answer"], sample_counts(sample, sample["new_tokens"]))


def sample_counts(measured: Mapping[str, Any], new_tokens: int) -> SampleCounts:
    """Token counts of a sample, for lmms-eval's results."""
    counters = {name: measured[name] for name in COUNTERS if name in measured}
    return SampleCounts(measured["prompt_tokens"], new_tokens, measured=counters)
