"""What the two tests of dual-attention filtering said of each vision token, from a trace.

Knows nothing about how it is drawn. Source: MustDrop, arXiv:2411.10803, Eq. 9 and 10.
"""

from collections import Counter
from dataclasses import dataclass
from math import isnan

import numpy as np
from jaxtyping import Bool, Int

from mustdrop.runs.trace import Trace

# What the two tests say of a token: neither, the share alone, a word alone, both.
TESTS = ("low in both", "saved by its share", "saved by a word", "high in both")


@dataclass(frozen=True, eq=False)
class Judged:
    """The tests' answers in one layer.

    Attributes:
        test: Per token of the look, which of ``TESTS``; without thresholds 0 dropped, 3 not.
        key: Which of them are key tokens.
        left: Which of them were dropped after the layer.
    """

    test: Int[np.ndarray, " tokens"]
    key: Bool[np.ndarray, " tokens"]
    left: Bool[np.ndarray, " tokens"]


def judged(trace: Trace, layer: int) -> Judged:
    """Put each token of a layer's look to the tests; a threshold that is not in use says low.

    Raises:
        ValueError: If nothing was looked at after this layer.
    """
    if layer not in trace.text_attention:
        raise ValueError(f"layer must be one of {sorted(trace.text_attention)}, got {layer}")
    look, ledger = trace.text_attention[layer], trace.ledger
    shared = np.zeros(len(look.share), bool) if isnan(trace.gamma) else look.share > trace.gamma
    worded = np.zeros(len(look.share), bool) if isnan(trace.alpha) else look.largest >= trace.alpha
    after = ledger.alive[min(layer + 1, ledger.depth - 1)].numpy()
    left = ~np.isin(look.positions, after)
    test = shared.astype(int) + 2 * worded if filtered(trace) else np.where(left, 0, 3)
    return Judged(test, ledger.protected.numpy()[look.positions], left)


def filtered(trace: Trace) -> bool:
    """Whether the run had a threshold."""
    return not (isnan(trace.gamma) and isnan(trace.alpha))


def saving_words(trace: Trace, layer: int) -> Counter[str]:
    """Of the tokens that a word alone saved: which word, and how many."""
    look, found = trace.text_attention[layer], judged(trace, layer)
    return Counter(trace.words[word] for word in look.word[found.test == 2])
