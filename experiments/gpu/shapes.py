"""Small models on which dropping is compared with masking, and prompts for them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from mustdrop.profiling.random_models import build_random

IMAGE = 5  # token id of a vision slot


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA with a CLIP encoder and a Llama decoder.

    Attributes:
        grid: Number of patches along each side of an image.
        patch: Side of a patch in pixels.
        vision: Encoder's width, width of its MLP, blocks and heads.
        text: Decoder's width, width of its MLP, layers and heads.
        vocabulary: Number of token ids.
    """

    grid: int
    patch: int
    vision: tuple[int, int, int, int]
    text: tuple[int, int, int, int]
    vocabulary: int

    @property
    def slots(self) -> int:
        """Vision tokens of one image."""
        return self.grid**2

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.text[2]


SHAPES = {
    "tiny": Shape(6, 4, (24, 48, 4, 3), (32, 64, 6, 4), 97),
    "small": Shape(12, 8, (128, 256, 4, 2), (256, 512, 8, 4), 1024),
}


def build(shape: Shape, device: str, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """Build a LLaVA with random weights directly on the device."""
    vision, text = shape.vision, shape.text
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision[0], intermediate_size=vision[1], num_hidden_layers=vision[2],
            num_attention_heads=vision[3], image_size=shape.grid * shape.patch,
            patch_size=shape.patch,
        ),
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=text[0], intermediate_size=text[1],
            num_hidden_layers=text[2], num_attention_heads=text[3], num_key_value_heads=text[3],
            max_position_embeddings=4096, bos_token_id=1, eos_token_id=None, pad_token_id=0,
        ),
        image_token_index=IMAGE, image_seq_length=shape.slots, vision_feature_layer=-2,
    )  # fmt: skip
    return build_random(config, device, dtype, attention)


def prompt(
    shape: Shape,
    model: Any,
    text: tuple[int, int],
    images: int = 1,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Make one prompt: text, images, text. The upper half of each picture has one colour.

    Args:
        shape: Sizes of the model.
        model: Model that the prompt is for.
        text: Numbers of text tokens in front of the images and behind them.
        images: Number of images.
        seed: Seed of text and pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    before, after = text
    words = torch.randint(6, shape.vocabulary, (before + after,), generator=generator)
    slots = torch.full((images * shape.slots,), IMAGE)
    ids = torch.cat([words[:before], slots, words[before:]])[None]
    side = shape.grid * shape.patch
    pixels = torch.randn(images, 3, side, side, generator=generator)
    pixels[:, :, : side // 2] = 0.5
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
        "pixel_values": pixels.to(model.device, model.dtype),
    }


def batch(*prompts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Combine prompts into one batch, padded on the left."""
    longest = max(item["input_ids"].shape[1] for item in prompts)

    def pad(values: Int[Tensor, "1 tokens"]) -> Int[Tensor, "1 longest"]:
        return torch.nn.functional.pad(values, (longest - values.shape[1], 0))

    return {
        "input_ids": torch.cat([pad(item["input_ids"]) for item in prompts]),
        "attention_mask": torch.cat([pad(item["attention_mask"]) for item in prompts]),
        "pixel_values": torch.cat([item["pixel_values"] for item in prompts]),
    }


@torch.inference_mode()
def greedy(
    model: Any, inputs: dict[str, Tensor], steps: int
) -> tuple[Int[Tensor, "batch steps"], Float[Tensor, "batch steps vocab"]]:
    """Decode greedily; return tokens and logits."""
    out = model.generate(
        **inputs, max_new_tokens=steps, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)
