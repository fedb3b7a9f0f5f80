"""Vision encoders: where their parts are; one file per kind, chosen by the model type."""

from importlib import import_module

from mustdrop.models.encoders.base import EncoderPart, Part

# Model type of a vision config -> module and class.
ENCODERS = {
    "clip_vision_model": ("mustdrop.models.encoders.clip", "ClipEncoder"),
    "idefics3_vision": ("mustdrop.models.encoders.idefics", "IdeficsEncoder"),
    "internvl_vision": ("mustdrop.models.encoders.internvl", "InternVLEncoder"),
    "pixtral": ("mustdrop.models.encoders.pixtral", "PixtralEncoder"),
    "qwen2_5_vl_vision": ("mustdrop.models.encoders.qwen", "QwenEncoder"),
    "qwen2_vl_vision": ("mustdrop.models.encoders.qwen", "QwenEncoder"),
    "qwen3_vl_moe_vision": ("mustdrop.models.encoders.qwen", "Qwen3Encoder"),
    "qwen3_vl_vision": ("mustdrop.models.encoders.qwen", "Qwen3Encoder"),
    "smolvlm_vision": ("mustdrop.models.encoders.idefics", "IdeficsEncoder"),
    "siglip_vision_model": ("mustdrop.models.encoders.siglip", "SiglipEncoder"),
}

__all__ = ["ENCODERS", "EncoderPart", "encoder_for"]


def encoder_for(tower: Part, model_type: str, **facts: int) -> EncoderPart:
    """Describe a vision encoder.

    Args:
        tower: Module of the encoder.
        model_type: ``model_type`` of its config.
        facts: Attributes that depend on the whole model, such as ``unit``.

    Raises:
        ValueError: If this kind of encoder is not known.
    """
    if model_type not in ENCODERS:
        raise ValueError(
            f"the vision encoder must be one of {', '.join(sorted(ENCODERS))}, got {model_type}"
        )
    module, name = ENCODERS[model_type]
    # before transformers 5.6 the tower of LLaVA wraps the module that has embeddings and blocks
    part = getattr(tower, "vision_model", tower)
    return getattr(import_module(module), name)(part, **facts)
