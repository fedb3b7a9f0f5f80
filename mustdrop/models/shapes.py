"""Sizes of a model's parts, read from its modules, for the closed forms of :mod:`mustdrop.cost`.

A part that those formulas do not cover raises an error with the name of its class. The error
concerns costs only: :class:`mustdrop.TokenDropper` does not need them. Knows no prompt.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NoReturn

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
        attention, projections, mlp, experts = _attention_and_mlp(layer)
        width = attention.__dict__.get("head_dim") or 0
        query = width * (config.get("num_attention_heads") or 0)
        kv = width * (config.get("num_key_value_heads") or 0)
        if _macs(projections) != 2 * hidden * (query + kv):
            _refuse(attention, "attention must have only query, key, value and output matrices")
        width = _mlp(mlp, hidden, layer) if not experts else _width(*experts, hidden)
        shapes.add((query, kv, *width, len(experts[0].weight) if experts else 0))
        counted += [*projections, *mlp, *experts]
    _require_counted(adapter.language_model, counted)
    if len(shapes) != 1:
        _refuse(adapter.layers[0], "all layers must have the same sizes")
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
        _refuse(adapter.encoders[-1].module, "it must be as large as the encoder of images")
    return replace(images, extra_of_frames=frames.extra_projected)


def _encoder_shape(adapter: ModelAdapter, encoder: EncoderPart) -> EncoderShape:
    """Sizes of one encoder and the projector."""
    tower, unit = encoder.module, adapter.facts.unit
    try:
        blocks = encoder.blocks
        names = {_child_name(block, encoder.attention(block)) for block in blocks}
    except AttributeError as error:
        _refuse(tower, f"its blocks must have the same attribute names as those of CLIP ({error})")
    counted: list[nn.Module] = []
    sizes = set()
    for block in blocks:
        attention, projections, mlp, _ = _attention_and_mlp(block, *names)
        width = projections[0].in_features
        if _macs(projections) != 4 * width**2:
            _refuse(attention, "an encoder's attention must have exactly four square matrices")
        sizes.add((width, *_mlp(mlp, width, block)))
        counted += [*projections, *mlp]
    width, ffn, matrices = sizes.pop()
    if sizes:
        _refuse(blocks[0], "all blocks of an encoder must have the same sizes")
    hidden = adapter.model.config.text_config.hidden_size
    projection, projector = _projection(adapter.projector, width, unit, hidden)
    for part in encoder.added_projectors.values():
        macs, inside = _projection(part, width, unit, hidden)
        counted += inside
        if macs != projection:
            _refuse(part, "all modules that project a block's output must have the same sizes")
    kinds = (nn.Conv2d, nn.Conv3d)
    patches = [part for part in tower.modules() if isinstance(part, kinds)]
    if len(patches) != 1 or patches[0].kernel_size != patches[0].stride:
        _refuse(tower, "the patch embedding must be one convolution whose stride is its size")
    pooling = _pooling(tower, width, ffn)
    _require_counted(tower, [*counted, *patches, *pooling, *projector])
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
    )


def _projection(
    projector: nn.Module, width: int, unit: int, hidden: int
) -> tuple[int, list[nn.Module]]:
    """Multiply-accumulates of a projector for one cell, and its counted modules.

    It gets the patches of a cell side by side, or, if its only matrix is a parameter, their mean.

    Raises:
        ValueError: If it does not apply one matrix after the other.
    """
    linears = _linears(projector)
    counted: list[nn.Module] = [*linears]
    sizes = [(matrix.in_features, matrix.out_features) for matrix in linears]
    start = width * unit**2
    if not linears:
        matrices = [part for part in projector.parameters(recurse=False) if part.dim() == 2]
        counted, start = [projector], width
        sizes = [(matrix.shape[0], matrix.shape[1]) for matrix in matrices]
    _require_counted(projector, counted)
    chain = [start, *(outer for _, outer in sizes)]
    if chain[:-1] != [inner for inner, _ in sizes] or chain[-1] != hidden:
        _refuse(projector, "the projector must apply one matrix after the other")
    return sum(inner * outer for inner, outer in sizes), counted


def _child_name(owner: nn.Module, child: nn.Module) -> str:
    return next(name for name, module in owner.named_children() if module is child)


def _linears(part: nn.Module) -> list[nn.Linear]:
    return [module for module in part.modules() if isinstance(module, nn.Linear)]


def _macs(matrices: Sequence[nn.Linear]) -> int:
    """Multiply-accumulates of one token, from the features, as packed weights have other shapes."""
    return sum(matrix.in_features * matrix.out_features for matrix in matrices)


def _attention_and_mlp(
    layer: nn.Module, name: str = "self_attn"
) -> tuple[nn.Module, list[nn.Linear], list[nn.Linear], list[Any]]:
    """A layer's attention module, the attention's matrices, the MLP's, and router and experts.

    Raises:
        ValueError: If the layer has no attention of this name, or weights in other parts.
    """
    parts = dict(layer.named_children())
    if name not in parts:
        _refuse(layer, f"a layer must have an attention module called {name}")
    experts = _router_and_experts(layer)
    _require_counted(layer, [*_linears(layer), *experts])
    attention = parts.pop(name)
    projections = _linears(attention)
    mlp = [matrix for part in parts.values() for matrix in _linears(part)]
    for matrices in (projections, mlp):
        owners = [part for part in layer.modules() if {*matrices} & {*part.children()}]
        if len(owners) > 1:
            _refuse(owners[1], "a layer must have one attention and one MLP, for every token")
    if experts and mlp:
        _refuse(layer, "a layer must have experts or an MLP for all tokens, not both")
    return attention, projections, mlp, experts


def _router_and_experts(layer: nn.Module) -> list[Any]:
    """Router of a layer and its experts, whose weights are stacked; empty without experts."""
    for part in layer.modules():
        children = dict(part.named_children())
        if {"gate", "experts"} <= children.keys():
            router, experts = children["gate"], children["experts"]
            weights = [name for name, _ in experts.named_parameters()]
            if hasattr(router, "top_k") and weights == ["gate_up_proj", "down_proj"]:
                return [router, experts]
    return []


def _width(router: Any, experts: Any, hidden: int) -> tuple[int, int]:
    """Inner width of the experts that compute a token, and the number of matrices of each.

    Raises:
        ValueError: If an expert is no MLP of three matrices.
    """
    choices, width = experts.down_proj.shape[0], experts.down_proj.shape[2]
    expected = (choices, 2 * width, hidden), (choices, hidden, width), (choices, hidden)
    if (experts.gate_up_proj.shape, experts.down_proj.shape, router.weight.shape) != expected:
        _refuse(experts, "an expert must be an MLP with a gate, and a router one matrix")
    return router.top_k * width, 3


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
