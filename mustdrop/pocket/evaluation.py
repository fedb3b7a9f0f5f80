"""Accuracy of plain ``generate`` on an unmodified model. Knows no dropping."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mustdrop.pocket.dataset import Sample


@dataclass(frozen=True)
class Score:
    """Number of right answers among n, with a confidence interval of their share."""

    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's confidence interval of the share; the default z gives 95 %."""
        middle = self.share + z**2 / (2 * self.n)
        spread = z * math.sqrt(self.share * (1 - self.share) / self.n + z**2 / (4 * self.n**2))
        total = 1 + z**2 / self.n
        return max(0.0, (middle - spread) / total), min(1.0, (middle + spread) / total)


def prompt(processor: LlavaProcessor, question: str) -> str:
    """Format the prompt of an image and a question, up to the start of the answer."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)


@torch.inference_mode()
def answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    samples: Sequence[Sample],
    batch_size: int = 16,
    max_new_tokens: int = 4,
) -> list[str]:
    """Answer each sample with the model by greedy decoding.

    Args:
        model: Model to run.
        processor: Its processor.
        samples: Samples to answer.
        batch_size: Number of samples at a time.
        max_new_tokens: Most tokens of an answer; long answers need 48.

    Raises:
        ValueError: If ``batch_size`` or ``max_new_tokens`` is less than one.
    """
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    answers: list[str] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        inputs = processor(
            images=[sample.image for sample in batch],
            text=[prompt(processor, sample.question) for sample in batch],
            text_kwargs={"padding": True, "return_tensors": "pt"},
            images_kwargs={"return_tensors": "pt"},
        ).to(model.device, model.dtype)
        tokens = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            **inputs, do_sample=False, max_new_tokens=max_new_tokens
        )
        generated = tokens[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(generated, skip_special_tokens=True)
    return [text.strip() for text in answers]


def exact_match(answers: Sequence[str], samples: Sequence[Sample]) -> Score:
    """Count the answers that equal the right one exactly."""
    pairs = zip(answers, samples, strict=True)
    return Score(sum(given == sample.answer for given, sample in pairs), len(samples))
