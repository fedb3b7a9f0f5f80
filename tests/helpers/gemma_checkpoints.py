"""Checkpoints of Gemma 3 and PaliGemma: files, tokens and configs as on the hub."""

from typing import Any

from hub_family import HubFamily
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SIDE, GEMMA3_SIDE, PATCH = 24, 32, 4  # of an image and of a patch, in pixels
SPECIAL = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<image>", "<start_of_turn>", "<end_of_turn>",
    "<start_of_image>", "<end_of_image>", "<image_soft_token>",
)  # fmt: skip
GEMMA3_TOKENS = {
    "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}  # fmt: skip
ROLES = {
    "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
}  # fmt: skip
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
SIGLIP_IMAGES = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 2,
    "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip


def gemma3(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    soft, start, end = (text.convert_tokens_to_ids(name) for name in GEMMA3_TOKENS.values())
    config = Gemma3Config(
        vision_config=_siglip(GEMMA3_SIDE), mm_tokens_per_image=16,
        text_config={**language, "head_dim": 8, "sliding_window": 1024, "query_pre_attn_scalar": 8},
        image_token_index=soft, boi_token_index=start, eoi_token_index=end,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


def paligemma(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    # its processor adds tokens for places and segments
    language = {**language, "vocab_size": language["vocab_size"] + 1152}
    config = PaliGemmaConfig(
        vision_config=_siglip(SIDE, projection_dim=32), projection_dim=32,
        image_token_index=text.convert_tokens_to_ids("<image>"),
        text_config={**language, "model_type": "gemma", "head_dim": 8},
    )  # fmt: skip
    return PaliGemmaForConditionalGeneration(config)


def _siglip(side: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": side, "patch_size": PATCH,
        "vision_use_head": False, **more,
    }  # fmt: skip


GEMMA_CHECKPOINTS = {
    "gemma3": HubFamily(
        gemma3, SPECIAL, {**ROLES, "extra_special_tokens": GEMMA3_TOKENS}, GEMMA3,
        images={
            **SIGLIP_IMAGES, "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 16,
            "size": {"height": GEMMA3_SIDE, "width": GEMMA3_SIDE}, "do_pan_and_scan": None,
            "processor_class": "Gemma3Processor",
        },
        processor={"image_seq_length": 16, "processor_class": "Gemma3Processor"}, begin="<bos>",
    ),
    "paligemma": HubFamily(
        paligemma, SPECIAL, {**ROLES, "extra_special_tokens": {}}, PALIGEMMA,
        images={
            **SIGLIP_IMAGES, "image_processor_type": "SiglipImageProcessor", "image_seq_length": 36,
            "size": {"height": SIDE, "width": SIDE}, "processor_class": "PaliGemmaProcessor",
        },
        processor={}, begin="<bos>",
    ),
}  # fmt: skip
