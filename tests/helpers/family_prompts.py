"""Prompts for tiny random models, as a family's processor would return them.

A prompt is made from parts: a number of text tokens, ``Image(height, width)`` in pixels, or
``Video(frames, height, width)``. Pixels are drawn at random, the upper half nearly flat, so that
methods which merge alike patches find some.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from models import condition
from torch import Tensor

IMAGE_TOKEN, VIDEO_TOKEN = 5, 4
TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CLIP = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3,
    "image_size": 24, "patch_size": 4,
}  # fmt: skip


class Image(NamedTuple):
    """A picture of so many pixels."""

    height: int
    width: int


class Video(NamedTuple):
    """A video of so many frames."""

    frames: int
    height: int
    width: int


Part = int | Image | Video


def pixels(*shape: int, seed: torch.Generator) -> Tensor:
    """Random pixels; the first half is nearly flat."""
    drawn = torch.randn(*shape, generator=seed)
    drawn[: shape[0] // 2] *= 0.02
    return drawn


class Prompts:
    """Collects the parts of one prompt as a family's processor would return them."""

    def __init__(self, model: Any, seed: int, images: int) -> None:
        self.images = images
        self.model, self.config = model, model.config
        self.generator = torch.Generator().manual_seed(seed)
        self.ids: list[Tensor] = []
        self.kinds: list[Tensor] = []  # 0 text, 1 image, 2 video: mm_token_type_ids
        self.given: dict[str, list[Tensor]] = {}

    def slots(self, token: int, count: int) -> None:
        self.ids.append(torch.full((count,), token))
        self.kinds.append(torch.full((count,), 1 if token == IMAGE_TOKEN else 2))

    def text(self, count: int) -> None:
        self.ids.append(torch.randint(6, 97, (count,), generator=self.generator))
        self.kinds.append(torch.zeros(count, dtype=torch.long))

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.given.setdefault(name, []).append(value)


@dataclass(frozen=True)
class Family:
    """How to build a tiny model of a family, and three prompts of unlike images for it."""

    build: Callable[[str], Any]
    draw: Callable[[Prompts, Any], None]
    prompts: Sequence[Sequence[Part]]
    packed: bool = False  # pixels of a batch are concatenated, and not padded to most crops
    by_prompt: bool = False  # all pixels of a prompt stand in one row of a batch
    counted: bool = False  # the processor counts the images of each prompt: batch_num_images
    types: str | None = None  # name of the input that tells what kind of token each one is
    marks: bool = True  # whether that differs between text and images

    def model(self, attention: str = "sdpa", seed: int = 0) -> Any:
        torch.manual_seed(seed)
        model = self.build(attention).eval()
        condition(model)
        model.set_attn_implementation(attention)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    def inputs(self, model: Any, *prompts: Sequence[Part], seed: int = 0) -> dict[str, Tensor]:
        """A batch of prompts, padded on the left."""
        made = [self._prompt(model, parts, seed + number) for number, parts in enumerate(prompts)]
        ids = [torch.cat(prompt.ids) for prompt in made]
        longest = max(map(len, ids))

        def rows(values: Sequence[Tensor]) -> Tensor:
            pad = torch.nn.functional.pad
            return torch.stack([pad(value, (longest - len(value), 0)) for value in values])

        inputs = {
            "input_ids": rows(ids),
            "attention_mask": rows([torch.ones_like(row) for row in ids]),
        }
        if self.counted:
            inputs["batch_num_images"] = torch.tensor([prompt.images for prompt in made])
        if self.types is not None:
            inputs[self.types] = self.marks * rows([torch.cat(prompt.kinds) for prompt in made])
        names = {name: None for prompt in made for name in prompt.given}
        for name in names:
            rows_of = [p.given.get(name, []) for p in made]
            if self.by_prompt:
                shape = next(row[0] for row in rows_of if row)
                rows_of = [[torch.cat(row) if row else shape[:0]] for row in rows_of]
            inputs[name] = self._joined([value for row in rows_of for value in row])
        return inputs

    def _joined(self, values: Sequence[Tensor]) -> Tensor:
        if values[0].dim() < 2:
            return torch.stack(list(values))
        if self.packed:
            return torch.cat(_of_one_size(values))
        most = max(map(len, values))
        empty = (0, 0) * (values[0].dim() - 1)
        pad = torch.nn.functional.pad
        return torch.stack([pad(value, (*empty, 0, most - len(value))) for value in values])

    def _prompt(self, model: Any, parts: Sequence[Part], seed: int) -> Prompts:
        prompt = Prompts(model, seed, sum(isinstance(part, Image) for part in parts))
        for part in parts:
            if isinstance(part, int):
                prompt.text(part)
            else:
                self.draw(prompt, part)
        return prompt


def _of_one_size(values: Sequence[Tensor]) -> list[Tensor]:
    """Images [1, 3, height, width], padded at the right and at the bottom to the largest one."""
    if values[0].dim() < 4:
        return list(values)
    height, width = (max(value.shape[axis] for value in values) for axis in (-2, -1))
    return [
        torch.nn.functional.pad(value, (0, width - value.shape[-1], 0, height - value.shape[-2]))
        for value in values
    ]
