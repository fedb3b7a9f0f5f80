"""Why each patch of a traced picture left or stayed: when, in which token, by which test.

One row of numbers a patch, small enough to keep for every sample. A patch lives as long as some
token that carries it, and its token is the one that lives longest. Knows nothing about pictures.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import isnan, nan

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.runs.trace import TextAttention, Trace

ENCODER = -2  # left in the vision encoder: no token carries the patch
NOBODY = -1


class Reason(IntEnum):
    """What decided about a token.

    A token is dropped when every test in use says so: the global one (its share of all attention,
    gamma) and the individual one (the attention of the word that looks at it most, alpha).
    """

    UNKNOWN = 0  # no threshold is in use, or nothing was traced when it was decided
    FAILED_BOTH = 1
    FAILED_GLOBAL = 2  # the individual test is not in use
    FAILED_INDIVIDUAL = 3  # the global test is not in use
    PASSED_BOTH = 4
    PASSED_GLOBAL = 5  # the individual test, if in use, was failed
    PASSED_INDIVIDUAL = 6
    KEY = 7  # a key token, never dropped, whatever the tests say
    FEWEST = 8  # failed what is in use and stayed all the same: the fewest that must remain


@dataclass(frozen=True, eq=False)
class PatchFates:
    """What became of each patch of one image, in raster order.

    Attributes:
        grid: Rows and columns.
        depth: Decoder layers.
        tokens: Tokens that the encoder hands on.
        left: The layer after which it left: -2 in the encoder, -1 before layer 0, ``depth`` never.
        token: The token that carries it longest (the first of equals), counted from 0 in the order
            in which the encoder hands tokens on; -1: none.
        carried: Patches that this token carries; 0: none.
        key: Whether a key token carries it.
        reason: What decided about its token: when it left or, if it stayed, the last time.
        share: That token's share of all attention from text to vision then; NaN: not traced.
        largest: The attention of the word that looked at it most then; NaN: not traced.
        word: Which of ``Trace.words`` that is; -1: not traced.
        resident: Layers whose KV cache holds the patch while decoding.
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


def patch_fates(trace: Trace, image: int = 0, grid: tuple[int, int] | None = None) -> PatchFates:
    """Follow each patch of one image of a traced prompt.

    Args:
        trace: The sample's; a ledger alone tells when a patch left and not why.
        image: Which image (crop, frame) of the prompt, from 0.
        grid: See :meth:`mustdrop.ledger.TokenLedger.tokens`.

    Raises:
        ValueError: If the ledger has no prefill or no such image, or its slots are no whole grids.

    Source: the tests are MustDrop's, arXiv:2411.10803, Eq. 8-10.
    """
    ledger = trace.ledger
    if not ledger.alive:
        raise ValueError("the ledger is empty: run a prefill with this dropper attached first")
    shape, *found = ledger.image_tokens(image, grid)
    slots, carries = (_array(one) for one in found)
    depth = ledger.depth
    entered = [np.isin(slots, _array(ledger.alive[layer])) for layer in range(depth)]
    # what once left never comes back: a token that entered so many layers left after the last
    left = sum((there.astype(np.int64) for there in entered), np.full(len(slots), -1))
    left[left == depth - 1] = depth
    protected = _array(ledger.protected)[slots]
    reason, share, largest, word = _decided(trace, slots, left, protected)
    alone = carries.any(0)
    # argmax is the first of equals; a patch that no token carries gets a token, overwritten below
    token = np.where(carries, left[:, None], ENCODER).argmax(0)
    resident = np.zeros(carries.shape[1], dtype=np.int64)
    for held in ledger.cached.values():
        resident += np.asarray(carries[np.isin(slots, _array(held))].any(0))

    def of_token(values: np.ndarray, none: float) -> np.ndarray:
        return np.where(alone, values[token], none).astype(values.dtype)

    return PatchFates(
        grid=shape,
        depth=depth,
        tokens=len(slots),
        left=of_token(left, ENCODER),
        token=np.where(alone, token, NOBODY),
        carried=of_token(carries.sum(1), 0),
        key=np.asarray(carries[protected].any(0)),
        reason=of_token(reason, Reason.UNKNOWN),
        share=of_token(share, nan),
        largest=of_token(largest, nan),
        word=of_token(word, NOBODY),
        resident=resident,
    )


def _decided(
    trace: Trace,
    slots: Int[np.ndarray, " tokens"],
    left: Int[np.ndarray, " tokens"],
    protected: Bool[np.ndarray, " tokens"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per token reason, share, largest attention and word, of the look that decided about it."""
    stayed = left == trace.ledger.depth
    reason = np.full(len(slots), Reason.UNKNOWN, dtype=np.int64)
    share, largest = np.full(len(slots), nan), np.full(len(slots), nan)
    word = np.full(len(slots), NOBODY, dtype=np.int64)
    for layer, look in sorted(trace.text_attention.items()):
        # later looks overwrite earlier ones of those that stayed
        asked = np.isin(slots, look.positions) & ((left == layer) | stayed)
        order = np.argsort(look.positions)
        place = order[np.searchsorted(look.positions, slots[asked], sorter=order)]
        share[asked], largest[asked] = look.share[place], look.largest[place]
        word[asked] = look.word[place]
        reason[asked] = _reasons(trace, look, place, stayed[asked])
    reason[stayed & protected] = Reason.KEY
    return reason, share, largest, word


def _reasons(
    trace: Trace,
    look: TextAttention,
    place: Int[np.ndarray, " tokens"],
    stayed: Bool[np.ndarray, " tokens"],
) -> Int[np.ndarray, " tokens"]:
    """What the tests in use said of these tokens of a look."""
    use_global, use_individual = not isnan(trace.gamma), not isnan(trace.alpha)
    if not (use_global or use_individual):
        return np.full(len(place), Reason.UNKNOWN, dtype=np.int64)
    passed_global = (look.share[place] > trace.gamma) & use_global
    passed_individual = (look.largest[place] >= trace.alpha) & use_individual
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
    # a token that left although a test was passed left by some other rule
    gone = np.where(kept == Reason.FEWEST, failed, Reason.UNKNOWN)
    return np.where(stayed, kept, gone)


def _array(tensor: Tensor) -> np.ndarray:
    """A tensor of any device."""
    return tensor.detach().cpu().numpy()
