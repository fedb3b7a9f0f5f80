"""LoRA: a trained difference of low rank for every linear layer. Knows no images.

    W' = W + scale * B A    with A [rank, inputs], B [outputs, rank] and B = 0 at the start

Source: LoRA, arXiv:2106.09685, Sec. 4.1.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

RANK = 16
SCALE = 2.0


class LoRALinear(nn.Module):
    """A frozen linear layer without bias, plus its trained difference.

    Args:
        frozen: Layer that is not trained.
        rank: Rank of the difference.
        draws: Generator of the initial weights.
    """

    def __init__(self, frozen: nn.Linear, rank: int, draws: torch.Generator):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        deviation = 1 / math.sqrt(frozen.in_features)
        self.a = nn.Parameter(deviation * torch.randn(rank, frozen.in_features, generator=draws))
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return self.frozen(hidden) + linear(linear(hidden, self.a), SCALE * self.b)


def add_lora(layers: nn.Module, rank: int = RANK, seed: int = 0) -> list[nn.Parameter]:
    """Replace each linear layer inside by a :class:`LoRALinear`; return the trained weights.

    Args:
        layers: Module whose linear layers get a difference.
        rank: Rank of the difference.
        seed: Seed of the initial weights.
    """
    draws = torch.Generator().manual_seed(seed)
    for _, parent, child, layer in list(_linear_layers(layers)):
        setattr(parent, child, LoRALinear(layer, rank, draws))
    return [parameter for parameter in layers.parameters() if parameter.requires_grad]


def lora_weights(layers: nn.Module) -> dict[str, Tensor]:
    """Trained weights by the layer's name with ``.a`` or ``.b`` behind."""
    return {
        f"{name}.{part}": getattr(module, part).detach()
        for name, module in layers.named_modules()
        if isinstance(module, LoRALinear)
        for part in ("a", "b")
    }


@torch.no_grad()
def load_lora(layers: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set the trained weights inside to those that :func:`lora_weights` gave.

    Raises:
        ValueError: If names or shapes differ.
    """
    current = lora_weights(layers)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(current.keys() | shapes.keys()):
        expected = tuple(current[name].shape) if name in current else None
        if expected != shapes.get(name):
            raise ValueError(
                f"LoRA weight {name} must have the shape {expected}, got {shapes.get(name)}"
            )
        current[name].copy_(weights[name])


@torch.no_grad()
def merge_lora(layers: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Add the differences to the plain linear layers inside, in float32.

    Raises:
        ValueError: If a difference has no layer, or a layer has no difference.
    """
    plain = {name: layer for name, _, _, layer in _linear_layers(layers)}
    trained = {name.rpartition(".")[0] for name in weights}
    if trained != plain.keys():
        differing = sorted(trained ^ plain.keys())
        raise ValueError(
            f"LoRA weights must be of the {len(plain)} linear layers, got {len(trained)}; the first"
            f" that differs is {differing[0]}"
        )
    for name, layer in plain.items():
        a, b = (weights[f"{name}.{part}"].float() for part in ("a", "b"))
        layer.weight += (SCALE * b @ a).to(layer.weight.dtype)


def _linear_layers(layers: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Name, parent, name in the parent, and layer of each linear layer."""
    for name, module in layers.named_modules():
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            yield name, layers.get_submodule(parent), child, module
