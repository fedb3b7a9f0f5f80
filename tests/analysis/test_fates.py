import numpy as np
import pytest
from traced_runs import BEFORE, bare, ledger, life, limits, look

from analysis.records.fates import fates
from analysis.records.patches import ENCODER, Reason, patch_fates
from mustdrop.runs.trace import Trace

ALL = list(range(16))


def naive(trace, image=0):
    """Each patch by itself, from the ledger's sets: (left, token, carried, key, resident)."""
    book = trace.ledger
    _, slots, carries = book.image_tokens(image)
    alive = [set(book.alive[layer].tolist()) for layer in range(book.depth)]
    cached = [set(book.cached[layer].tolist()) for layer in book.cached]
    out = []
    for patch in range(carries.shape[1]):
        best, when = -1, ENCODER
        for token, slot in enumerate(slots.tolist()):
            if not carries[token, patch]:
                continue
            last = -1
            for layer in range(book.depth):
                if slot in alive[layer]:
                    last = layer
            last = book.depth if slot in alive[-1] else last
            if best < 0 or last > when:
                best, when = token, last
        mine = [s for t, s in enumerate(slots.tolist()) if carries[t, patch]]
        out.append((
            when, best, int(carries[best].sum()) if best >= 0 else 0,
            any(bool(book.protected[slot]) for slot in mine),
            sum(any(slot in held for slot in mine) for held in cached),
        ))  # fmt: skip
    return out


def naive_reason(trace, slot, left):
    """The tests one token at a time, in words of the equations."""
    book = trace.ledger
    stayed = left == book.depth
    if stayed and bool(book.protected[slot]):
        return Reason.KEY
    layers = [layer for layer in trace.text_attention if layer == left or stayed]
    for layer in sorted(layers, reverse=True):
        found = trace.text_attention[layer]
        for place, position in enumerate(found.positions.tolist()):
            if position != slot:
                continue
            tests = []
            if (gamma := trace.threshold("gamma")) is not None:
                tests.append(("global", found.share[place] > gamma))
            if (alpha := trace.threshold("alpha")) is not None:
                tests.append(("individual", found.largest[place] >= alpha))
            passed = [name for name, ok in tests if ok]
            if not tests or (passed and not stayed):
                return Reason.UNKNOWN
            if not passed:
                names = [name for name, _ in tests]
                return Reason.FEWEST if stayed else {
                    2: Reason.FAILED_BOTH, 1: Reason[f"FAILED_{names[0].upper()}"]
                }[len(names)]  # fmt: skip
            return Reason.PASSED_BOTH if len(passed) == 2 else Reason[f"PASSED_{passed[0].upper()}"]
    return Reason.UNKNOWN


def overlapping():
    """Tokens that share patches; patch 15 is carried by none."""
    groups = [(0, 1, 2), (2, 3), (3, 4, 5), *((place,) for place in range(6, 15))]
    return ledger(4, [[2, 3, 5, *range(6, 15)], [3, 5, 7], [5, 7]], groups=groups, key=[7])


@pytest.mark.parametrize("seed", range(5))
def test_every_patch_is_told_as_a_loop_over_patches_tells_it(seed):
    for trace in (life(4, seed), life(6, seed), bare(), Trace(overlapping())):
        told = patch_fates(trace)
        ours = (told.left, told.token, told.carried, told.key, told.resident)
        assert list(zip(*(part.tolist() for part in ours), strict=True)) == naive(trace)


@pytest.mark.parametrize("gamma", [0.012, None])
@pytest.mark.parametrize("alpha", [0.015, None])
def test_reasons_are_those_of_the_equations(gamma, alpha):
    seen = set()
    for seed in range(5):
        whole = life(6, seed)
        trace = Trace(whole.ledger, whole.text_attention, {}, whole.words, limits(gamma, alpha))
        told = patch_fates(trace)
        slots = trace.ledger.image_tokens()[1].tolist()
        for patch, token in enumerate(told.token):
            expected = naive_reason(trace, slots[token], told.left[patch])
            assert Reason(told.reason[patch]) == expected
            seen.add(expected)
    dropped = {
        (True, True): Reason.FAILED_BOTH, (True, False): Reason.FAILED_GLOBAL,
        (False, True): Reason.FAILED_INDIVIDUAL, (False, False): Reason.UNKNOWN,
    }  # fmt: skip
    assert dropped[gamma is not None, alpha is not None] in seen


