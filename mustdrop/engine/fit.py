"""Requirements on a model in which tokens are dropped; checked when a dropper is attached.

A decoder is checked by its structure: a part that is missing, or that would get another input than
the engine passes on, is refused with one sentence before any work starts.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mustdrop.engine.refuse import IMPLEMENTATIONS, is_flash
from mustdrop.engine.transformers_api import file_names, reads_eager
from mustdrop.models import ModelAdapter
from mustdrop.stages import Stages
from mustdrop.strategy import KeyTokenStrategy, Place, VisionStrategy


def unfit_model(adapter: ModelAdapter, stages: Stages) -> None:
    """Raise if a dropper cannot work on a model.

    Raises:
        ValueError: With the expected and the actual property of the model.
    """
    _compiled(adapter)
    _unfit_attention(adapter)
    _windowed(adapter)
    _unfit_decoder(adapter)
    if "compact" in (stages.positions, stages.vision_positions) or (
        stages.decode_positions != "continue"
    ):
        _moving_frequencies(adapter)
    if adapter.facts.coordinates and stages.decode_positions != "continue":
        raise ValueError(
            "decode_positions='cache_length' counts tokens, but the positions of "
            f"{type(adapter.language_model).__name__} are coordinates: use 'continue'"
        )
    _unfit_stages(adapter, stages)


def unfit_module(model: object) -> None:
    """Raise if an object is not a model, or if it is compiled as a whole.

    Raises:
        TypeError: If the object is not a model.
        ValueError: If it is compiled.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"expected a loaded model, got {model!r} ({type(model).__name__}); load it first, for "
            "instance by LlavaForConditionalGeneration.from_pretrained(...)"
        )
    if _is_compiled(model) or _has_compiled_forward(model):
        raise ValueError(
            f"{type(model).__name__} is compiled, and a compiled model ignores hooks silently; use "
            "the uncompiled one"
        )


def _compiled(adapter: ModelAdapter) -> None:
    """Raise if a part is compiled together with hooks, on itself or below it."""
    layers = list(adapter.layers)
    without_hooks = {part for layer in layers for part in layer.modules() if part is not layer}
    for name, module in adapter.model.named_modules():
        if module in without_hooks:
            continue
        # a layer's hooks run outside its forward
        in_forward = _has_compiled_forward(module) and module not in layers
        if _is_compiled(module) or in_forward:
            raise ValueError(
                f"{name} is compiled, and a compiled module ignores hooks silently; compile "
                "only the forward of decoder layers: layer.forward = torch.compile(layer.forward)"
            )


def _is_compiled(module: nn.Module) -> bool:
    wrapped = isinstance(module, torch._dynamo.OptimizedModule)
    return wrapped or module._compiled_call_impl is not None


def _has_compiled_forward(module: nn.Module) -> bool:
    forward = getattr(module.__dict__.get("forward"), "__dict__", {})
    return "_torchdynamo_orig_callable" in forward


def _unfit_attention(adapter: ModelAdapter) -> None:
    for part in (adapter.language_model, *(encoder.module for encoder in adapter.encoders)):
        implementation = part.config._attn_implementation
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention implementation {implementation!r} is not supported; use one of "
                f"{', '.join(IMPLEMENTATIONS)}"
            )
        if implementation == "eager" and not reads_eager():
            raise ValueError(
                "eager attention cannot be read with this version of transformers: load the model "
                "with attn_implementation='sdpa', or install transformers 5.2 or newer"
            )
    if not adapter.causal and is_flash(adapter.language_model):
        raise ValueError(
            f"{type(adapter.language_model).__name__} does not attend causally in its prompts, "
            "which flash attention cannot mask: load the model with attn_implementation='sdpa'"
        )


def _unfit_decoder(adapter: ModelAdapter) -> None:
    """Raise if the decoder does not have the structure that the engine supports."""
    text = adapter.language_model
    name = type(text).__name__
    for part, purpose in (("layers", "decoder layers"), ("rotary_emb", "rotary positions")):
        if not hasattr(text, part):
            raise ValueError(f"{name} is not supported: it has no {part!r} ({purpose})")
    for index, layer in enumerate(adapter.layers):
        for part in ("self_attn", "input_layernorm"):
            if not hasattr(layer, part):
                raise ValueError(
                    f"{name} is not supported: its layer {index}, a {type(layer).__name__}, has no "
                    f"{part!r}"
                )
        _unfit_layer(
            name, index, layer.self_attn, inspect.signature(type(layer).forward).parameters
        )
    if adapter.final_norm is None:
        raise ValueError(f"{name} is not supported: it has no norm after its layers")
    for field, value in vars(text.config).items():
        # the masked model and the views would use other embeddings than layer 0
        scales = field.startswith("embedding_") and field.endswith(("multiplier", "scale"))
        if scales and value != 1:
            raise ValueError(
                f"{name} is not supported: it scales its input embeddings ({field}={value})"
            )


