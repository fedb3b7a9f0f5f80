"""Tiny random models of every family, and prompts with images of several sizes for them.

A prompt is made from parts: a number of text tokens, ``Image(height, width)`` in pixels, or
``Video(frames, height, width)``. Pixels are drawn at random, the upper half nearly flat, so that
methods which merge alike patches find some.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers
from models import condition
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from mustdrop.models import adapter_for

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
QWEN = {
    "depth": 4, "hidden_size": 24, "num_heads": 3, "patch_size": 4, "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip
QWEN3 = {
    **QWEN, "intermediate_size": 48, "out_hidden_size": 32, "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1, 2],
}  # fmt: skip
FRAMES = 2  # of every video of Video-LLaVA, whose pixels are stacked
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


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

    def __init__(self, model: Any, seed: int) -> None:
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


def llava_next(attention: str) -> Any:
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**CLIP),
        text_config=transformers.LlamaConfig(**TEXT), image_token_index=IMAGE_TOKEN,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]],
        vision_feature_layer=-2, vision_feature_select_strategy="default", image_seq_length=36,
    )  # fmt: skip
    return transformers.LlavaNextForConditionalGeneration(config)


def llava_next_image(prompt: Prompts, image: Image) -> None:
    config, side = prompt.config, prompt.config.vision_config.image_size
    crops = image_size_to_num_patches(list(image), config.image_grid_pinpoints, side)
    packed, _ = prompt.model.model.pack_image_features(
        [torch.zeros(crops, (side // config.vision_config.patch_size) ** 2, 1)],
        torch.tensor([image]), vision_feature_select_strategy="default",
        image_newline=torch.zeros(1),
    )  # fmt: skip
    drawn = torch.stack(
        [pixels(side, 3, side, seed=prompt.generator).transpose(0, 1) for _ in range(crops)]
    )
    prompt.add(pixel_values=drawn, image_sizes=torch.tensor(image))
    prompt.slots(IMAGE_TOKEN, len(packed[0]))


def qwen2_5_vl(attention: str) -> Any:
    config = transformers.Qwen2_5_VLConfig(
        vision_config={**QWEN, "intermediate_size": 48, "window_size": 16, "out_hidden_size": 32,
                       "fullatt_block_indexes": [1, 3]},
        text_config={**TEXT, "rope_parameters": ROPE}, image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN, vision_start_token_id=2, vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen2_vl(attention: str) -> Any:
    config = transformers.Qwen2VLConfig(
        vision_config={**QWEN, "embed_dim": 24, "mlp_ratio": 2, "hidden_size": 32},
        text_config={**TEXT, "rope_parameters": ROPE}, image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN, vision_start_token_id=2, vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen2VLForConditionalGeneration(config)


def qwen3_vl(attention: str) -> Any:
    config = transformers.Qwen3VLConfig(
        vision_config=QWEN3, text_config={**TEXT, "head_dim": 8, "rope_parameters": ROPE},
        image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, vision_start_token_id=2,
        vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration(config)


def qwen3_vl_moe(attention: str) -> Any:
    text = {**TEXT, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
    config = transformers.Qwen3VLMoeConfig(
        vision_config=QWEN3,
        text_config={**text, "moe_intermediate_size": 24, "rope_parameters": ROPE},
        image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, vision_start_token_id=2,
        vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen3VLMoeForConditionalGeneration(config)


def qwen_input(prompt: Prompts, part: Image | Video) -> None:
    """Flat patches, four after four of a cell, and the numbers of patches along each axis."""
    vision = prompt.config.vision_config
    frames = part.frames // vision.temporal_patch_size if isinstance(part, Video) else 1
    height, width = (side // vision.patch_size for side in part[-2:])
    size = 3 * vision.temporal_patch_size * vision.patch_size**2
    drawn = pixels(frames * height * width, size, seed=prompt.generator)
    grid = torch.tensor([frames, height, width])
    if isinstance(part, Video):
        prompt.add(pixel_values_videos=drawn, video_grid_thw=grid)
        if isinstance(prompt.model, transformers.Qwen2_5_VLForConditionalGeneration):
            prompt.add(second_per_grid_ts=torch.tensor(1.0))
    else:
        prompt.add(pixel_values=drawn, image_grid_thw=grid)
    token = VIDEO_TOKEN if isinstance(part, Video) else IMAGE_TOKEN
    runs = frames if vision.model_type.startswith("qwen3") else 1  # a time before each frame
    for run in range(runs):
        if run:
            prompt.text(2)
        prompt.slots(token, frames // runs * height * width // vision.spatial_merge_size**2)


SIGLIP = {
    **{name: CLIP[name] for name in CLIP if name != "image_size"}, "vision_use_head": False,
    "model_type": "siglip_vision_model",
}  # fmt: skip


def gemma3(attention: str) -> Any:
    """Layers 0 to 4 see a window of 512 tokens, layer 5 all; 4 x 4 cells of 4 x 4 patches."""
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    config = transformers.Gemma3Config(
        vision_config={**SIGLIP, "image_size": 64}, mm_tokens_per_image=16,
        text_config={**TEXT, "head_dim": 8, "sliding_window": 512, "query_pre_attn_scalar": 8,
                     "rope_parameters": rope},
        image_token_index=IMAGE_TOKEN, boi_token_index=2, eoi_token_index=3,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def paligemma(attention: str) -> Any:
    config = transformers.PaliGemmaConfig(
        vision_config={**SIGLIP, "image_size": 24, "projection_dim": 32}, projection_dim=32,
        text_config={**TEXT, "model_type": "gemma", "head_dim": 8}, image_token_index=IMAGE_TOKEN,
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration(config)


def square_input(prompt: Prompts, image: Image) -> None:
    """Every picture becomes a square of one size."""
    side = prompt.config.vision_config.image_size
    prompt.add(pixel_values=pixels(side, 3, side, seed=prompt.generator).transpose(0, 1)[None])
    prompt.slots(IMAGE_TOKEN, adapter_for(prompt.model).image_tokens)


@dataclass(frozen=True)
class Family:
    """How to build a tiny model of a family, and three prompts of unlike images for it."""

    build: Callable[[str], Any]
    draw: Callable[[Prompts, Any], None]
    prompts: Sequence[Sequence[Part]]
    packed: bool = False  # pixels of a batch are concatenated, and not padded to most crops
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
        if self.types is not None:
            inputs[self.types] = self.marks * rows([torch.cat(prompt.kinds) for prompt in made])
        names = {name: None for prompt in made for name in prompt.given}
        for name in names:
            inputs[name] = self._joined([v for p in made for v in p.given.get(name, ())])
        return inputs

    def _joined(self, values: Sequence[Tensor]) -> Tensor:
        if values[0].dim() < 2:
            return torch.stack(list(values))
        if self.packed:
            return torch.cat(list(values))
        most = max(map(len, values))
        empty = (0, 0) * (values[0].dim() - 1)
        pad = torch.nn.functional.pad
        return torch.stack([pad(value, (*empty, 0, most - len(value))) for value in values])

    def _prompt(self, model: Any, parts: Sequence[Part], seed: int) -> Prompts:
        prompt = Prompts(model, seed)
        for part in parts:
            if isinstance(part, int):
                prompt.text(part)
            else:
                self.draw(prompt, part)
        return prompt


def video_llava(attention: str) -> Any:
    config = transformers.VideoLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**{**CLIP, "image_size": 28}),
        text_config=transformers.LlamaConfig(**TEXT), image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN, image_seq_length=49, video_seq_length=FRAMES * 50,
    )  # fmt: skip
    return transformers.VideoLlavaForConditionalGeneration(config)


def video_llava_input(prompt: Prompts, part: Image | Video) -> None:
    """Every picture becomes a square of one size; a frame has its [CLS] too."""
    vision = prompt.config.vision_config
    side, cells = vision.image_size, (vision.image_size // vision.patch_size) ** 2
    count = part.frames if isinstance(part, Video) else 1
    drawn = [pixels(side, 3, side, seed=prompt.generator).transpose(0, 1) for _ in range(count)]
    if isinstance(part, Video):
        prompt.add(pixel_values_videos=torch.stack(drawn))
        prompt.slots(VIDEO_TOKEN, count * (cells + 1))
    else:
        prompt.add(pixel_values_images=drawn[0])
        prompt.slots(IMAGE_TOKEN, cells)


MARKED = "mm_token_type_ids"
QWEN_PROMPTS = (
    (3, Image(32, 48), 7),
    (2, Image(16, 24), 3, Image(40, 16), 12),
    (9, Video(4, 24, 32), 2, Image(24, 24), 4),
)
SQUARE_PROMPTS = (
    (3, Image(16, 16), 7),
    (2, Image(16, 16), 3, Image(24, 16), 12),
    (9, Image(16, 24), Image(16, 16), 4),
)
FAMILIES = {
    "gemma3": Family(gemma3, square_input, SQUARE_PROMPTS, packed=True, types="token_type_ids"),
    "llava_next": Family(
        llava_next, llava_next_image,
        ((3, Image(24, 48), 7), (2, Image(40, 22), 2, Image(24, 24), 12), (9, Image(48, 48), 4)),
    ),
    "paligemma": Family(
        paligemma, square_input, SQUARE_PROMPTS, packed=True, types="token_type_ids", marks=False
    ),
    "qwen2_5_vl": Family(qwen2_5_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "qwen2_vl": Family(qwen2_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "qwen3_vl": Family(qwen3_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "video_llava": Family(
        video_llava, video_llava_input,
        (
            (3, Video(FRAMES, 16, 16), 7),
            (2, Image(16, 16), 3, Image(24, 16), 12),
            (9, Video(FRAMES, 16, 24), 2, Image(16, 16), 4),
        ),
    ),
}  # fmt: skip
# Other classes of models that the same adapters serve.
OTHER_CLASSES = {
    "qwen3_vl_moe": Family(qwen3_vl_moe, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
}
