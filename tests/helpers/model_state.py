"""Everything that a dropper could change on a model and in transformers."""

from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def state(model: nn.Module) -> dict:
    """Everything that attaching could have changed on the model and in transformers."""
    hooks = {
        name: (
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
            sorted(k for k in module.__dict__ if not k.startswith("_")),
        )
        for name, module in model.named_modules()
    }
    return {"hooks": hooks, "attention": dict(ALL_ATTENTION_FUNCTIONS._local_mapping)}
