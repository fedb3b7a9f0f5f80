"""Formulas of printed claims: percent saved, gains, means, and costs of a number of tokens.

Costs are those of vision tokens only, in Vicuna 7B with float16, the language model of the paper.
Knows nothing about claims and tables.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from mustdrop.cost import PAPER_MB_PER_TOKEN, DecoderShape, flops, sparsevlm_macs

LAYERS = 32
SHAPE = DecoderShape(hidden=4096, query=4096, kv=4096, ffn=11008, vocab=32064)
Values = Sequence[float]


def macs_two_matrices(tokens_per_layer: Sequence[float], shape: DecoderShape) -> float:
    """Multiply-accumulates with an MLP of two matrices: sum of 4 n d^2 + 2 n^2 d + 2 n d m.

    The MLP of Llama has three, so the result is too small by n d m per layer.

    Source: FastV, arXiv:2403.06764, Sec. 4.1; PyramidDrop and DivPrune count the same.
    """
    d, m = shape.hidden, shape.ffn
    return sum(4 * n * d**2 + 2 * n**2 * d + 2 * n * d * m for n in tokens_per_layer)


def _saved(values: Values) -> float:
    return 100 * (1 - values[1] / values[0])


def _gained(values: Values) -> float:
    return 100 * (values[1] / values[0] - 1)


def _halves(values: Values) -> Values:
    """Means of the first half and of the second half."""
    middle = len(values) // 2
    return fmean(values[:middle]), fmean(values[middle:])


def _even(values: Values) -> list[int]:
    return [int(values[0])] * LAYERS


# Formulas of the values of a claim's cells, in the order of the cells.
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
# Formulas of score pairs: the method and its rival, one pair per benchmark (and budget).
OF_PAIRS: Mapping[str, Callable[[Sequence[tuple[float, float]]], list[float]]] = {
    "relative_gains": lambda pairs: _ends([100 * (a - b) / b for a, b in pairs]),
    "gains_of_self": lambda pairs: _ends([100 * (a - b) / a for a, b in pairs]),
    "wins": lambda pairs: [sum(a > b for a, b in pairs)],
    "not_lost": lambda pairs: [sum(a >= b for a, b in pairs)],
}


def _ends(values: Values) -> list[float]:
    return [min(values), max(values)]
