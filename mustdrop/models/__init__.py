"""Model adapters: one per model family, and the table that maps model classes to adapters."""

from torch import nn
from transformers import LlavaForConditionalGeneration

from mustdrop.models.base import OFF_GRID, ModelAdapter, Part
from mustdrop.models.llava import LlavaAdapter

ADAPTERS: dict[type, type[ModelAdapter]] = {LlavaForConditionalGeneration: LlavaAdapter}

__all__ = ["ADAPTERS", "OFF_GRID", "ModelAdapter", "Part", "adapter_for"]


def adapter_for(model: nn.Module) -> ModelAdapter:
    """Create the adapter of a model; a PEFT model is unwrapped first.

    Raises:
        TypeError: If there is no adapter for the model's class.
    """
    unwrap = getattr(model, "get_base_model", None)  # of a PeftModel
    if unwrap is not None:
        model = unwrap()
    for family, adapter in ADAPTERS.items():
        if isinstance(model, family):
            return adapter(model)
    known = ", ".join(sorted(family.__name__ for family in ADAPTERS))
    raise TypeError(f"no adapter for {type(model).__name__}; supported classes: {known}")
