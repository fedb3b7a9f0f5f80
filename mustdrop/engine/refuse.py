"""Refuses calls that dropping does not support, each with one sentence before work starts."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from mustdrop.engine.transformers_api import unfit_layers
from mustdrop.stages import Stages

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")
# settings of the checkpoint that a caller of the model's forward may change
FACTS = ("vision_feature_layer", "vision_feature_select_strategy")
PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos")


def forward_options(arguments: Mapping[str, Any], stages: Stages, config: PreTrainedConfig) -> None:
    """Raise on arguments of the model's forward that dropping does not support.

    Args:
        arguments: Arguments of the call, by name.
        stages: Strategies of the dropper.
        config: Configuration of the model, from which the dropper read its facts.

    Raises:
        ValueError: With the name of the argument.
    """
    if arguments.get("labels") is not None:
        raise ValueError(
            "labels are not supported: dropped tokens have no logits to compare with; "
            "mustdrop.scoring.loglikelihood scores given answers"
        )
    if isinstance(arguments.get("logits_to_keep"), torch.Tensor):
        raise ValueError("logits_to_keep must be a number of last tokens; a drop changes positions")
    for name in FACTS if stages.may_drop or stages.key_tokens is not None else ():
        value, configured = arguments.get(name), getattr(config, name, None)
        if value is not None and value != configured:
            raise ValueError(
                f"{name}={value!r} at the call differs from the model's own {configured!r}, which "
                f"the dropper uses: set model.config.{name} before you attach it"
            )
    for name in PIXELS:
        pixels = arguments.get(name)
        if isinstance(pixels, torch.Tensor) and pixels.numel() == 0:
            kind = "video" if name.endswith("videos") else "image"
            raise ValueError(f"empty {kind}: {name} has shape {tuple(pixels.shape)}")


def unfit_cache(cache: Cache) -> Cache:
    """Return the cache that a prefill fills, if it can be cut.

    Raises:
        ValueError: With the kind of cache that cannot be cut.
    """
    if kinds := unfit_layers(cache):
        raise ValueError(
            f"only a plain DynamicCache can be compacted, got {', '.join(kinds)}; static, sliding, "
            "quantised and offloaded caches are not supported"
        )
    return cache


def beyond_window(window: int | None, length: int) -> None:
    """Raise if a conversation is longer than what layers with window attention see.

    Args:
        window: Number of tokens that they see; None: there are no such layers.
        length: Number of tokens of the conversation so far.

    Raises:
        ValueError: With both numbers.
    """
    if window is not None and length > window:
        raise ValueError(
            f"a conversation may have at most {window} tokens, because some layers of this model "
            f"see no more, got {length}: show fewer or smaller images, or shorten the text"
        )


def unfit_inputs(input_ids: Any, arguments: Mapping[str, Any], coordinates: bool) -> None:
    """Raise if prompts have a form that dropping does not support.

    Args:
        input_ids: Tokens of the prompts.
        arguments: Arguments of the call, by name.
        coordinates: Whether positions may be coordinates, [axes, batch, tokens].

    Raises:
        ValueError: With the expected and the given form.
    """
    for name in ("attention_mask", "position_ids"):
        value = arguments.get(name)
        allowed = (2, 3) if coordinates and name == "position_ids" else (2,)
        if value is not None and not (isinstance(value, torch.Tensor) and value.dim() in allowed):
            shape = getattr(value, "shape", type(value).__name__)
            raise ValueError(f"{name} must be [batch, tokens] or None, got {shape}")
    mask = arguments.get("attention_mask")
    if input_ids is None:
        raise ValueError("pass input_ids: vision slots cannot be found in inputs_embeds")
    if mask is not None and mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must be as long as input_ids, got {tuple(mask.shape)} for "
            f"{tuple(input_ids.shape)}"
        )


def checkpointing(model: PreTrainedModel) -> None:
    """Raise if gradient checkpointing computes layers twice.

    Raises:
        ValueError: If gradient checkpointing is active.
    """
    if model.training and model.is_gradient_checkpointing:
        raise ValueError(
            "gradient checkpointing keeps no KV cache and computes layers twice, which dropping "
            "does not support: call model.gradient_checkpointing_disable() or model.eval()"
        )


def is_flash(module: Any) -> bool:
    """Whether the module uses flash attention, which takes [batch, tokens] masks."""
    return "flash" in module.config._attn_implementation


def is_eager(module: Any) -> bool:
    """Whether the module adds its mask to the scores, in their dtype."""
    return module.config._attn_implementation == "eager"
