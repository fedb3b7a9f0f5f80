"""What was generated as text and as scores, the way lmms-eval reads it. Knows no dropping."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from mustdrop.evaluation.lmms_eval_api import GenerationResult, Instance, Task, TokenCounts

SAMPLING = ("temperature", "top_p", "top_k")


@dataclass
class SampleCounts(TokenCounts):
    """lmms-eval's counters, with ours beside them: it asks for no more than ``to_dict``."""

    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.measured}


def generate_options(
    asked: Mapping[str, Any], max_new_tokens: int, pad_token_id: int | None
) -> dict[str, Any]:
    """What ``generate`` is told; ``until`` is ours to apply.

    Args:
        asked: A task's own options.
        max_new_tokens: Where it sets none.
        pad_token_id: The tokenizer's.
    """
    sampled = bool(asked.get("do_sample"))
    kept = {name: asked[name] for name in SAMPLING if sampled and asked.get(name) is not None}
    if sampled:
        kept["logits_processor"] = LogitsProcessorList([_Drawable()])
    return {
        "do_sample": sampled,
        "num_beams": asked.get("num_beams") or 1,
        "max_new_tokens": asked.get("max_new_tokens") or max_new_tokens,
        "pad_token_id": pad_token_id,
        **kept,
    }


class _Drawable(LogitsProcessor):
    """Puts 0 for NaN and infinity, from which nothing can be drawn; all other scores stay.

    Such a draw fails without naming the document, and on a GPU it ends the process. The dropper
    notes the logits themselves, and the batch is refused by those notes.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # minus infinity stays: it is how other processors rule a token out
        return scores.masked_fill(scores.isnan() | scores.isposinf(), 0.0)


def answer(
    model: PreTrainedModel, tokenizer: Any, row: torch.Tensor, options: Mapping[str, Any]
) -> tuple[str, int]:
    """The words of one row of new tokens up to where the task ends them, and how many tokens.

    The end token is counted.
    """
    new = _length(model, row)
    text = tokenizer.decode(row[:new], skip_special_tokens=True)
    until = options.get("until") or []
    for end in [until] if isinstance(until, str) else until:
        text = text.split(end)[0]
    return text, new


def _length(model: PreTrainedModel, row: torch.Tensor) -> int:
    ends = model.generation_config.eos_token_id if model.generation_config else None
    if ends is None:
        return len(row)
    ended = torch.isin(row, torch.tensor(ends if isinstance(ends, list) else [ends]))
    return int(ended.int().argmax()) + 1 if ended.any() else len(row)


def scores(task: Task, instance: Instance, doc: Mapping[str, Any], answer: str) -> dict[str, float]:
    """What the task's own scoring makes of one answer, the way lmms-eval would call it at the end.

    A score that is no number (a submission to a server, say) is left out.
    """
    own = replace(instance, resps=[answer], filtered_resps={}, token_counts=[])
    # lmms-eval's VQA scoring rewrites the answers of the document that it is given, and a document
    # is scored once for each control
    doc = _copied(doc)
    docs: Any = [doc]
    for ensemble in task._filters[:1]:
        ensemble.apply([own], docs)
    filtered = next(iter(own.filtered_resps.values()), answer)
    # without lmms-eval's wrapper, which tries five times and hides the error
    made = inspect.unwrap(type(task).process_results)(task, doc, [filtered])
    found = {
        name: value.get("score") if isinstance(value, Mapping) else value
        for name, value in made.items()
    }
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _copied(value: Any) -> Any:
    """Mappings and lists anew, down to what they hold; pictures and the like are shared."""
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def result(sample: Mapping[str, Any]) -> GenerationResult:
    """A sample as lmms-eval takes an answer."""
    counters = ("vision_tokens", "resident_tokens", "counts", "prefill_macs", "kv_bytes", "seconds")
    counts = SampleCounts(
        input_tokens=sample["prompt_tokens"],
        output_tokens=sample["new_tokens"],
        measured={name: sample[name] for name in counters},
    )
    return GenerationResult(sample["answer"], counts)
