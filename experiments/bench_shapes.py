"""Narrow models with the depth, image sizes and prompt lengths of released ones; no weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench_models import (
    IMAGE,
    PATCH,
    SIDE,
    gemma3,
    idefics3,
    internvl,
    llava15,
    llava_next,
    mistral3,
    onevision,
    paligemma,
    pixtral,
    qwen2_5_vl,
    qwen3_vl,
    qwen3_vl_moe,
    smolvlm,
    video_llava,
)

BEFORE, AFTER = 35, 30  # text tokens around the image
# with as many blocks the encoder has LLaVA-1.5's share of the operations, 4.3 % of the prefill
SHALLOW_CLIP: dict[str, Any] = {"num_hidden_layers": 5}


@dataclass(frozen=True)
class BenchShape:
    """Model and image that stand for a family.

    Attributes:
        build: Makes the model.
        image: Pixels of one image, and what else the processor returns for it.
        slots: Vision tokens of the image, newlines included.
        targets: Executed averages that are measured.
        layers: Layers after which dual attention acts.
        window: Side of the windows that are merged, in cells.
        kinds: Name of the input that tells what kind of token each one is; None: there is none.
        marked: Whether that differs between text and images.
    """

    build: Callable[[], Any]
    image: Callable[[torch.Generator], dict[str, Tensor]]
    slots: int
    targets: Sequence[int]
    layers: Sequence[int]
    window: int
    kinds: str | None = None
    marked: bool = True

    def model(self) -> Any:
        """Make the model with random weights, whose attention differs by token."""
        torch.manual_seed(0)
        model = self.build().eval()
        generator = torch.Generator().manual_seed(1)
        for name, weight in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):  # unit-variance logits
                weight.data.normal_(0, 1.5 / weight.shape[1] ** 0.5, generator=generator)
        return model

    def prompt(self, batch: int = 1) -> dict[str, Tensor]:
        """Make a batch of equal prompts: 35 text tokens, the image and 30 text tokens."""
        generator = torch.Generator().manual_seed(2)
        text = torch.randint(6, 128, (BEFORE + AFTER,), generator=generator)
        slots = torch.full((self.slots,), IMAGE)
        ids = torch.cat([text[:BEFORE], slots, text[BEFORE:]])[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.kinds is not None:
            inputs[self.kinds] = ((ids == IMAGE) & self.marked).long()
        inputs |= self.image(generator)
        return {name: torch.cat([value] * batch) for name, value in inputs.items()}


def _square(generator: torch.Generator, side: int = SIDE) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 3, side, side, generator=generator)}


def _crops(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 5, 3, SIDE, SIDE, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[2 * SIDE, 2 * SIDE]])}


def _patches(generator: torch.Generator, patch: int = PATCH) -> dict[str, Tensor]:
    side = 72  # 36 cells
    pixels = torch.randn(side**2, 3 * 2 * patch**2, generator=generator)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, side, side]])}


def _tiles(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(5, 3, 448, 448, generator=generator)}


def _split(generator: torch.Generator, side: int = 384) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 17, 3, side, side, generator=generator)}


def _stitched(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 5, 3, 384, 384, generator=generator)
    sizes, counts = torch.tensor([[768, 768]]), torch.tensor([1])
    return {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": counts}


def _native(generator: torch.Generator, side: int = 1008) -> dict[str, Tensor]:
    pixels = torch.randn(1, 3, side, side, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[side, side]])}


def _frames(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values_videos": torch.randn(1, 8, 3, 224, 224, generator=generator)}


MARKS, TYPES = "mm_token_type_ids", "token_type_ids"
_QWEN3 = partial(_patches, patch=16), 1296, (432, 288, 144), (2, 6, 11, 15), 2, MARKS
SHAPES: Mapping[str, BenchShape] = {
    # 336 x 336 pixels
    "llava15": BenchShape(llava15, _square, 576, (192, 128, 64), (2, 6, 10, 14), 3),
    # 672 x 672 pixels: 2880 cells and 48 newlines; the budgets of the papers
    "llava_next": BenchShape(llava_next, _crops, 2928, (640, 320), (2, 6, 10, 14), 3),
    # 1008 x 1008 pixels: 36 x 36 cells; a third, two ninths and a ninth, as in LLaVA-1.5
    "qwen2_5_vl": BenchShape(qwen2_5_vl, _patches, 1296, (432, 288, 144), (1, 5, 8, 12), 2, MARKS),
    # 1152 x 1152 pixels: 36 x 36 cells
    "qwen3_vl": BenchShape(qwen3_vl, *_QWEN3),
    "qwen3_vl_moe": BenchShape(qwen3_vl_moe, *_QWEN3),
    # 896 x 896 pixels: 16 x 16 cells of 4 x 4 patches
    "gemma3": BenchShape(
        gemma3, partial(_square, side=896), 256, (85, 57, 28), (2, 6, 10, 14), 2, TYPES
    ),
    # 448 x 448 pixels: 32 x 32 patches
    "paligemma": BenchShape(
        paligemma, partial(_square, side=448), 1024, (341, 228, 114), (1, 3, 5, 7), 2, TYPES, False
    ),
    # 1536 x 1536 pixels: 16 tiles and the small copy, of 9 x 9 cells
    "smolvlm2": BenchShape(smolvlm, _split, 1377, (459, 306, 153), (2, 6, 10, 14), 3),
    # 1456 x 1456 pixels: 16 tiles and the small copy, of 13 x 13 cells
    "idefics3": BenchShape(
        idefics3, partial(_split, side=364), 2873, (958, 638, 319), (2, 6, 10, 14), 3
    ),
    # 768 x 768 pixels: 27 x 27 and 54 x 54 cells, and 54 newlines
    "llava_onevision": BenchShape(onevision, _stitched, 3699, (1215, 810, 405), (1, 5, 8, 12), 3),
    # 1008 x 1008 pixels: 36 x 36 cells
    "mistral3": BenchShape(mistral3, _native, 1296, (432, 288, 144), (2, 6, 10, 14), 2),
    # 1024 x 1024 pixels: 64 x 64 cells
    "pixtral": BenchShape(
        pixtral, partial(_native, side=1024), 4096, (1365, 910, 455), (2, 6, 10, 14), 2
    ),
    # 896 x 896 pixels: 4 tiles and the small copy, of 16 x 16 cells
    "internvl3": BenchShape(internvl, _tiles, 1280, (427, 284, 142), (1, 5, 8, 12), 2),
    # 8 frames of 224 x 224 pixels, 16 x 16 cells and [CLS]
    "video_llava": BenchShape(video_llava, _frames, 2056, (685, 457, 228), (2, 6, 10, 14), 2),
}
# Presets in conf/model that a shape stands for.
_PRESETS = {
    "llava15": "llava15_7b llava15_13b",
    "llava_next": "llava_next_7b llava_next_13b llava_next_mistral_7b",
    "qwen2_5_vl": "qwen2_5_vl_3b qwen2_5_vl_7b",
    "qwen3_vl": "qwen3_vl_2b qwen3_vl_4b qwen3_vl_8b",
    "qwen3_vl_moe": "qwen3_vl_30b_a3b",
    "gemma3": "gemma3_4b gemma3_12b",
    "paligemma": "paligemma_3b_224 paligemma_3b_448",
    "smolvlm2": "smolvlm2_2b",
    "idefics3": "idefics3_8b smolvlm_2b",
    "llava_onevision": "llava_onevision_0_5b llava_onevision_7b llava_video_7b",
    "mistral3": "mistral_small_3_1_24b",
    "pixtral": "pixtral_12b",
    "internvl3": "internvl3_2b internvl3_8b internvl3_5_8b",
    "video_llava": "video_llava_7b",
}
SHAPE_OF: Mapping[str, str] = {
    preset: shape for shape, presets in _PRESETS.items() for preset in presets.split()
}
# LLaVA-1.5 with an encoder of LLaVA-1.5's share, for the time to the first token
FIRST_TOKEN = BenchShape(lambda: llava15(**SHALLOW_CLIP), _square, 576, (64,), (2, 6, 10, 14), 3)
