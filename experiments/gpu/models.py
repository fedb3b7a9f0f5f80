"""The models that are timed: full or tiny sizes of three families, one in memory at a time."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig

from experiments.gpu.methods import TimedMethods
from experiments.gpu.runner import NotHere
from mustdrop.models import adapter_for
from mustdrop.profiling.device import Device
from mustdrop.profiling.measure import Arm, BatchBench
from mustdrop.profiling.random_models import build_random
from mustdrop.profiling.random_prompts import RandomPrompts, usual_size
from mustdrop.profiling.sizes import CONFIGS

GIB = 2**30
USABLE = 0.95  # share of the device's memory; the rest is for its own libraries
TINY_PICTURE = (168, 168)  # pixels; with the tiny sizes 12 x 12 patches in each family
TINY_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "layer_types": None,
}  # fmt: skip
TINY_CLIP = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3,
    "image_size": 84,
}  # fmt: skip
TINY_QWEN = {
    "hidden_size": 32, "intermediate_size": 48, "depth": 4, "num_heads": 2, "out_hidden_size": 32,
    "fullatt_block_indexes": [1, 3],
}  # fmt: skip


def config_of(name: str, tiny: bool) -> PreTrainedConfig:
    """Config of a model by its name in conf/model; a tiny one has the same structure."""
    config = CONFIGS[name]()
    if not tiny:
        return config
    given = config.to_dict()
    text, vision = given["text_config"], given["vision_config"]
    text |= {key: value for key, value in TINY_TEXT.items() if key in text}
    if config.model_type == "qwen2_5_vl":
        vision |= TINY_QWEN
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [1, 1, 2]}
    else:
        vision |= TINY_CLIP
    if config.model_type == "llava_next":
        given["image_grid_pinpoints"] = [
            [side // 4 for side in sides] for sides in given["image_grid_pinpoints"]
        ]
    return type(config).from_dict(given)


def weights_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """About the bytes of a model's weights, from the sizes of its decoder and its embeddings."""
    text: Any = config.get_text_config()
    heads = text.num_key_value_heads / text.num_attention_heads
    layer = text.hidden_size * ((2 + 2 * heads) * text.hidden_size + 3 * text.intermediate_size)
    return round(
        itemsize * (layer * text.num_hidden_layers + 2 * text.vocab_size * text.hidden_size)
    )


def work_bytes(config: PreTrainedConfig, tokens: int, itemsize: int) -> int:
    """About the bytes that a prefill of so many tokens needs: its KV cache and one layer's states.

    Args:
        config: Config of the model.
        tokens: Number of tokens of all prompts.
        itemsize: Bytes of a number.
    """
    text: Any = config.get_text_config()
    width = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    cache = 2 * text.num_hidden_layers * width
    states = 8 * text.hidden_size + 3 * text.intermediate_size
    return itemsize * tokens * (cache + states)


def require_room(device: Device, needed: int, purpose: str) -> None:
    """Check that the device is large enough.

    Raises:
        NotHere: If it is not.
    """
    room = round(USABLE * device.total_memory())
    if needed > room:
        raise NotHere(
            f"{purpose} needs about {needed / GIB:.0f} GiB, and the device has {room / GIB:.0f}"
        )


@dataclass(eq=False)
class TimedModel:
    """A model, its batches, and the arms that are timed on them.

    Attributes:
        name: Name of the model in conf/model.
        device: Device to measure on.
        model: The model.
        size: Pixels of a picture as (height, width).
        benches: Batch size -> measurements of a batch.
        methods: Methods at their budgets.
        arms: (batch size, name) -> method arm and reference arm, once they were counted.
    """

    name: str
    device: Device
    model: Any
    size: tuple[int, int]
    benches: dict[int, BatchBench] = field(default_factory=dict)
    arms: dict[tuple[int, str], tuple[Arm, Arm]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.methods = TimedMethods(self.model, RandomPrompts(self.model, 1, self.size).inputs(1))

    def bench(self, batch: int) -> BatchBench:
        """Measurements of a batch of equal prompts.

        Raises:
            NotHere: If the device is too small for the batch.
        """
        if batch not in self.benches:
            inputs = RandomPrompts(self.model, 1, self.size).inputs(batch)
            tokens, itemsize = inputs["input_ids"].numel(), self.model.dtype.itemsize
            weights = sum(weight.nbytes for weight in self.model.parameters())
            needed = weights + work_bytes(self.model.config, tokens, itemsize)
            require_room(
                self.device, needed, f"{self.name} with {batch} prompts of {tokens} tokens"
            )
            self.benches[batch] = BatchBench(self.device, self.model, inputs)
        return self.benches[batch]

    def describe(self) -> dict[str, Any]:
        """Describe the model for the record."""
        adapter = adapter_for(self.model)
        return {
            "model": self.name, "dtype": str(self.model.dtype).removeprefix("torch."),
            "weights_bytes": sum(weight.nbytes for weight in self.model.parameters()),
            "layers": adapter.facts.depth, "vision_tokens": self.methods.cells,
            "attention": adapter.language_model.config._attn_implementation,
        }  # fmt: skip


class TimedModels:
    """The model in memory; another one takes its place.

    Args:
        device: Device to build on.
        tiny: Whether tiny sizes are built.
    """

    def __init__(self, device: Device, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.present: TimedModel | None = None

    def get(self, name: str) -> TimedModel:
        """Return a model, built if it is not the present one.

        Raises:
            NotHere: If the device is too small for its weights.
        """
        if self.present is None or self.present.name != name:
            self.present = None
            self.device.free()
            dtype, config = torch.bfloat16, config_of(name, self.tiny)
            require_room(self.device, weights_bytes(config, dtype.itemsize), name)
            model = build_random(config, self.device.name, dtype)
            size = TINY_PICTURE if self.tiny else usual_size(config)
            self.present = TimedModel(name, self.device, model, size)
        return self.present
