"""Results of the two tests of dual-attention filtering for each vision token of a trace.

Knows nothing about drawing. Source: MustDrop, arXiv:2411.10803, Eq. 9 and 10.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mustdrop.runs.trace import Trace

# Tests that a token passes: neither, the global share only, the individual word only, both.
TESTS = ("low in both", "saved by its share", "saved by a word", "high in both")


@dataclass(frozen=True, eq=False)
class Judged:
    """Results of the tests in one layer.

    Attributes:
        test: Index into ``TESTS`` for each observed token; without thresholds 0 if dropped, else 3.
        key: Mask of the key tokens.
        left: Mask of the tokens that were dropped after the layer.
    """

    test: Int[np.ndarray, " tokens"]
    key: Bool[np.ndarray, " tokens"]
    left: Bool[np.ndarray, " tokens"]


def judged(trace: Trace, layer: int) -> Judged:
    """Test each observed token of a layer; without its threshold a test counts as not passed.

    Raises:
        ValueError: If the trace has no text attention for this layer.
    """
    if layer not in trace.text_attention:
        raise ValueError(f"layer must be one of {sorted(trace.text_attention)}, got {layer}")
    attention, ledger = trace.text_attention[layer], trace.ledger
    none = np.zeros(len(attention.share), bool)
    gamma, alpha = trace.threshold("gamma"), trace.threshold("alpha")
    passed_share = none if gamma is None else attention.share > gamma
    passed_word = none if alpha is None else attention.largest >= alpha
    after = ledger.alive[min(layer + 1, ledger.depth - 1)].numpy()
    left = ~np.isin(attention.positions, after)
    test = passed_share + 2 * passed_word if has_thresholds(trace) else np.where(left, 0, 3)
    return Judged(test, ledger.protected.numpy()[attention.positions], left)


def has_thresholds(trace: Trace) -> bool:
    """Whether the run used at least one threshold."""
    return bool({"gamma", "alpha"} & {*trace.values})


def saving_words(trace: Trace, layer: int) -> Counter[str]:
    """Number of tokens that each word saved without help of the share test."""
    attention, tested = trace.text_attention[layer], judged(trace, layer)
    return Counter(trace.words[word] for word in attention.word[tested.test == 2])
