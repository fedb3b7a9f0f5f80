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
from models import condition
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
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "video_llava", *TILED_CHECKPOINTS)
SIDE, PATCH = 24, 4  # of an image, a crop or a tile, in pixels
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]  # [height, width] of LLaVA-NeXT
SPECIAL = {
    "llava": ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
    "llava_next": ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
    "video_llava": ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>"),
    "qwen2_5_vl": (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    ),
}  # fmt: skip
# They make the same prompts as the templates on the hub.
VICUNA = (
    "{% for turn in messages %}{% if turn.role != 'system' %}{{ turn.role.upper() }}: {% endif %}"
    "{% for part in turn.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in turn.content if part.type == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in turn.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' }}"
    "{% for part in turn.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CLIP_IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "resample": 3, "rescale_factor": 1 / 255,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
IMAGES = {
    "llava": {**CLIP_IMAGES, "processor_class": "LlavaProcessor"},
    "llava_next": {
        **CLIP_IMAGES, "image_processor_type": "LlavaNextImageProcessor", "do_pad": True,
        "image_grid_pinpoints": PINPOINTS, "processor_class": "LlavaNextProcessor",
    },
    "video_llava": {
        **CLIP_IMAGES, "image_processor_type": "VideoLlavaImageProcessor",
        "processor_class": "VideoLlavaProcessor",
    },
    "qwen2_5_vl": {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 16 * 16, "max_pixels": 64 * 64, "patch_size": PATCH, "merge_size": 2,
        "temporal_patch_size": 2, "image_mean": CLIP_IMAGES["image_mean"],
        "image_std": CLIP_IMAGES["image_std"],
    },
}  # fmt: skip


def save(family: str, folder: Path, layers: int = 6) -> Path:
    """Write a checkpoint and return its folder."""
    text = tokenizer(family)
    random_model(family, text, layers).save_pretrained(folder)
    text.save_pretrained(folder)
    if family in TILED_CHECKPOINTS:
        made = TILED_CHECKPOINTS[family]
        write(folder / "chat_template.json", {"chat_template": made.template})
        write(folder / "preprocessor_config.json", made.images)
        write(folder / "processor_config.json", made.processor)
        if made.videos:
            write(folder / "video_preprocessor_config.json", made.videos)
        return folder
    template = QWEN if family == "qwen2_5_vl" else VICUNA
    write(folder / "chat_template.json", {"chat_template": template})
    write(folder / "preprocessor_config.json", IMAGES[family])
    if family != "qwen2_5_vl":
        write(
            folder / "processor_config.json",
            {
                "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": PATCH,
                **({"video_token": "<video>"} if family == "video_llava" else {}),
                "processor_class": IMAGES[family]["processor_class"],
                "vision_feature_select_strategy": "default",
            },
        )  # fmt: skip
    return folder


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2))


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One token per byte and the special tokens of a family."""
    tiled = TILED_CHECKPOINTS.get(family)
    special = SPECIAL[family] if tiled is None else tiled.special
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    if tiled is not None:
        roles = tiled.roles
    elif family == "qwen2_5_vl":
        roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    else:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", special.index("<s>"))]
        )
        roles = {
            "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
            "extra_special_tokens": {"image_token": "<image>"},
        }  # fmt: skip
    text = PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **roles)
    text.add_special_tokens({"extra_special_tokens": list(special)}, False)
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
    image = text.convert_tokens_to_ids("<image>")
    if family in TILED_CHECKPOINTS:
        made = TILED_CHECKPOINTS[family].build(text, language)
    elif family == "qwen2_5_vl":
        made = Qwen2_5_VLForConditionalGeneration(_qwen(text, language))
    elif family == "video_llava":
        made = VideoLlavaForConditionalGeneration(
            VideoLlavaConfig(
                vision_config=_clip(), text_config=LlamaConfig(**language), image_token_index=image,
                video_token_index=text.convert_tokens_to_ids("<video>"),
                image_seq_length=(SIDE // PATCH) ** 2,
            )
        )  # fmt: skip
    elif family == "llava_next":
        made = LlavaNextForConditionalGeneration(
            LlavaNextConfig(
                vision_config=_clip(), text_config=LlamaConfig(**language), image_token_index=image,
                image_grid_pinpoints=PINPOINTS, image_seq_length=(SIDE // PATCH) ** 2,
            )
        )  # fmt: skip
    else:
        made = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=_clip(), text_config=LlamaConfig(**language), image_token_index=image,
                image_seq_length=(SIDE // PATCH) ** 2,
            )
        )  # fmt: skip
    condition(made)
    assert made.generation_config is not None
    if family == "qwen2_5_vl":
        made.generation_config.update(do_sample=True, temperature=1e-6, repetition_penalty=1.05)
    return made.eval()


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=4, num_attention_heads=3,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip


def _qwen(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> Qwen2_5_VLConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 4, "hidden_size": 24, "intermediate_size": 48, "num_heads": 3,
            "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1, 3],
        },
        text_config={**language, "rope_parameters": rope},
        image_token_id=text.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=text.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=text.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=text.convert_tokens_to_ids("<|vision_end|>"),
    )  # fmt: skip