def _unfit_layer(name: str, index: int, attention: Any, parameters: Any) -> None:
    for argument in ("attention_mask", "position_embeddings"):
        if argument not in parameters:
            raise ValueError(
                f"{name} is not supported: its layer {index} takes no {argument!r}, which must "
                "match the tokens that remain"
            )
    if "ALL_ATTENTION_FUNCTIONS" not in file_names(attention):
        raise ValueError(
            f"{name} is not supported: {type(attention).__name__} does not look its attention "
            "function up in transformers' table, so its queries and keys cannot be read"
        )
    softcap = getattr(attention, "attn_logit_softcapping", None)
    if softcap is not None or hasattr(attention, "sinks"):
        cause = "attention sinks" if softcap is None else f"scores capped at {softcap}"
        raise ValueError(
            f"{name} is not supported: {type(attention).__name__} has {cause}, which the "
            "attention rows of the strategies would lack"
        )


def _windowed(adapter: ModelAdapter) -> None:
    """Raise if layers use window attention; a full mask replaces it after a drop."""
    if adapter.window is not None:
        return
    config = adapter.language_model.config
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True) and not kinds:
        kinds = [] if getattr(config, "layer_types", None) else [f"sliding_window={window}"]
    if kinds:
        raise ValueError(
            f"{type(adapter.language_model).__name__} has layers that do not see the whole prompt "
            f"({', '.join(kinds)}); dropping is tested for full attention only, whatever the cache"
        )


def _moving_frequencies(adapter: ModelAdapter) -> None:
    """Raise if rotary frequencies depend on the largest position of a call."""
    parameters = getattr(adapter.language_model.config, "rope_parameters", None) or {}
    kinds = {parameters.get("rope_type")}
    kinds |= {part.get("rope_type") for part in parameters.values() if isinstance(part, dict)}
    moving = sorted({str(kind) for kind in kinds} & {"dynamic", "longrope"})
    if moving:
        raise ValueError(
            f"rotary embeddings of type {moving[0]!r} depend on the largest position of a call, so "
            "positions cannot be renumbered: use positions='original', "
            "vision_positions='original' and decode_positions='continue'"
        )


def _outside(stage: VisionStrategy | KeyTokenStrategy, reason: str) -> None:
    """Raise if a strategy acts inside the encoder, or reads attention there."""
    read: list[int] = list(stage.cls_attention_blocks)
    places: Sequence[Place] = ()
    if isinstance(stage, VisionStrategy):
        read += stage.query_key_blocks
        places = [location for location in stage.places if location != "projected"]
    if read or places:
        does = "reads attention in" if read else "acts in"
        raise ValueError(
            f"{type(stage).__name__} {does} the encoder, which runs whole here: {reason}; use a "
            "strategy that acts at 'projected' alone, or in the language model"
        )


def _unfit_stages(adapter: ModelAdapter, stages: Stages) -> None:
    """Raise if a strategy names a block or layer that the model lacks, or that cannot be used."""
    facts = replace(adapter.facts, received=stages.cls_attention == "received")
    vision, prefill = stages.vision, stages.prefill
    for stage in (vision, stages.key_tokens):
        if stage is not None and facts.whole_encoder is not None:
            _outside(stage, facts.whole_encoder)
    for stage in (vision, stages.key_tokens, prefill, stages.decode):
        if stage is not None:
            stage.check(facts)
    if vision is not None:
        last = facts.feature_block - (not vision.inside_block)
        if vision.inside_block and not vision.normalised:
            raise ValueError(
                f"{type(vision).__name__} acts inside blocks, where mixes must be averages"
            )
        attentions = [encoder.attention(encoder.blocks[0]) for encoder in adapter.encoders]
        if vision.proportional_attention and any(is_flash(attention) for attention in attentions):
            raise ValueError(
                f"{type(vision).__name__} adds the sizes of tokens to the encoder's attention, "
                "which flash attention does not support; load the encoder with sdpa or eager"
            )
        if vision.proportional_attention and any(part.packed for part in adapter.encoders):
            raise ValueError(
                f"{type(vision).__name__} adds the sizes of tokens to the encoder's attention, but "
                "the blocks of this encoder take no mask: set proportional_attention=False"
            )
        for location in vision.places:
            if isinstance(location, int) and facts.block(location) > last:
                raise ValueError(
                    f"{type(vision).__name__} acts at block {facts.block(location)}, but features "
                    f"are read at block {facts.feature_block}: act earlier, or at 'features'"
                )
    if prefill is not None:
        for layer in prefill.layers:
            if not -1 <= layer <= facts.depth - 2:
                raise ValueError(
                    f"{type(prefill).__name__} acts after layer {layer}; this model can drop after "
                    f"layers -1 to {facts.depth - 2} (it has {facts.depth})"
                )
