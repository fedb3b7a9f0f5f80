"""Models with random weights, built on the device that they run on. Knows no prompts.

Weights are drawn so that queries times keys have about unit variance: attention then differs by
token, as it does in a trained model. Time does not depend on the values of weights.
"""

from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig


def build_random(
    config: PreTrainedConfig, device: str, dtype: torch.dtype, attention: str = "sdpa"
) -> Any:
    """Build a model with random weights directly on the device.

    Raises:
        ValueError: If the attention needs a package that is not installed.
    """
    torch.manual_seed(0)  # for the weights that are not drawn below
    try:
        with torch.device(device):
            model = AutoModelForImageTextToText.from_config(
                config, dtype=dtype, attn_implementation=attention
            ).eval()
    except ImportError as error:
        raise ValueError(f"model.attention={attention}: {error}") from error
    draw_weights(model, device)
    model.generation_config.eos_token_id = None  # no answer ends early
    model.generation_config.pad_token_id = 0
    return model


def draw_weights(model: Any, device: str) -> None:
    """Draw all matrices of a model.

    Raises:
        ValueError: If a weight has another dtype than the model.
    """
    generator = torch.Generator(device).manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dtype != model.dtype:
            raise ValueError(f"{name} must be {model.dtype}, got {weight.dtype}")
        if weight.dim() < 2:
            continue
        gain = 1.5 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
        spread = 1.0 if "embed" in name else gain / weight[0].numel() ** 0.5
        weight.data.normal_(0, spread, generator=generator)


def with_depth(config: PreTrainedConfig, depth: int | None) -> PreTrainedConfig:
    """The config with the first decoder layers only; None: all of them.

    Raises:
        ValueError: If the model has fewer layers.
    """
    text: Any = config.get_text_config()
    if depth is None:
        return config
    if not 2 <= depth <= text.num_hidden_layers:
        raise ValueError(f"depth must be in [2, {text.num_hidden_layers}] layers, got {depth}")
    text.num_hidden_layers = depth
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:depth]
    return config
