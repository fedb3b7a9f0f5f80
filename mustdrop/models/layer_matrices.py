"""Matrices of a layer or block: attention, MLP, experts. What has no closed form is refused.

Knows no model and no prompt.
"""

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from torch import nn


def linears_of(part: nn.Module) -> list[nn.Linear]:
    """All matrices of a part."""
    return [module for module in part.modules() if isinstance(module, nn.Linear)]


def macs_of(matrices: Sequence[nn.Linear]) -> int:
    """Multiply-accumulates of one token, from the features, as packed weights have other shapes."""
    return sum(matrix.in_features * matrix.out_features for matrix in matrices)


def attention_and_mlp(
    layer: nn.Module, name: str = "self_attn", element_wise: Collection[nn.Module] = ()
) -> tuple[nn.Module, list[nn.Linear], list[nn.Linear], list[Any]]:
    """A layer's attention module, the attention's matrices, the MLP's, and router and experts.

    Args:
        layer: Layer of a decoder or block of an encoder.
        name: Name of its attention module.
        element_wise: Modules with parameters that are used element by element.

    Raises:
        ValueError: If the layer has no attention of this name, or weights in other parts.
    """
    parts = dict(layer.named_children())
    if name not in parts:
        refuse_cost(layer, f"a layer must have an attention module called {name}")
    experts = _router_and_experts(layer)
    require_counted(layer, [*linears_of(layer), *experts, *element_wise])
    attention = parts.pop(name)
    projections = linears_of(attention)
    mlp = [matrix for part in parts.values() for matrix in linears_of(part)]
    for matrices in (projections, mlp):
        owners = [part for part in layer.modules() if {*matrices} & {*part.children()}]
        if len(owners) > 1:
            refuse_cost(owners[1], "a layer must have one attention and one MLP, for every token")
    if experts and mlp:
        refuse_cost(layer, "a layer must have experts or an MLP for all tokens, not both")
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


def experts_width(router: Any, experts: Any, hidden: int) -> tuple[int, int]:
    """Inner width of the experts that compute a token, and the number of matrices of each.

    Raises:
        ValueError: If an expert is no MLP of three matrices.
    """
    choices, width = experts.down_proj.shape[0], experts.down_proj.shape[2]
    expected = (choices, 2 * width, hidden), (choices, hidden, width), (choices, hidden)
    if (experts.gate_up_proj.shape, experts.down_proj.shape, router.weight.shape) != expected:
        refuse_cost(experts, "an expert must be an MLP with a gate, and a router one matrix")
    return router.top_k * width, 3


def mlp_width(matrices: Sequence[nn.Linear], hidden: int, owner: nn.Module) -> tuple[int, int]:
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
    refuse_cost(owner, "an MLP must have two matrices, or three with a gate")


def require_counted(part: nn.Module, counted: Collection[nn.Module]) -> None:
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
            refuse_cost(module, "it has weights whose cost cannot be counted")


def refuse_cost(part: object, reason: str) -> NoReturn:
    """Raise the error that the costs of a part are not covered."""
    raise ValueError(
        f"the costs of {type(part).__name__} have no closed form here: {reason}; so a run cannot "
        "record its costs (TokenDropper works without them)"
    )
