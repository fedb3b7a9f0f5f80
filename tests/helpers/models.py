"""Tiny random LLaVA models and prompts for the tests.

Weights are drawn so that attention logits have unit variance: a saturated model would not notice
that a token is gone, and every proof on it would be empty.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from mustdrop.models import adapter_for

IMAGE_TOKEN = 5


def tiny_llava(
    attention: str = "sdpa",
    grid: int = 6,
    layers: int = 6,
    blocks: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 32,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    ffn: int | None = None,
    cls: bool = True,
) -> LlavaForConditionalGeneration:
    """A LLaVA-1.5 of a few thousand weights; ``grid`` x ``grid`` patches per image.

    Its encoder is CLIP's, or without ``cls`` SigLIP's, which has no [CLS].
    """
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": blocks,
        "num_attention_heads": 3, "image_size": 4 * grid, "patch_size": 4,
    }  # fmt: skip
    bare = SiglipVisionConfig(**sizes, vision_use_head=False)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes) if cls else bare,
        vision_feature_select_strategy="default" if cls else "full",
        text_config=LlamaConfig(
            vocab_size=97, hidden_size=hidden, intermediate_size=ffn or 2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=4096,
            bos_token_id=1, eos_token_id=None, pad_token_id=0,
        ),
        image_token_index=IMAGE_TOKEN, image_seq_length=grid**2, vision_feature_layer=-2,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    condition(model)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = None
    return model.to(dtype)


def condition(model: LlavaForConditionalGeneration) -> None:
    """Redraw the weights so that queries times keys have unit variance."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dim() >= 2 and "embed" not in name:
            gain = 1.5 if ("q_proj" in name or "k_proj" in name) else 1.0
            fan_in = weight[0].numel()
            weight.data.normal_(0, gain / fan_in**0.5, generator=generator)
        elif "embed" in name:
            weight.data.normal_(0, 1.0, generator=generator)


def encoder_blocks(model: LlavaForConditionalGeneration) -> Sequence[nn.Module]:
    """Blocks of the vision encoder; transformers 5.0 holds them in one more module than 5.24."""
    (encoder,) = adapter_for(model).encoders
    return encoder.blocks


def prompt(
    model: LlavaForConditionalGeneration,
    before: int = 3,
    after: int = 7,
    images: int = 1,
    seed: int = 0,
    flat: float = 0.0,
) -> dict[str, torch.Tensor]:
    """One prompt: text, images, text. ``flat``: share of each picture that is one colour."""
    generator = torch.Generator().manual_seed(seed)
    slots = model.config.image_seq_length
    text = torch.randint(6, 97, (before + after,), generator=generator)
    ids = torch.cat([text[:before], torch.full((images * slots,), IMAGE_TOKEN), text[before:]])
    size = model.config.vision_config.image_size
    pixels = torch.randn(images, 3, size, size, generator=generator)
    pixels[:, :, : int(flat * size)] = 0.5
    return {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values": pixels.to(model.dtype),
    }


def batch(*prompts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Several prompts as one batch, padded on the left."""
    longest = max(p["input_ids"].shape[1] for p in prompts)

    def pad(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (longest - values.shape[1], 0))

    return {
        "input_ids": torch.cat([pad(p["input_ids"]) for p in prompts]),
        "attention_mask": torch.cat([pad(p["attention_mask"]) for p in prompts]),
        "pixel_values": torch.cat([p["pixel_values"] for p in prompts]),
    }


def greedy(model: LlavaForConditionalGeneration, inputs: dict, steps: int = 6):
    """(new tokens [batch, steps], logits [batch, steps, vocab]) of greedy decoding."""
    with torch.inference_mode():
        out = model.generate(
            **inputs, max_new_tokens=steps, do_sample=False, output_logits=True,
            return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)
