"""Reason why each patch of a traced image was dropped or kept: when, in which token, by which test.

The result is one row of numbers per patch, small enough to keep for every sample. A patch lives as
long as a token that carries it; its token is the one that lives longest. Knows nothing about
pictures.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import nan

import numpy as np
from jaxtyping import Bool, Float, Int

from analysis.records.fates import to_numpy
from mustdrop.runs.trace import TextAttention, Trace

ENCODER = -2  # dropped in the vision encoder: no token carries the patch
NO_INDEX = -1


class Reason(IntEnum):
    """Reason why a token was dropped or kept.

    A token is dropped if it fails every test in use. The global test compares its share of all
    attention with gamma, the individual test its largest attention from one word with alpha.
    """

    UNKNOWN = 0  # no threshold is in use, or the decision was not traced
    FAILED_BOTH = 1
    FAILED_GLOBAL = 2  # the individual test is not in use
    FAILED_INDIVIDUAL = 3  # the global test is not in use
    PASSED_BOTH = 4
    PASSED_GLOBAL = 5  # failed the individual test, if it is in use
    PASSED_INDIVIDUAL = 6  # failed the global test, if it is in use
    KEY = 7  # a key token, which is never dropped by a test
    FEWEST = 8  # failed every test in use, but kept to reach the smallest allowed number of tokens


@dataclass(frozen=True, eq=False)
class PatchFates:
    """Fate of each patch of one image, in raster order.

    Attributes:
        grid: Numbers of rows and columns.
        depth: Number of decoder layers.
        tokens: Number of tokens that the encoder passes on.
        left: Layer after which the patch is dropped: -2 in the encoder, -1 before layer 0,
            ``depth`` never.
        token: Index of the token that carries the patch longest (the first of equals), in the
            order of the encoder's output; -1: none.
        carried: Number of patches that this token carries; 0: no token.
        key: Whether a key token carries the patch.
        reason: Reason of the decision that dropped the token, or of the last one that kept it.
        share: Share of the token in all attention from text to vision at that decision; NaN: not
            traced.
        largest: Largest attention from one word to the token at that decision; NaN: not traced.
        word: Index of that word in ``Trace.words``; -1: not traced.
        resident: Number of layers whose KV cache holds the patch while decoding.
    """

    grid: tuple[int, int]
    depth: int
    tokens: int
    left: Int[np.ndarray, " patches"]
    token: Int[np.ndarray, " patches"]
    carried: Int[np.ndarray, " patches"]
    key: Bool[np.ndarray, " patches"]
    reason: Int[np.ndarray, " patches"]
    share: Float[np.ndarray, " patches"]
    largest: Float[np.ndarray, " patches"]
    word: Int[np.ndarray, " patches"]
    resident: Int[np.ndarray, " patches"]


def patch_fates(trace: Trace, image: int = 0) -> PatchFates:
    """Follow each patch of one image of a traced prompt.

    Args:
        trace: Trace of the sample; a ledger alone says when a patch was dropped, but not why.
        image: Index of the image (crop, frame) in the prompt.

    Raises:
        ValueError: If the ledger has no prefill or no such image.

    Source: the tests are MustDrop's, arXiv:2411.10803, Eq. 8-10.
    """
    ledger = trace.ledger
    if not ledger.alive:
        raise ValueError("the ledger is empty: run a prefill with this dropper attached first")
    shape, *tensors = ledger.image_tokens(image)
    slots, carries = map(to_numpy, tensors)
    depth = ledger.depth
    entered = [np.isin(slots, to_numpy(ledger.alive[layer])) for layer in range(depth)]
    # A dropped token never returns, so the count of layers that it entered gives its last layer.
    left = sum((present.astype(np.int64) for present in entered), np.full(len(slots), -1))
    left[left == depth - 1] = depth
    protected = to_numpy(ledger.protected)[slots]
    reason, share, largest, word = _decisions(trace, slots, left, protected)
    arrived = carries.any(0)
    # argmax gives the first of equals; it is meaningless where no token carries the patch, and such
    # entries are overwritten below
    token = np.where(carries, left[:, None], ENCODER).argmax(0)
    resident = np.zeros(carries.shape[1], dtype=np.int64)
    for cached in ledger.cached.values():
        resident += np.asarray(carries[np.isin(slots, to_numpy(cached))].any(0))

    def of_token(values: np.ndarray, none: float) -> np.ndarray:
        return np.where(arrived, values[token], none).astype(values.dtype)

    return PatchFates(
        grid=shape,
        depth=depth,
        tokens=len(slots),
        left=of_token(left, ENCODER),
        token=np.where(arrived, token, NO_INDEX),
        carried=of_token(carries.sum(1), 0),
        key=np.asarray(carries[protected].any(0)),
        reason=of_token(reason, Reason.UNKNOWN),
        share=of_token(share, nan),
        largest=of_token(largest, nan),
        word=of_token(word, NO_INDEX),
        resident=resident,
    )


def _decisions(
    trace: Trace,
    slots: Int[np.ndarray, " tokens"],
    left: Int[np.ndarray, " tokens"],
    protected: Bool[np.ndarray, " tokens"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reason, share, largest attention and word of each token, at the decision about it."""
    stayed = left == trace.ledger.depth
    reason = np.full(len(slots), Reason.UNKNOWN, dtype=np.int64)
    share, largest = np.full(len(slots), nan), np.full(len(slots), nan)
    word = np.full(len(slots), NO_INDEX, dtype=np.int64)
    for layer, attention in sorted(trace.text_attention.items()):
        # For a token that is never dropped, a later layer overwrites an earlier one.
        judged = np.isin(slots, attention.positions) & ((left == layer) | stayed)
        order = np.argsort(attention.positions)
        index = order[np.searchsorted(attention.positions, slots[judged], sorter=order)]
        share[judged], largest[judged] = attention.share[index], attention.largest[index]
        word[judged] = attention.word[index]
        reason[judged] = _reasons(trace, attention, index, stayed[judged])
    reason[stayed & protected] = Reason.KEY
    return reason, share, largest, word


def _reasons(
    trace: Trace,
    attention: TextAttention,
    index: Int[np.ndarray, " tokens"],
    stayed: Bool[np.ndarray, " tokens"],
) -> Int[np.ndarray, " tokens"]:
    """Results of the tests in use for the tokens at these indices of a layer's attention."""
    gamma, alpha = trace.threshold("gamma"), trace.threshold("alpha")
    use_global, use_individual = gamma is not None, alpha is not None
    if not (use_global or use_individual):
        return np.full(len(index), Reason.UNKNOWN, dtype=np.int64)
    none = np.zeros(len(index), dtype=bool)
    passed_global = none if gamma is None else attention.share[index] > gamma
    passed_individual = none if alpha is None else attention.largest[index] >= alpha
    kept = np.select(
        [passed_global & passed_individual, passed_global, passed_individual],
        [Reason.PASSED_BOTH, Reason.PASSED_GLOBAL, Reason.PASSED_INDIVIDUAL],
        Reason.FEWEST,
    )
    failed = (
        Reason.FAILED_BOTH if use_global and use_individual
        else Reason.FAILED_GLOBAL if use_global
        else Reason.FAILED_INDIVIDUAL
    )  # fmt: skip
    # A token that was dropped although it passed a test was dropped by another rule.
    dropped = np.where(kept == Reason.FEWEST, failed, Reason.UNKNOWN)
    return np.where(stayed, kept, dropped)
