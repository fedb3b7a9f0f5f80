"""Model adapters: one per model family, loaded when a model of its class is attached."""

from importlib import import_module

from torch import nn

from mustdrop.models.base import ModelAdapter, VisualInput
from mustdrop.models.encoders import EncoderPart, Part

# Name of a model class of transformers -> module and name of its adapter.
ADAPTERS = {
    "Gemma3ForConditionalGeneration": ("mustdrop.models.gemma3", "Gemma3Adapter"),
    "Idefics3ForConditionalGeneration": ("mustdrop.models.idefics", "IdeficsAdapter"),
    "InternVLForConditionalGeneration": ("mustdrop.models.internvl", "InternVLAdapter"),
    "LlavaForConditionalGeneration": ("mustdrop.models.llava", "LlavaAdapter"),
    "LlavaOnevisionForConditionalGeneration": (
        "mustdrop.models.llava_onevision",
        "LlavaOnevisionAdapter",
    ),
    "LlavaNextForConditionalGeneration": ("mustdrop.models.llava_next", "LlavaNextAdapter"),
    "PaliGemmaForConditionalGeneration": ("mustdrop.models.paligemma", "PaliGemmaAdapter"),
    "Mistral3ForConditionalGeneration": ("mustdrop.models.pixtral", "PixtralAdapter"),
    "Qwen2VLForConditionalGeneration": ("mustdrop.models.qwen_vl", "QwenVLAdapter"),
    "Qwen2_5_VLForConditionalGeneration": ("mustdrop.models.qwen_vl", "QwenVLAdapter"),
    "Qwen3VLForConditionalGeneration": ("mustdrop.models.qwen3_vl", "Qwen3VLAdapter"),
    "Qwen3VLMoeForConditionalGeneration": ("mustdrop.models.qwen3_vl", "Qwen3VLAdapter"),
    "SmolVLMForConditionalGeneration": ("mustdrop.models.idefics", "IdeficsAdapter"),
    "VideoLlavaForConditionalGeneration": ("mustdrop.models.video_llava", "VideoLlavaAdapter"),
}
# The same for classes that serve several families: (class, model type of the encoder) -> adapter.
BY_ENCODER = {
    ("LlavaForConditionalGeneration", "pixtral"): ("mustdrop.models.pixtral", "PixtralAdapter"),
}

__all__ = ["ADAPTERS", "EncoderPart", "ModelAdapter", "Part", "VisualInput", "adapter_for"]


def adapter_for(model: nn.Module) -> ModelAdapter:
    """Create the adapter of a model; a PEFT model is unwrapped first.

    Raises:
        TypeError: If there is no adapter for the model's class.
    """
    unwrap = getattr(model, "get_base_model", None)  # of a PeftModel
    if unwrap is not None:
        model = unwrap()
    for ancestor in type(model).__mro__:
        if ancestor.__name__ in ADAPTERS and ancestor.__module__.startswith("transformers."):
            encoder = getattr(model.config, "vision_config", None)
            key = (ancestor.__name__, getattr(encoder, "model_type", ""))
            module, name = BY_ENCODER.get(key) or ADAPTERS[ancestor.__name__]
            return getattr(import_module(module), name)(model)
    raise TypeError(
        f"no adapter for {type(model).__name__}; supported classes: {', '.join(sorted(ADAPTERS))}"
    )
