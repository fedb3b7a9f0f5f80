"""How many answers are right: plain ``generate`` on an unmodified model. Knows no dropping."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mustdrop.pocket.dataset import Sample


@dataclass(frozen=True)
class Score:
    """Right answers among n, and how sure one can be of their share."""

    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's interval of the share; the default z is that of 95 %."""
        middle = self.share + z**2 / (2 * self.n)
        spread = z * math.sqrt(self.share * (1 - self.share) / self.n + z**2 / (4 * self.n**2))
        total = 1 + z**2 / self.n
        return max(0.0, (middle - spread) / total), min(1.0, (middle + spread) / total)


def prompt(processor: LlavaProcessor, question: str) -> str:
    """The chat template around an image and a question, up to where the answer starts."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)


@torch.inference_mode()
def answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    samples: Sequence[Sample],
    batch_size: int = 16,
) -> list[str]:
    """What the model answers to each sample, greedily.

    Raises:
        ValueError: If ``batch_size`` is less than one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    answers: list[str] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        inputs = processor(
            images=[one.image for one in batch],
            text=[prompt(processor, one.question) for one in batch],
            text_kwargs={"padding": True, "return_tensors": "pt"},
            images_kwargs={"return_tensors": "pt"},
        ).to(model.device, model.dtype)
        tokens = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            **inputs, do_sample=False, max_new_tokens=4
        )
        fresh = tokens[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(fresh, skip_special_tokens=True)
    return [text.strip() for text in answers]


def exact_match(answers: Sequence[str], samples: Sequence[Sample]) -> Score:
    """How many answers are, word for word, the right one."""
    pairs = zip(answers, samples, strict=True)
    return Score(sum(given == one.answer for given, one in pairs), len(samples))
