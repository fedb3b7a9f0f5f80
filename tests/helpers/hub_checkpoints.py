"""Tiny random checkpoints in the layout of the hub, with the files that real ones have.

    folder = save("qwen2_5_vl", tmp_path / "qwen")
    model, processor = Checkpoint("tiny", str(folder), layers=6, ...).load("cpu")

Every family has a language model of 6 layers, if no other number is given, and an encoder of 4
blocks with patches of 4 x 4 pixels. The tokenizer has a token per byte, so it can read and write
any text. Image processors are named as on the hub, in ``preprocessor_config.json``; transformers 5
would write another layout.
"""

import json
from pathlib import Path
from typing import Any

import torch
from gemma_checkpoints import GEMMA_CHECKPOINTS
from hub_family import CLIP_MEANS, HubFamily
from models import condition
from qwen_checkpoints import QWEN_CHECKPOINTS
from tiled_checkpoints import TILED_CHECKPOINTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

SIDE, PATCH = 24, 4  # of an image, a crop or a tile, in pixels
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]  # [height, width] of LLaVA-NeXT
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
ROLES = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    "extra_special_tokens": {"image_token": "<image>"},
}  # fmt: skip
# It makes the same prompts as the template on the hub.
VICUNA = (
    "{% for turn in messages %}{% if turn.role != 'system' %}{{ turn.role.upper() }}: {% endif %}"
    "{% for part in turn.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in turn.content if part.type == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in turn.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CLIP_IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "resample": 3, "rescale_factor": 1 / 255,
    **CLIP_MEANS,
}  # fmt: skip


def llava(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return LlavaForConditionalGeneration(LlavaConfig(**_common(text, language)))


def llava_next(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    config = LlavaNextConfig(**_common(text, language), image_grid_pinpoints=PINPOINTS)
    return LlavaNextForConditionalGeneration(config)


def video_llava(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    token = text.convert_tokens_to_ids("<video>")
    config = VideoLlavaConfig(**_common(text, language), video_token_index=token)
    return VideoLlavaForConditionalGeneration(config)


def _common(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> dict[str, Any]:
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=4, num_attention_heads=3,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    return {
        "vision_config": vision, "text_config": LlamaConfig(**language),
        "image_token_index": text.convert_tokens_to_ids("<image>"),
        "image_seq_length": (SIDE // PATCH) ** 2,
    }  # fmt: skip


def _files(kind: str, tokens: dict[str, str] | None = None, **images: Any) -> dict[str, Any]:
    """Settings of the images and of the whole processor of a LLaVA."""
    return {
        "images": {**CLIP_IMAGES, "processor_class": kind, **images},
        "processor": {
            "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": PATCH,
            "processor_class": kind, "vision_feature_select_strategy": "default",
            **(tokens or {}),
        },
        "begin": "<s>",
    }  # fmt: skip


CHECKPOINTS = {
    "llava": HubFamily(llava, SPECIAL, ROLES, VICUNA, **_files("LlavaProcessor")),
    "llava_next": HubFamily(
        llava_next, SPECIAL, ROLES, VICUNA,
        **_files(
            "LlavaNextProcessor", image_processor_type="LlavaNextImageProcessor", do_pad=True,
            image_grid_pinpoints=PINPOINTS,
        ),
    ),
    "video_llava": HubFamily(
        video_llava, (*SPECIAL, "<video>"), ROLES, VICUNA,
        **_files(
            "VideoLlavaProcessor", {"video_token": "<video>"},
            image_processor_type="VideoLlavaImageProcessor",
        ),
    ),
    **GEMMA_CHECKPOINTS, **QWEN_CHECKPOINTS, **TILED_CHECKPOINTS,
}  # fmt: skip
FAMILIES = tuple(CHECKPOINTS)


def save(family: str, folder: Path, layers: int = 6) -> Path:
    """Write a checkpoint and return its folder."""
    text, made = tokenizer(family), CHECKPOINTS[family]
    random_model(family, text, layers).save_pretrained(folder)
    text.save_pretrained(folder)
    files = {
        "chat_template": {"chat_template": made.template}, "preprocessor_config": made.images,
        "processor_config": made.processor, "video_preprocessor_config": made.videos,
    }  # fmt: skip
    for name, values in files.items():
        if values:
            write(folder / f"{name}.json", values)
    return folder


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2))


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One token per byte and the special tokens of a family."""
    kind = CHECKPOINTS[family]
    names = [*kind.special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    if kind.begin:
        made.post_processor = processors.TemplateProcessing(
            single=f"{kind.begin} $A", special_tokens=[(kind.begin, kind.special.index(kind.begin))]
        )
    text = PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **kind.roles)
    text.add_special_tokens({"extra_special_tokens": list(kind.special)}, False)
    return text


def random_model(family: str, text: PreTrainedTokenizerFast, layers: int = 6) -> PreTrainedModel:
    """A random model; its generation config is as on the hub."""
    torch.manual_seed(0)
    language = {
        "vocab_size": len(text), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "pad_token_id": text.pad_token_id,
        "bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id,
    }  # fmt: skip
    made = CHECKPOINTS[family].build(text, language)
    condition(made)
    assert made.generation_config is not None
    if family.startswith("qwen"):
        made.generation_config.update(do_sample=True, temperature=1e-6, repetition_penalty=1.05)
    return made.eval()
