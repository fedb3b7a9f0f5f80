"""Sizes of a model's parts, read from its modules, for the closed forms of :mod:`mustdrop.cost`.

A part that those formulas do not cover raises an error with the name of its class. The error
concerns costs only: :class:`mustdrop.TokenDropper` does not need them. Knows no prompt.
"""

from dataclasses import replace

import torch
from torch import nn

from mustdrop.cost import DecoderShape, EncoderShape
from mustdrop.models import EncoderPart, ModelAdapter
from mustdrop.models.layer_matrices import (
    attention_and_mlp,
    experts_width,
    linears_of,
    macs_of,
    mlp_width,
    refuse_cost,
    require_counted,
)


def decoder_shape(adapter: ModelAdapter) -> DecoderShape:
    """Read the sizes of the decoder and its head.

    Raises:
        ValueError: If a part is not covered, such as experts, attention of another kind, or layers
            of several sizes.
    """
    model, text = adapter.model, adapter.model.config.text_config
    hidden, config = text.hidden_size, text.to_dict()
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.in_features != hidden:
        refuse_cost(head, "the head must be one matrix from the hidden size to the vocabulary")
    counted: list[nn.Module] = []
    shapes = set()
    for layer in adapter.layers:
        attention, projections, mlp, experts = attention_and_mlp(layer)
        width = attention.__dict__.get("head_dim") or 0
        query = width * (config.get("num_attention_heads") or 0)
        kv = width * (config.get("num_key_value_heads") or 0)
        if macs_of(projections) != 2 * hidden * (query + kv):
            refuse_cost(attention, "attention must have only query, key, value and output matrices")
        width = (
            mlp_width(mlp, hidden, layer)
            if not experts
            else experts_width(experts[0], experts[1], hidden)
        )
        shapes.add((query, kv, *width, len(experts[0].weight) if experts else 0))
        counted += [*projections, *mlp, *experts]
    require_counted(adapter.language_model, counted)
    if len(shapes) != 1:
        refuse_cost(adapter.layers[0], "all layers must have the same sizes")
    query, kv, ffn, matrices, choices = shapes.pop()
    return DecoderShape(
        hidden=hidden,
        query=query,
        kv=kv,
        ffn=ffn,
        vocab=head.out_features,
        bytes_per_value=torch.finfo(model.dtype).bits // 8,
        mlp_matrices=matrices,
        experts=choices,
    )


def encoder_shape(adapter: ModelAdapter) -> EncoderShape:
    """Read the sizes of the vision encoder and the projector.

    Raises:
        ValueError: If a part of them is not covered, or two encoders differ in size.
    """
    shapes = [_encoder_shape(adapter, encoder) for encoder in adapter.encoders]
    images, frames = shapes[0], shapes[-1]
    if replace(frames, extra_projected=images.extra_projected) != images:
        refuse_cost(adapter.encoders[-1].module, "it must be as large as the encoder of images")
    return replace(images, extra_of_frames=frames.extra_projected)


def _encoder_shape(adapter: ModelAdapter, encoder: EncoderPart) -> EncoderShape:
    """Sizes of one encoder and the projector."""
    tower, unit = encoder.module, adapter.facts.unit
    try:
        blocks = encoder.blocks
        (name,) = {_child_name(block, encoder.attention(block)) for block in blocks}
    except AttributeError as error:
        refuse_cost(
            tower, f"its blocks must have the same attribute names as those of CLIP ({error})"
        )
    counted: list[nn.Module] = []
    sizes = set()
    for block in blocks:
        attention, projections, mlp, _ = attention_and_mlp(block, name, encoder.element_wise)
        width = projections[0].in_features
        if macs_of(projections) != 4 * width**2:
            refuse_cost(attention, "an encoder's attention must have exactly four square matrices")
        sizes.add((width, *mlp_width(mlp, width, block)))
        counted += [*projections, *mlp]
    width, ffn, matrices = sizes.pop()
    if sizes:
        refuse_cost(blocks[0], "all blocks of an encoder must have the same sizes")
    hidden = adapter.model.config.text_config.hidden_size
    projection, projector = _projection(adapter.projector, width, unit, hidden)
    for part in encoder.added_projectors.values():
        macs, inside = _projection(part, width, unit, hidden)
        counted += inside
        if macs != projection:
            refuse_cost(part, "all modules that project a block's output must have the same sizes")
    kinds = (nn.Conv2d, nn.Conv3d)
    patches = [part for part in tower.modules() if isinstance(part, kinds)]
    if len(patches) != 1 or patches[0].kernel_size != patches[0].stride:
        refuse_cost(tower, "the patch embedding must be one convolution whose stride is its size")
    pooling = _pooling(tower, width, ffn)
    require_counted(tower, [*counted, *patches, *pooling, *projector, *encoder.element_wise])
    return EncoderShape(
        hidden=width,
        ffn=ffn,
        blocks=len(blocks),
        extra=int(encoder.has_cls),
        patch_values=patches[0].weight[0].numel(),
        projection=projection,
        extra_projected=int(adapter.keeps_cls(encoder)),
        pooled=bool(pooling),
        mlp_matrices=matrices,
        unit=unit,
        window=encoder.window,
        full_blocks=encoder.full_blocks,
        added_blocks=tuple(encoder.added_projectors),
        grid=adapter.encoder_grid,
    )


def _projection(
    projector: nn.Module, width: int, unit: int, hidden: int
) -> tuple[int, list[nn.Module]]:
    """Multiply-accumulates of a projector for one cell, and its counted modules.

    It gets the patches of a cell side by side, or, if its only matrix is a parameter, their mean.

    Raises:
        ValueError: If it does not apply one matrix after the other.
    """
    linears = linears_of(projector)
    counted: list[nn.Module] = [*linears]
    sizes = [(matrix.in_features, matrix.out_features) for matrix in linears]
    start = width * unit**2
    if not linears:
        matrices = [part for part in projector.parameters(recurse=False) if part.dim() == 2]
        counted, start = [projector], width
        sizes = [(matrix.shape[0], matrix.shape[1]) for matrix in matrices]
    require_counted(projector, counted)
    chain = [start, *(outer for _, outer in sizes)]
    if chain[:-1] != [inner for inner, _ in sizes] or chain[-1] != hidden:
        refuse_cost(projector, "the projector must apply one matrix after the other")
    return sum(inner * outer for inner, outer in sizes), counted


def _child_name(owner: nn.Module, child: nn.Module) -> str:
    return next(name for name, module in owner.named_children() if module is child)


def _pooling(tower: nn.Module, hidden: int, ffn: int) -> list[nn.Module]:
    """Parts of an attention-pooling head with one query per image; empty without such a head.

    Raises:
        ValueError: If the tower has another kind of pooling head.
    """
    kind = nn.MultiheadAttention
    attention = [part for part in tower.modules() if isinstance(part, kind)]
    if not attention:
        return []
    head = next(part for part in tower.modules() if {*attention} & {*part.children()})
    query = [tuple(parameter.shape) for parameter in head.parameters(recurse=False)]
    inside = linears_of(attention[0])
    mlp = [matrix for matrix in linears_of(head) if matrix not in inside]
    if (
        len(attention) > 1
        or query != [(1, 1, hidden)]
        or attention[0].embed_dim != hidden
        or mlp_width(mlp, hidden, head) != (ffn, 2)
    ):
        refuse_cost(head, "a pooling head must have one query, one attention and one MLP")
    return [head, *attention, *inside, *mlp]
