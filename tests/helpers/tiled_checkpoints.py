"""Families whose checkpoints cut images into tiles: files, tokens and configs as on the hub."""

from typing import Any

from hub_family import HubFamily
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.smolvlm import processing_smolvlm

if processing_smolvlm.num2words is None:  # a package that writes the number of frames as a word
    processing_smolvlm.num2words = str

SIDE, PATCH = 32, 4  # of a tile and of a patch, in pixels
VISION = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3,
}  # fmt: skip
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def internvl(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    vision = InternVLVisionConfig(
        **VISION, image_size=[SIDE] * 2, patch_size=[PATCH] * 2, layer_scale_init_value=1.0
    )
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision, text_config={"model_type": "qwen2", **language},
            image_token_id=text.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=16,
        )
    )  # fmt: skip


def _split_sizes(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> dict[str, Any]:
    return {
        "vision_config": {**VISION, "image_size": SIDE, "patch_size": PATCH},
        "text_config": LlamaConfig(**language), "scale_factor": 2,
        "image_token_id": text.convert_tokens_to_ids("<image>"), "pad_token_id": text.pad_token_id,
    }  # fmt: skip


def smolvlm(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return SmolVLMForConditionalGeneration(SmolVLMConfig(**_split_sizes(text, language)))


def idefics3(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return Idefics3ForConditionalGeneration(Idefics3Config(**_split_sizes(text, language)))


def onevision(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(
                **VISION, image_size=SIDE, patch_size=PATCH, vision_use_head=False
            ),
            text_config={"model_type": "qwen2", **language}, image_grid_pinpoints=PINPOINTS,
            image_token_index=text.convert_tokens_to_ids("<image>"),
            video_token_index=text.convert_tokens_to_ids("<video>"),
        )
    )  # fmt: skip


def mistral3(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            vision_config=PixtralVisionConfig(**VISION, image_size=2 * SIDE, patch_size=PATCH),
            text_config=MistralConfig(**language, head_dim=8, sliding_window=None),
            image_token_index=text.convert_tokens_to_ids("[IMG]"), spatial_merge_size=2,
            vision_feature_layer=-1,
        )
    )  # fmt: skip


def pixtral(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=PixtralVisionConfig(**VISION, image_size=2 * SIDE, patch_size=PATCH),
            text_config=MistralConfig(**language, head_dim=8, sliding_window=None),
            image_token_index=text.convert_tokens_to_ids("[IMG]"), image_seq_length=1,
            vision_feature_layer=-1, vision_feature_select_strategy="full",
        )
    )  # fmt: skip


PINPOINTS = [[SIDE * rows, SIDE * columns] for rows in (1, 2) for columns in (1, 2)]
TILE = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
    "resample": 3, "size": {"height": SIDE, "width": SIDE}, **IMAGENET,
}  # fmt: skip
HALVED = {**TILE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SPLIT = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
    "do_image_splitting": True, "do_pad": True, "resample": 1, "size": {"longest_edge": 2 * SIDE},
    "max_image_size": {"longest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip
IDEFICS_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>",
    "<global-img>", "<video>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
)  # fmt: skip
IDEFICS_ROLES = {
    "bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|endoftext|>",
    "extra_special_tokens": {
        "fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>", "global_image_token": "<global-img>",
    },
}  # fmt: skip
IDEFICS_TEMPLATE = (
    "<|im_start|>{% for turn in messages %}{{ turn.role | capitalize + ':' }}"
    "{% for part in turn.content %}{% if part.type == 'image' %}<image>"
    "{% elif part.type == 'video' %}<video>{% else %}{{ ' ' + part.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
MISTRAL_TOKENS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>",
)  # fmt: skip
MISTRAL_ROLES = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
}  # fmt: skip
MISTRAL_TEMPLATE = (
    "<s>{% for turn in messages %}[INST]{% for part in turn.content %}"
    "{% if part.type == 'image' %}[IMG]{% else %}{{ part.text }}{% endif %}{% endfor %}[/INST]"
    "{% endfor %}"
)


def mistral_family(build: Any, unit: int) -> HubFamily:
    """A family with Pixtral's encoder, whose cells have ``unit`` x ``unit`` patches."""
    images = {
        "image_processor_type": "PixtralImageProcessor", "do_resize": True, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "resample": 3,
        "size": {"longest_edge": 2 * SIDE}, "patch_size": {"height": PATCH, "width": PATCH},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "PixtralProcessor",
    }  # fmt: skip
    processor = {
        "processor_class": "PixtralProcessor", "patch_size": PATCH, "spatial_merge_size": unit,
        "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]",
    }  # fmt: skip
    return HubFamily(build, MISTRAL_TOKENS, MISTRAL_ROLES, MISTRAL_TEMPLATE, images, processor)


TILED_CHECKPOINTS = {
    "mistral3": mistral_family(mistral3, 2),
    "pixtral": mistral_family(pixtral, 1),
    "onevision": HubFamily(
        onevision,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
        {
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
            "extra_special_tokens": {"image_token": "<image>", "video_token": "<video>"},
        },
        "{% for turn in messages %}{{ '<|im_start|>' + turn.role + ' ' }}"
        "{% for part in turn.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
        "{% for part in turn.content if part.type == 'video' %}{{ '<video>\n' }}{% endfor %}"
        "{% for part in turn.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {
            **HALVED, "image_processor_type": "LlavaOnevisionImageProcessor", "do_pad": True,
            "image_grid_pinpoints": PINPOINTS, "processor_class": "LlavaOnevisionProcessor",
        },
        {
            "processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 64,
            "vision_feature_select_strategy": "full", "image_token": "<image>",
            "video_token": "<video>", "vision_aspect_ratio": "anyres_max_9",
        },
        {**HALVED, "video_processor_type": "LlavaOnevisionVideoProcessor"},
    ),
    "idefics3": HubFamily(
        idefics3, IDEFICS_TOKENS, IDEFICS_ROLES, IDEFICS_TEMPLATE,
        {
            **SPLIT, "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
        },
        {"processor_class": "Idefics3Processor", "image_seq_len": 16},
    ),
    "smolvlm": HubFamily(
        smolvlm, IDEFICS_TOKENS, IDEFICS_ROLES, IDEFICS_TEMPLATE,
        {
            **SPLIT, "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor", "video_processor_type": "SmolVLMVideoProcessor",
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}},
        },
        {"processor_class": "SmolVLMProcessor", "image_seq_len": 16},
    ),
    "internvl": HubFamily(
        internvl,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>",
         "<video>"),
        {
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
            "extra_special_tokens": {
                "start_image_token": "<img>", "end_image_token": "</img>",
                "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
            },
        },
        "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' }}"
        "{% for part in turn.content %}{% if part.type == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
        "{% elif part.type == 'video' %}{{ '<video>\n' }}{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {
            **TILE, "image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False,
            "min_patches": 1, "max_patches": 4, "processor_class": "InternVLProcessor",
        },
        {"processor_class": "InternVLProcessor", "image_seq_length": 16},
        {**TILE, "video_processor_type": "InternVLVideoProcessor"},
    ),
}  # fmt: skip