def one(kept, share, largest, gamma=0.1, alpha=0.2, **more):
    """A grid of 2 x 2 with one look after layer 0."""
    found = {0: look([0, 1, 2, 3], share, largest, [0, 1, 1, 0])}
    return patch_fates(Trace(ledger(2, kept, **more), found, {}, ("a", "b"), limits(gamma, alpha)))


def test_each_reason_by_hand():
    told = one([[0, 1, 2, 3], [1, 2, 3]], [0.1, 0.2, 0.05, 0.4], [0.19, 0.1, 0.2, 0.5])
    assert told.reason.tolist() == [
        Reason.FAILED_BOTH, Reason.PASSED_GLOBAL, Reason.PASSED_INDIVIDUAL, Reason.PASSED_BOTH,
    ]  # fmt: skip
    assert told.left.tolist() == [0, 2, 2, 2]
    assert told.word.tolist() == [0, 1, 1, 0]
    assert told.share == pytest.approx([0.1, 0.2, 0.05, 0.4])
    assert told.largest == pytest.approx([0.19, 0.1, 0.2, 0.5])


def test_who_fails_and_stays_is_key_or_one_of_the_fewest():
    told = one([[0, 1, 2, 3], [0, 1]], [0.01] * 4, [0.01] * 4, key=[1])
    assert [Reason(reason).name for reason in told.reason] == [
        "FEWEST", "KEY", "FAILED_BOTH", "FAILED_BOTH",
    ]  # fmt: skip


def test_who_passes_and_leaves_left_by_a_rule_that_is_not_known():
    told = one([[0, 1, 2, 3], [1]], [0.5] * 4, [0.01] * 4)
    assert told.reason.tolist() == [Reason.UNKNOWN, Reason.PASSED_GLOBAL, 0, 0]


def test_the_look_that_counts_is_the_one_when_a_token_left_or_the_last():
    looks = {
        0: look([0, 1, 2, 3], [0.01, 0.5, 0.5, 0.5], [0.0] * 4, [0] * 4),
        1: look([1, 2, 3], [0.01, 0.02, 0.3], [0.0, 0.9, 0.0], [1] * 3),
    }
    trace = Trace(
        ledger(2, [[0, 1, 2, 3], [1, 2, 3], [2, 3]]), looks, {}, ("a", "b"), limits(0.1, 0.2)
    )
    told = patch_fates(trace)
    assert told.share == pytest.approx([0.01, 0.01, 0.02, 0.3])
    assert told.word.tolist() == [0, 1, 1, 1]
    assert [Reason(reason).name for reason in told.reason] == [
        "FAILED_BOTH", "FAILED_BOTH", "PASSED_INDIVIDUAL", "PASSED_GLOBAL",
    ]  # fmt: skip


def test_the_order_of_a_look_does_not_matter():
    trace = life(6, 1)
    turned = {
        layer: type(found)(*(part[::-1].copy() for part in vars(found).values()))
        for layer, found in trace.text_attention.items()
    }
    other = Trace(trace.ledger, turned, {}, trace.words, trace.values)
    ours, theirs = patch_fates(trace), patch_fates(other)
    assert np.array_equal(ours.share, theirs.share, equal_nan=True)
    assert (ours.reason == theirs.reason).all()
    assert (ours.word == theirs.word).all()


def test_a_ledger_alone_tells_when_and_not_why():
    told = patch_fates(Trace(life(4).ledger))
    assert set(told.reason.tolist()) == {Reason.UNKNOWN, Reason.KEY}
    assert np.isnan(told.share).all() and (told.word == -1).all()
    assert (told.left >= 0).any()


def test_patches_and_the_figures_fates_agree():
    trace = life(6, 3)
    told, drawn = patch_fates(trace), fates(trace.ledger)
    assert told.grid == drawn.grid
    assert (told.key == drawn.key.ravel()).all()
    assert ((told.left == told.depth) == drawn.end.ravel()).all()
    assert told.resident / told.depth == pytest.approx(drawn.resident.ravel())
    for drop in drawn.drops:
        assert (drop.dropped.ravel() == (told.left == drop.first)).all()


def test_the_second_image_has_its_own_patches():
    book = ledger(4, [ALL, [0, 15]])
    book.grids = [(2, 4), (2, 4)]
    told = patch_fates(Trace(book), 1)
    assert told.left.tolist() == [0] * 7 + [2]
    assert BEFORE + 15 in book.alive[1].tolist()


def test_an_empty_ledger_is_refused():
    empty = ledger(2, [[0]])
    empty.alive = {}
    with pytest.raises(ValueError, match="the ledger is empty"):
        patch_fates(Trace(empty))
