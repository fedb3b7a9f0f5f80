"""Everything that cannot work is refused here, with a message, before work starts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from mustdrop.models import ModelAdapter
from mustdrop.strategy import (
    DecodeStrategy,
    KeyTokenStrategy,
    ModelFacts,
    PrefillStrategy,
    VisionStrategy,
)

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")
# generate() options that would bypass or corrupt dropping, with the values that are harmless
GENERATE = {
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "prefill_chunk_size": (None,),
    "cache_implementation": (None, "dynamic"),
    "use_cache": (None, True),
    "assistant_model": (None,),
    "prompt_lookup_num_tokens": (None,),
    "assistant_early_exit": (None,),
    "compile_config": (None,),
    "inputs_embeds": (None,),
    "mm_encoder_outputs": (None,),
}


def compiled(model: nn.Module) -> None:
    """Raise where the model or a part of it is compiled.

    Raises:
        ValueError: With the part.
    """
    for name, module in model.named_modules():
        forward = getattr(module.__dict__.get("forward"), "__dict__", {})
        if (
            isinstance(module, torch._dynamo.OptimizedModule)
            or module._compiled_call_impl is not None
            or "_torchdynamo_orig_callable" in forward
        ):
            raise ValueError(
                f"{name or type(model).__name__} is compiled, and a compiled model ignores hooks "
                "silently; use the uncompiled one"
            )


def unfit_attention(adapter: ModelAdapter) -> None:
    """Raise where the model attends in a way that the engine cannot feed.

    Raises:
        ValueError: With the implementation found and those that work.
    """
    for part in (adapter.language_model, *adapter.encoders):
        found = part.config._attn_implementation
        if found not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention implementation {found!r} is not supported; use one of "
                f"{', '.join(IMPLEMENTATIONS)}"
            )


def unfit_stages(
    facts: ModelFacts,
    adapter: ModelAdapter,
    vision: VisionStrategy | None,
    key_tokens: KeyTokenStrategy | None,
    prefill: PrefillStrategy | None,
    decode: DecodeStrategy | None,
) -> None:
    """Raise where a strategy names a block or layer that the model does not have, or cannot use.

    Raises:
        ValueError: With what was expected and what came.
    """
    for stage in (vision, key_tokens, prefill, decode):
        if stage is not None:
            stage.check(facts)
    if vision is not None:
        last = facts.feature_block - (not vision.inside_block)
        if vision.inside_block and not vision.normalised:
            raise ValueError(
                f"{type(vision).__name__} acts inside blocks, where mixes must be averages"
            )
        if vision.proportional and any(is_flash(part) for part in _attentions(adapter)):
            raise ValueError(
                f"{type(vision).__name__} adds the sizes of tokens to the encoder's attention, "
                "which flash attention cannot; load the encoder with sdpa or eager"
            )
        for place in vision.at:
            if isinstance(place, int) and facts.block(place) > last:
                raise ValueError(
                    f"{type(vision).__name__} acts at block {facts.block(place)}, but features "
                    f"are read at block {facts.feature_block}: act earlier, or at 'features'"
                )
    if prefill is not None:
        first, last = adapter.first_drop_layer, facts.depth - 2
        for layer in prefill.layers:
            if not first <= layer <= last:
                raise ValueError(
                    f"{type(prefill).__name__} acts after layer {layer}; this model can drop after "
                    f"layers {first} to {last} (it has {facts.depth})"
                )


def _attentions(adapter: ModelAdapter) -> list[Any]:
    return [adapter.blocks(encoder)[0].self_attn for encoder in adapter.encoders]


def generate_options(model: PreTrainedModel, arguments: Mapping[str, Any]) -> None:
    """Raise on options of ``generate`` that dropping cannot follow.

    Raises:
        ValueError: With the option and its value.
    """
    given = arguments.get("generation_config")
    for name, harmless in GENERATE.items():
        value = arguments.get(name)
        for config in (given, model.generation_config):
            if value is None and config is not None and name in config.__dict__:
                value = config.__dict__[name]
        if not any(value is option or value == option for option in harmless):
            raise ValueError(
                f"generate({name}={value!r}) is not supported while tokens are dropped"
            )
    cache = arguments.get("past_key_values")
    if isinstance(cache, Cache) and cache.get_seq_length() > 0:
        raise ValueError(
            "generate(past_key_values=...) with a filled cache: a second turn on a compacted cache "
            "would read wrong positions; pass the whole conversation as one prompt"
        )


def forward_options(arguments: Mapping[str, Any], merges: bool) -> None:
    """Raise on arguments of the model's forward that dropping cannot follow.

    Raises:
        ValueError: With the argument.
    """
    if arguments.get("labels") is not None:
        raise ValueError("labels are not supported: dropped tokens have no logits to compare with")
    if isinstance(arguments.get("logits_to_keep"), torch.Tensor):
        raise ValueError(
            "logits_to_keep must count from the end; positions move when tokens are dropped"
        )
    if merges and isinstance(arguments.get("vision_feature_layer"), (list, tuple)):
        raise ValueError(
            "vision_feature_layer as a list: features before and after a reduction have other "
            f"lengths, got {arguments['vision_feature_layer']}"
        )
    pixels = arguments.get("pixel_values")
    if isinstance(pixels, torch.Tensor) and pixels.numel() == 0:
        raise ValueError(f"empty image: pixel_values has shape {tuple(pixels.shape)}")


def unfit_prefill(cache: Cache | None, attention_mask: Any, input_ids: Any) -> None:
    """Raise where a prefill comes in a form that dropping cannot follow.

    Raises:
        ValueError: With what was expected and what came.
    """
    if cache is None:
        raise ValueError("use_cache=False is not supported: later stages live in the KV cache")
    kinds = {type(layer) for layer in cache.layers}
    if cache.layer_class_to_replicate is not None:
        kinds.add(cache.layer_class_to_replicate)
    if kinds - {DynamicLayer} or cache.offloading:
        names = {kind.__name__ for kind in kinds - {DynamicLayer}}
        found = ", ".join(sorted(names)) or "offloaded layers"
        raise ValueError(
            f"only a plain DynamicCache can be compacted, got {found}; static, sliding, "
            "quantised and offloaded caches are not supported"
        )
    if attention_mask is not None and not (
        isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2
    ):
        shape = getattr(attention_mask, "shape", type(attention_mask).__name__)
        raise ValueError(f"attention_mask must be [batch, tokens] or None, got {shape}")
    if input_ids is None:
        raise ValueError("pass input_ids: vision slots cannot be found in inputs_embeds")


def not_a_stage(name: str, value: object, kind: type) -> None:
    """Raise where a stage is no strategy.

    Raises:
        TypeError: With the expected class and what came.
    """
    if value is not None and not isinstance(value, kind):
        hint, found = "", type(value).__name__
        if type(value).__name__ in ("DictConfig", "dict"):
            hint = "; build it first with hydra.utils.instantiate"
        elif isinstance(value, type):
            hint, found = "; pass an instance, not the class", f"the class {value.__name__}"
        raise TypeError(f"{name} must be a {kind.__name__} or None, got {found}{hint}")


def is_flash(module: Any) -> bool:
    """Whether the module attends with flash attention, which wants [batch, tokens] masks."""
    return "flash" in module.config._attn_implementation


def is_eager(module: Any) -> bool:
    """Whether the module adds its mask to the scores, in their dtype."""
    return module.config._attn_implementation == "eager"
