"""Sizes of a model's parts, read from its modules, for the closed forms of :mod:`mustdrop.cost`.

A part that those formulas do not cover raises an error with the name of its class. The error
concerns costs only: :class:`mustdrop.TokenDropper` does not need them. Knows no prompt.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from mustdrop.cost import DecoderShape, EncoderShape
from mustdrop.models import EncoderPart, ModelAdapter


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
        _refuse(head, "the head must be one matrix from the hidden size to the vocabulary")
    counted: list[nn.Module] = []
    shapes = set()
    for layer in adapter.layers:
        attention, projections, mlp = _attention_and_mlp(layer)
        width = attention.__dict__.get("head_dim") or 0
        query = width * (config.get("num_attention_heads") or 0)
        kv = width * (config.get("num_key_value_heads") or 0)
        if _macs(projections) != 2 * hidden * (query + kv):
            _refuse(attention, "attention must have only query, key, value and output matrices")
        shapes.add((query, kv, *_mlp(mlp, hidden, layer)))
        counted += [*projections, *mlp]
    _require_counted(adapter.language_model, counted)
    if len(shapes) != 1:
        _refuse(adapter.layers[0], "all layers must have the same sizes")
    query, kv, ffn, matrices = shapes.pop()
    return DecoderShape(
        hidden=hidden,
        query=query,
        kv=kv,
        ffn=ffn,
        vocab=head.out_features,
        bytes_per_value=torch.finfo(model.dtype).bits // 8,
        mlp_matrices=matrices,
    )


def encoder_shape(adapter: ModelAdapter) -> EncoderShape:
    """Read the sizes of the vision encoder and the projector.

    Raises:
        ValueError: If a part of them is not covered, or two encoders differ in size.
    """
    shapes = [_encoder_shape(adapter, encoder) for encoder in adapter.encoders]
    images, frames = shapes[0], shapes[-1]
    if replace(frames, extra_projected=images.extra_projected) != images:
        _refuse(adapter.encoders[-1].module, "it must be as large as the encoder of images")
    return replace(images, extra_of_frames=frames.extra_projected)


def _encoder_shape(adapter: ModelAdapter, encoder: EncoderPart) -> EncoderShape:
    """Sizes of one encoder and the projector."""
    config = adapter.model.config
    tower, projector = encoder.module, _linears(adapter.projector)
    try:
        blocks = encoder.blocks
        (name,) = {_child_name(block, encoder.attention(block)) for block in blocks}
    except AttributeError as error:
        _refuse(tower, f"its blocks must have the same attribute names as those of CLIP ({error})")
    counted: list[nn.Module] = [*projector]
    sizes = set()
    for block in blocks:
        attention, projections, mlp = _attention_and_mlp(block, name, encoder.element_wise)
        width = projections[0].in_features
        if _macs(projections) != 4 * width**2:
            _refuse(attention, "an encoder's attention must have exactly four square matrices")
        sizes.add((width, *_mlp(mlp, width, block)))
        counted += [*projections, *mlp]
    width, ffn, matrices = sizes.pop()
    if sizes:
        _refuse(blocks[0], "all blocks of an encoder must have the same sizes")
    kinds = (nn.Conv2d, nn.Conv3d)
    patches = [part for part in tower.modules() if isinstance(part, kinds)]
    if len(patches) != 1 or patches[0].kernel_size != patches[0].stride:
        _refuse(tower, "the patch embedding must be one convolution whose stride is its size")
    pooling = _pooling(tower, width, ffn)
    _require_counted(tower, [*counted, *patches, *pooling, *encoder.element_wise])
    _require_counted(adapter.projector, projector)
    chain = [width * encoder.unit**2, *(matrix.out_features for matrix in projector)]
    if chain[:-1] != [matrix.in_features for matrix in projector] or (
        chain[-1] != config.text_config.hidden_size
    ):
        _refuse(adapter.projector, "the projector must apply one matrix after the other")
    return EncoderShape(
        hidden=width,
        ffn=ffn,
        blocks=len(blocks),
        extra=int(encoder.has_cls),
        patch_values=patches[0].weight[0].numel(),
        projection=_macs(projector),
        extra_projected=int(adapter.keeps_cls(encoder)),
        pooled=bool(pooling),
        mlp_matrices=matrices,
        unit=encoder.unit,
        window=encoder.window,
        full_blocks=encoder.full_blocks,
        grid=adapter.encoder_grid,
    )


def _child_name(owner: nn.Module, child: nn.Module) -> str:
    return next(name for name, module in owner.named_children() if module is child)


def _linears(part: nn.Module) -> list[nn.Linear]:
    return [module for module in part.modules() if isinstance(module, nn.Linear)]


def _macs(matrices: Sequence[nn.Linear]) -> int:
    """Multiply-accumulates of one token, from the features, as packed weights have other shapes."""
    return sum(matrix.in_features * matrix.out_features for matrix in matrices)


def _attention_and_mlp(
    layer: nn.Module, name: str = "self_attn", element_wise: Collection[nn.Module] = ()
) -> tuple[nn.Module, list[nn.Linear], list[nn.Linear]]:
    """A layer's attention module, the attention's matrices, and the MLP's matrices.

    Raises:
        ValueError: If the layer has no attention of this name, or weights in other parts, such as
            experts.
    """
    parts = dict(layer.named_children())
    if name not in parts:
        _refuse(layer, f"a layer must have an attention module called {name}")
    _require_counted(layer, [*_linears(layer), *element_wise])
    attention = parts.pop(name)
    projections = _linears(attention)
    mlp = [matrix for part in parts.values() for matrix in _linears(part)]
    for matrices in (projections, mlp):
        owners = [part for part in layer.modules() if {*matrices} & {*part.children()}]
        if len(owners) > 1:
            _refuse(owners[1], "a layer must have one attention and one MLP, for every token")
    return attention, projections, mlp


def _mlp(matrices: Sequence[nn.Linear], hidden: int, owner: nn.Module) -> tuple[int, int]:
    """Inner width of an MLP, and its number of hidden x inner matrices; a fused gate counts as two.

    Raises:
        ValueError: If the MLP does not have two or three such matrices.
    """
    for down in matrices:
        ffn, up = down.in_features, [matrix for matrix in matrices if matrix is not down]
        sizes = [matrix.out_features for matrix in up]
        fits = down.out_features == hidden and all(m.in_features == hidden for m in up)
        if fits and sizes in ([ffn], [ffn, ffn], [2 * ffn]):
            return ffn, 1 + sum(sizes) // ffn
    _refuse(owner, "an MLP must have two matrices, or three with a gate")


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
    inside = _linears(attention[0])
    mlp = [matrix for matrix in _linears(head) if matrix not in inside]
    if (
        len(attention) > 1
        or query != [(1, 1, hidden)]
        or attention[0].embed_dim != hidden
        or _mlp(mlp, hidden, head) != (ffn, 2)
    ):
        _refuse(head, "a pooling head must have one query, one attention and one MLP")
    return [head, *attention, *inside, *mlp]


def _require_counted(part: nn.Module, counted: Collection[nn.Module]) -> None:
    """Raise if a part holds weights that are neither counted nor used element by element.

    Norms, activations, embeddings, and a [CLS] next to the patch embedding are used element by
    element. Any other vector of a module with children is refused, as its use is unknown.
    """
    known = {*counted}
    for module in part.modules():
        direct = list(module.parameters(recurse=False))
        if not direct or module in known or isinstance(module, nn.Embedding):
            continue
        children = list(module.children())
        vectors = all(parameter.dim() < 2 for parameter in direct)
        if children:
            by_element = vectors and any(isinstance(child, nn.Conv2d) for child in children)
        else:
            by_element = vectors or type(module).__name__.endswith("Norm")
        if not by_element:
            _refuse(module, "it has weights whose cost cannot be counted")


def _refuse(part: object, reason: str) -> NoReturn:
    raise ValueError(
        f"the costs of {type(part).__name__} have no closed form here: {reason}; so a run cannot "
        "record its costs (TokenDropper works without them)"
    )
