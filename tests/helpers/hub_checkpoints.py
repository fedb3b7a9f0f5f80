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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

FAMILIES = (
    "gemma3", "llava", "llava_next", "paligemma", "qwen2_5_vl", "qwen3_vl", "video_llava",
)  # fmt: skip
SIDE, PATCH = 24, 4  # of an image, a crop or a tile, in pixels
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]  # [height, width] of LLaVA-NeXT
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
GEMMA_SPECIAL = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<image>", "<start_of_turn>", "<end_of_turn>",
    "<start_of_image>", "<end_of_image>", "<image_soft_token>",
)  # fmt: skip
SPECIAL = {
    "gemma3": GEMMA_SPECIAL,
    "paligemma": GEMMA_SPECIAL,
    "llava": ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
    "llava_next": ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
    "video_llava": ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>"),
    "qwen2_5_vl": QWEN_SPECIAL,
    "qwen3_vl": QWEN_SPECIAL,
}  # fmt: skip
GEMMA3_TOKENS = {
    "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
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
# without the sentence of the system, and with the times of a video's frames in its own place
QWEN3 = QWEN[QWEN.index("{% for turn") :].replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>"
)
GEMMA3 = (
    "{{ bos_token }}{% for turn in messages %}{{ '<start_of_turn>' + turn.role + '\n' }}"
    "{% for part in turn.content %}{% if part.type == 'image' %}<start_of_image>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PALIGEMMA = (  # of the presets; the hub has none
    "{% for turn in messages %}{% for part in turn.content if part.type == 'image' %}<image>"
    "{% endfor %}{% for part in turn.content if part.type == 'text' %}answer en {{ part.text }}"
    "{% endfor %}{% endfor %}"
)
CLIP_IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "resample": 3, "rescale_factor": 1 / 255,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
SIGLIP_IMAGES = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 2,
    "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip
GEMMA3_SIDE = 32
IMAGES = {
    "gemma3": {
        **SIGLIP_IMAGES, "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 16,
        "size": {"height": GEMMA3_SIDE, "width": GEMMA3_SIDE}, "do_pan_and_scan": None,
        "processor_class": "Gemma3Processor",
    },
    "paligemma": {
        **SIGLIP_IMAGES, "image_processor_type": "SiglipImageProcessor", "image_seq_length": 36,
        "size": {"height": SIDE, "width": SIDE}, "processor_class": "PaliGemmaProcessor",
    },
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
    "qwen3_vl": {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}, "patch_size": PATCH,
        "merge_size": 2, "temporal_patch_size": 2, "image_mean": CLIP_IMAGES["image_mean"],
        "image_std": CLIP_IMAGES["image_std"],
    },
}  # fmt: skip
# Settings of videos, where they have a file of their own. The limits hold for all frames together.
VIDEOS = {
    "qwen3_vl": {
        **IMAGES["qwen3_vl"], "video_processor_type": "Qwen3VLVideoProcessor",
        "size": {"shortest_edge": 16 * 16, "longest_edge": 4 * 64 * 64},
    },
}  # fmt: skip
TEMPLATES = {"gemma3": GEMMA3, "paligemma": PALIGEMMA, "qwen2_5_vl": QWEN, "qwen3_vl": QWEN3}
# Settings of the whole processor; the others need some of LLaVA's.
PROCESSORS: dict[str, dict[str, Any]] = {
    "gemma3": {"image_seq_length": 16, "processor_class": "Gemma3Processor"},
    "paligemma": {}, "qwen2_5_vl": {}, "qwen3_vl": {},
}  # fmt: skip


def save(family: str, folder: Path, layers: int = 6) -> Path:
    """Write a checkpoint and return its folder."""
    text = tokenizer(family)
    random_model(family, text, layers).save_pretrained(folder)
    text.save_pretrained(folder)
    write(folder / "chat_template.json", {"chat_template": TEMPLATES.get(family, VICUNA)})
    write(folder / "preprocessor_config.json", IMAGES[family])
    if family in VIDEOS:
        write(folder / "video_preprocessor_config.json", VIDEOS[family])
    if family in PROCESSORS:
        if PROCESSORS[family]:
            write(folder / "processor_config.json", PROCESSORS[family])
    else:
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
    special = SPECIAL[family]
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    if family.startswith("qwen"):
        roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    elif family in ("gemma3", "paligemma"):
        made.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", special.index("<bos>"))]
        )
        roles = {
            "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
            "extra_special_tokens": GEMMA3_TOKENS if family == "gemma3" else {},
        }  # fmt: skip
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
    if family == "paligemma":  # its processor adds tokens for places and segments
        language["vocab_size"] += 1152
    if family == "qwen2_5_vl":
        made = Qwen2_5_VLForConditionalGeneration(_qwen(text, language))
    elif family == "gemma3":
        made = Gemma3ForConditionalGeneration(_gemma3(text, language))
    elif family == "paligemma":
        made = PaliGemmaForConditionalGeneration(_paligemma(image, language))
    elif family == "qwen3_vl":
        made = Qwen3VLForConditionalGeneration(_qwen3(text, language))
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
    if family.startswith("qwen"):
        made.generation_config.update(do_sample=True, temperature=1e-6, repetition_penalty=1.05)
    return made.eval()


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=4, num_attention_heads=3,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip


def _siglip(side: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": side, "patch_size": PATCH,
        "vision_use_head": False, **more,
    }  # fmt: skip


def _gemma3(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> Gemma3Config:
    soft, start, end = (text.convert_tokens_to_ids(name) for name in GEMMA3_TOKENS.values())
    return Gemma3Config(
        vision_config=_siglip(GEMMA3_SIDE), mm_tokens_per_image=16,
        text_config={**language, "head_dim": 8, "sliding_window": 1024, "query_pre_attn_scalar": 8},
        image_token_index=soft, boi_token_index=start, eoi_token_index=end,
    )  # fmt: skip


def _paligemma(image: int, language: dict[str, Any]) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        vision_config=_siglip(SIDE, projection_dim=32), projection_dim=32, image_token_index=image,
        text_config={**language, "model_type": "gemma", "head_dim": 8},
    )  # fmt: skip


def _qwen(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> Qwen2_5_VLConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 4, "hidden_size": 24, "intermediate_size": 48, "num_heads": 3,
            "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1, 3],
        },
        text_config={**language, "rope_parameters": rope}, **_qwen_tokens(text),
    )  # fmt: skip


def _qwen3(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> Qwen3VLConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    return Qwen3VLConfig(
        vision_config={
            "depth": 4, "hidden_size": 24, "intermediate_size": 48, "num_heads": 3,
            "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        text_config={**language, "head_dim": 8, "rope_parameters": rope}, **_qwen_tokens(text),
    )  # fmt: skip


def _qwen_tokens(text: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    return {name: text.convert_tokens_to_ids(token) for name, token in names.items()}
