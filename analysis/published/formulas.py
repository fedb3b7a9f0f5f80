"""The sums behind printed claims: percent saved, gains, means, and costs of a count of tokens.

Costs are those of a Vicuna of 7 billion weights in float16, the paper's language model, of vision
tokens alone. Knows nothing about claims and tables.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from mustdrop.cost import PAPER_MB_PER_TOKEN, DecoderShape, flops, sparsevlm_macs

LAYERS = 32
SHAPE = DecoderShape(hidden=4096, query=4096, kv=4096, ffn=11008, vocab=32064)
Values = Sequence[float]


def macs_two_matrices(tokens_per_layer: Sequence[float], shape: DecoderShape) -> float:
    """Multiply-accumulates with an MLP of two matrices: sum of 4 n d^2 + 2 n^2 d + 2 n d m.

    Llama's MLP has three, so that this is too few by n d m a layer.

    Source: FastV, arXiv:2403.06764, Sec. 4.1; PyramidDrop and DivPrune count the same.
    """
    d, m = shape.hidden, shape.ffn
    return sum(4 * n * d**2 + 2 * n**2 * d + 2 * n * d * m for n in tokens_per_layer)


def _saved(values: Values) -> float:
    return 100 * (1 - values[1] / values[0])


def _gained(values: Values) -> float:
    return 100 * (values[1] / values[0] - 1)


def _halves(values: Values) -> Values:
    """The means of the first and of the second half."""
    middle = len(values) // 2
    return fmean(values[:middle]), fmean(values[middle:])


def _even(values: Values) -> list[int]:
    return [int(values[0])] * LAYERS


# From the values of a claim's cells, in their order.
OF_CELLS: Mapping[str, Callable[[Values], float]] = {
    "saved": _saved,
    "gained": _gained,
    "share": lambda values: 100 * values[1] / values[0],
    "less": lambda values: values[0] - values[1],
    "more": lambda values: values[1] - values[0],
    "above": lambda values: float(values[0] > values[1]),
    "saved_of": lambda values: 100 * (values[1] - values[2]) / values[0],
    "mean": fmean,
    "mean_more": lambda values: _halves(values)[1] - _halves(values)[0],
    "mean_gained": lambda values: _gained(_halves(values)),
    "tera_macs": lambda values: sparsevlm_macs(_even(values), SHAPE) / 1e12,
    "tera_flops": lambda values: flops(sparsevlm_macs(_even(values), SHAPE)) / 1e12,
    "tera_macs_two": lambda values: macs_two_matrices(_even(values), SHAPE) / 1e12,
    "true_mb": lambda values: values[0] * 2 * LAYERS * SHAPE.kv * SHAPE.bytes_per_value / 1e6,
    "paper_mb": lambda values: values[0] * PAPER_MB_PER_TOKEN,
}
# From pairs of cells, a method's and its rival's, one a benchmark (and budget).
OF_PAIRS: Mapping[str, Callable[[Sequence[tuple[float, float]]], list[float]]] = {
    "relative_gains": lambda pairs: _ends([100 * (a - b) / b for a, b in pairs]),
    "gains_of_self": lambda pairs: _ends([100 * (a - b) / a for a, b in pairs]),
    "wins": lambda pairs: [sum(a > b for a, b in pairs)],
    "not_lost": lambda pairs: [sum(a >= b for a, b in pairs)],
}


def _ends(values: Values) -> list[float]:
    return [min(values), max(values)]
