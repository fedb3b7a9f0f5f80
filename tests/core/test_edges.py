"""Equations and selections at their edges: equality, ties, NaN, infinity, the keys of draws."""

import math

import pytest
import torch
from fake_views import cache_view, vision_view
from hypothesis import given, settings
from hypothesis import strategies as st
from models import batch, greedy, prompt, tiny_llava

from mustdrop import Reduction, TokenDropper
from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.functional import (
    ROWS,
    attention_rows,
    even_cells,
    outliers,
    ranked,
    received_attention,
    top_keep,
    window_similarity,
    windows,
)
from mustdrop.pairwise import bipartite_matching
from mustdrop.prefill.dual_attention import DualAttention, share_and_peak
from mustdrop.prefill.random import Random
from mustdrop.prefill.scheduled_random import ScheduledRandom
from mustdrop.vision.known_patches import KnownPatches
from mustdrop.vision.local_merge import LocalMerge

NONE = torch.zeros(4, dtype=torch.bool)
HALVES = [torch.float16, torch.bfloat16]


# --- Eq. 5, 9 and 10 at equality -----------------------------------------------------------------
@pytest.mark.parametrize(("score", "tau"), [("sum", 12.0), ("mean", 1.0)])
def test_a_window_at_exactly_tau_merges_by_the_code_and_not_by_the_paper(score, tau):
    """S_w > tau in Eq. 5. Equal unit vectors have a cosine of exactly 1, and a window 12 pairs."""
    hidden = torch.zeros(16, 8)
    hidden[:, 3] = 1.0
    hidden[[0, 1, 4, 5]] = torch.eye(8)[:4]  # the first window's cosines are 0
    cells = {}
    for strict in (True, False):
        strategy = LocalMerge(tau, window=2, score=score, strict=strict)
        cells[strict] = strategy.reduce(vision_view(hidden)).keep.tolist()
    assert cells[True] == list(range(16))
    assert cells[False] == [0, 1, 4, 5, 7, 13, 15]


@pytest.mark.parametrize(("strict", "left"), [(False, []), (True, [0, 1, 2, 3])])
def test_a_token_at_exactly_gamma_leaves_by_the_paper_and_stays_by_the_code(strict, left):
    """V_j <= gamma sum V in Eq. 9; a quarter each is exact."""
    attention = torch.full((2, 4), 0.125)
    strategy = DualAttention(0.25, None, layers=[1], strict=strict, min_keep=0)
    assert strategy.survivors(share_and_peak(attention), NONE).tolist() == left


@pytest.mark.parametrize("strict", [False, True])
def test_a_token_at_exactly_alpha_stays(strict):
    """max_t A < alpha in Eq. 10, in the paper and in the code."""
    attention = torch.tensor([[0.5, 0.25, 0.125, 0.0], [0.0, 0.125, 0.125, 0.0]])
    for gamma in (None, 1.0):
        strategy = DualAttention(gamma, 0.25, layers=[1], strict=False, min_keep=0)
        assert strategy.survivors(share_and_peak(attention), NONE).tolist() == [0, 1]


# --- the fewest that stay ------------------------------------------------------------------------
def test_the_fewest_that_stay_are_added_to_what_a_test_kept():
    attention = torch.tensor([[0.0, 0.25, 0.25, 0.31], [0.0, 0.25, 0.25, 0.0]])
    attention = torch.cat([attention, attention[1:]])
    for least, left in (
        (1, [3]),
        (2, [1, 3]),
        (3, [1, 2, 3]),
        (4, [0, 1, 2, 3]),
        (9, [0, 1, 2, 3]),
    ):
        strategy = DualAttention(0.9, 0.3, layers=[1], min_keep=least)
        assert strategy.survivors(share_and_peak(attention), NONE).tolist() == left


def test_the_fewest_that_stay_are_added_to_key_tokens():
    """The key token gets the least attention of all."""
    attention = torch.tensor([[0.0, 0.1, 0.3, 0.2]])
    key = torch.tensor([True, False, False, False])
    for least, left in ((0, [0]), (1, [0]), (2, [0, 2]), (3, [0, 2, 3])):
        strategy = DualAttention(1.0, 1.0, layers=[1], min_keep=least)
        assert strategy.survivors(share_and_peak(attention), key).tolist() == left


@given(st.integers(1, 12), st.integers(0, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_fewer_than_the_fewest_never_stay_and_nobody_is_replaced(tokens, least, data):
    weights = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.4]), min_size=tokens, max_size=tokens)
    attention = torch.tensor(data.draw(st.lists(weights, min_size=1, max_size=3)))
    key = torch.tensor(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))
    thresholds = data.draw(st.tuples(st.sampled_from([0.1, 1.0]), st.sampled_from([0.2, 1.0])))
    without = DualAttention(*thresholds, layers=[1], min_keep=0)
    kept = without.survivors(share_and_peak(attention), key).tolist()
    strategy = DualAttention(*thresholds, layers=[1], min_keep=least)
    left = strategy.survivors(share_and_peak(attention), key).tolist()
    assert set(kept) <= set(left) and left == sorted(left)
    assert len(left) == max(len(kept), min(least, tokens))
    share = attention.sum(0)
    added = [at for at in left if at not in kept]
    gone = [at for at in range(tokens) if at not in left]
    assert not added or not gone or min(share[added]) >= max(share[gone])


# --- NaN, infinity, ties -------------------------------------------------------------------------
def test_nothing_outranks_key_tokens_and_nan_outranks_nothing():
    nan, inf = math.nan, math.inf
    keys = torch.tensor([False, False, True, True])
    for score in ([nan, nan, 0.1, 0.2], [inf, inf, 0.1, 0.2], [inf, nan, -inf, nan], [inf] * 4):
        assert top_keep(torch.tensor(score), 2, keys).tolist() == [2, 3]
    score = torch.tensor([nan, -inf, 0.0, inf, nan, 0.0])
    assert ranked(score).tolist() == [3, 2, 5, 1, 0, 4]
    assert top_keep(score, 4).tolist() == [1, 2, 3, 5]
    assert top_keep(score, 5).tolist() == [0, 1, 2, 3, 5]
    # more key tokens than may stay: those of highest score
    assert top_keep(torch.tensor([nan, 1.0, inf, 2.0]), 1, keys).tolist() == [2]
    assert top_keep(torch.tensor([nan, 1.0, 2.0, nan]), 1, keys).tolist() == [2]
    assert top_keep(torch.tensor([9.0, 7.0, 8.0, 0.0]), 3, keys).tolist() == [0, 2, 3]


def test_key_tokens_come_first_then_the_best_of_the_others():
    score = torch.randn(3000).round(decimals=1)  # with ties
    keys = torch.rand(3000) < 0.3
    order = sorted(range(3000), key=lambda at: (not keys[at], -float(score[at]), at))
    for keep in (10, int(keys.sum()), int(keys.sum()) + 300):
        assert top_keep(score, keep, keys).tolist() == sorted(order[:keep])


def test_one_nan_keeps_no_other_token():
    attention = torch.tensor([[0.1, 0.5, 0.2, 0.0], [0.1, 0.3, 0.0, 0.0]])
    broken = attention.clone()
    broken[0, 3] = math.nan
    for thresholds in ((0.3, None), (None, 0.3), (0.3, 0.3)):
        strategy = DualAttention(*thresholds, layers=[1])
        expected = strategy.survivors(share_and_peak(attention), NONE)
        found = strategy.survivors(share_and_peak(broken), NONE)
        assert found.tolist() == expected.tolist() == [1]
    least = DualAttention(1.0, 1.0, layers=[1], min_keep=3)
    assert least.survivors(share_and_peak(broken), NONE).tolist() == [0, 1, 2]


def test_crops_in_step_break_ties_by_index():
    """All windows of one crop are equally alike; another crop lets only some merge."""
    same = torch.ones(144, 4)
    other = torch.randn(144, 4)
    for window in windows(12, 12, 2)[[1, 4, 11, 17, 20]]:
        other[window] = 1.0
    strategy = LocalMerge(11.9, window=2, crops="fewest")
    keep = strategy.reduce(vision_view(same, prompt_images=[same, other])).keep
    gone = {int(cell) for window in windows(12, 12, 2)[:5] for cell in window[:-1]}
    assert keep.tolist() == [cell for cell in range(144) if cell not in gone]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_patches_of_zeros_are_unlike_and_no_nan(dtype):
    hidden = torch.zeros(8, 6, dtype=dtype)
    hidden[4:] = 1.0
    index = torch.arange(8).view(2, 4)
    assert window_similarity(hidden, index, "sum").tolist() == pytest.approx([0.0, 12.0])
    assert window_similarity(hidden, index).tolist() == pytest.approx([0.0, 1.0])


# --- half precision in the functions -------------------------------------------------------------
@pytest.mark.parametrize("dtype", HALVES)
def test_attention_rows_take_the_softmax_in_float32(dtype):
    # Seventeen columns are no multiple of a vector register, and torch's softmax in half precision
    # rounds once more there: some of these numbers in a million.
    score = (torch.randn(1, 200_000, 17) * 4).to(dtype)
    rows = attention_rows(score, torch.eye(17, dtype=dtype)[None], 1.0)
    assert rows.dtype == dtype
    assert torch.equal(rows, score.softmax(-1, dtype=torch.float32).to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_similarity_is_summed_in_float32(dtype):
    hidden = (torch.randn(1, 12) + 0.2 * torch.randn(81, 12)).to(dtype)
    index = windows(9, 9, 3)
    for reduce in ("mean", "sum"):
        found = window_similarity(hidden, index, reduce)
        assert found.dtype == torch.float32
        assert torch.equal(found, window_similarity(hidden.float(), index, reduce))


@pytest.mark.parametrize("dtype", HALVES)
def test_the_limit_of_an_outlier_is_not_rounded(dtype):
    score = torch.linspace(0.01, 0.0125, 48).to(dtype)
    for spread in torch.linspace(0.1, 0.9, 9).tolist():
        assert torch.equal(outliers(score, spread), outliers(score.float(), spread))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("cls", [False, True])
def test_pairs_are_matched_in_float32_by_their_cosine(dtype, cls):
    metric = torch.randn(41, 8).to(dtype) * torch.linspace(0.1, 9.0, 41)[:, None].to(dtype)
    found = bipartite_matching(metric, 9, cls)
    for half, wide in zip(found, bipartite_matching(metric.float(), 9, cls), strict=True):
        assert torch.equal(half, wide)
    _, leave, partner = found
    own, other = metric.float()[::2], metric.float()[1::2]
    cosine = torch.cosine_similarity(own[:, None], other[None], dim=-1)
    assert partner.tolist() == cosine[leave].argmax(1).tolist()
    rest = [at for at in range(int(cls), len(own)) if at not in leave.tolist()]
    assert cosine[leave].amax(1).min() >= cosine[rest].amax(1).max()


# --- evenness ------------------------------------------------------------------------------------
@given(st.integers(1, 30), st.integers(1, 30), st.data())
@settings(max_examples=80, deadline=None)
def test_even_cells_leave_as_much_above_as_below_and_left_as_right(height, width, data):
    keep = data.draw(st.integers(1, height * width))
    cells = even_cells(height, width, keep)
    rows = sorted(set((cells // width).tolist()))
    assert abs(rows[0] - (height - 1 - rows[-1])) <= 1
    for row in rows:
        columns = (cells[cells // width == row] % width).tolist()
        assert abs(columns[0] - (width - 1 - columns[-1])) <= 1


@pytest.mark.parametrize(
    ("height", "width", "keep", "rows"),
    [(24, 24, 64, 8), (24, 24, 3, 2), (12, 6, 18, 6), (6, 12, 18, 3), (9, 1, 2, 2), (2, 9, 18, 2)],
)
def test_even_cells_stand_as_far_apart_in_rows_as_in_columns(height, width, keep, rows):
    cells = even_cells(height, width, keep)
    assert len((cells // width).unique()) == rows and len(cells.unique()) == keep


# --- what a draw is keyed by ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def model():
    return tiny_llava()


def entered(model, inputs, dropper, known=None) -> list[list[int]]:
    with dropper.attach(model, known) as run:
        greedy(model, inputs, 1)
    return [
        ledger.alive[model.config.text_config.num_hidden_layers - 1].tolist()
        for ledger in run.ledgers
    ]


RANDOM = TokenDropper(prefill=Random(9))
SCHEDULED = TokenDropper(prefill=ScheduledRandom(((9,) * 6,) * 2))


@pytest.mark.parametrize("dropper", [RANDOM, SCHEDULED], ids=["random", "scheduled"])
def test_a_draw_depends_on_the_words_of_the_prompt(model, dropper):
    one = prompt(model)
    other = {**one, "input_ids": one["input_ids"].clone()}
    other["input_ids"][0, -1] += 1
    assert entered(model, one, dropper) == entered(model, one, dropper)
    assert entered(model, one, dropper) != entered(model, other, dropper)


@pytest.mark.parametrize(("image", "channel"), [(0, 0), (1, 1), (0, 2), (1, 2)])
def test_a_draw_depends_on_every_channel_of_every_image(model, channel, image):
    one = prompt(model, images=2)
    other = {**one, "pixel_values": one["pixel_values"].clone()}
    other["pixel_values"][image, channel, 5, 7] += 0.5
    assert entered(model, one, RANDOM) != entered(model, other, RANDOM)
    dropper = TokenDropper(vision=KnownPatches(9))
    known = [{"target_patches": torch.zeros(6, 6, dtype=torch.bool)}] * 2
    drawn = []
    for inputs in (one, other):
        with dropper.attach(model, known) as run:
            greedy(model, inputs, 1)
        drawn.append([encoded.cells.tolist() for encoded in run.images])
    assert [first != second for first, second in zip(*drawn, strict=True)] == [
        number == image for number in range(2)
    ]


def cached(model, inputs, residents, seed=0) -> list[list[list[int]]]:
    """Per prompt and layer, the vision tokens in the cache."""
    cut = ScheduledCache(residents, seed)
    keep = ScheduledRandom(((36,) * 6,) * len(residents))
    with TokenDropper(prefill=keep, decode=cut).attach(model) as run:
        greedy(model, inputs, 2)
    return [
        [ledger.cached[layer][ledger.vision[ledger.cached[layer]]].tolist() for layer in range(6)]
        for ledger in run.ledgers
    ]


def test_a_cache_is_drawn_for_each_prompt_and_layer_anew(model):
    """All tokens survive to the last layer here, so that the draw alone decides."""
    counts = ((9,) * 6,)
    one, other = prompt(model), prompt(model, seed=3)
    other["input_ids"] = one["input_ids"]
    asked = {**one, "input_ids": one["input_ids"].clone()}
    asked["input_ids"][0, 0] += 1
    (first,), (second,), (third,) = (cached(model, each, counts) for each in (one, other, asked))
    for layer in range(6):
        assert len(first[layer]) == 9
        assert first[layer] != second[layer], "another picture"
        assert first[layer] != third[layer], "another question"
    assert len({tuple(layer) for layer in first}) == 6
    assert cached(model, one, counts) == [first] != cached(model, one, counts, seed=1)
    # neighbours and padding do not enter
    longer = prompt(model, before=9, seed=5)
    assert cached(model, batch(longer, one), counts * 2)[1] == first


def test_the_cache_does_not_repeat_the_draw_of_the_layer(model):
    """Of what a random prefill after the same layer would keep, it keeps no more than by chance."""
    one = prompt(model)
    (layers,) = cached(model, one, ((9,) * 6,))
    with TokenDropper(prefill=Random(9, layer=3)).attach(model) as run:
        greedy(model, one, 1)
    alive = run.ledgers[0].alive[4]
    assert alive[run.ledgers[0].vision[alive]].tolist() != layers[3]


def test_a_cache_view_draws_by_its_own_generator():
    survives = torch.ones(10, dtype=torch.bool)
    strategy = ScheduledCache(((4,) * 4,), seed=2)
    drawn = set()
    for key in range(8):
        view = cache_view(
            10, survives, depth=4,
            generator=lambda seed, key=key: torch.Generator().manual_seed(100 * seed + key),
        )  # fmt: skip
        drawn.add(tuple(strategy.keep(view).tolist()))
    assert len(drawn) > 4


# --- reductions one after the other --------------------------------------------------------------
@given(st.integers(2, 10), st.data())
@settings(max_examples=60, deadline=None)
def test_sizes_are_those_of_the_last_that_tells_them(tokens, data):
    def draw(n: int) -> Reduction:
        keep = torch.tensor(data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))])
        sizes = torch.rand(len(keep)) if data.draw(st.booleans()) else None
        kind = data.draw(st.sampled_from(["select", "mix", "group"]))
        if kind == "select":
            return Reduction(keep, None, sizes)
        if kind == "mix":
            return Reduction(keep, torch.rand(len(keep), n).softmax(-1), sizes)
        group = torch.randint(0, len(keep) + 1, (n,))
        group[keep] = torch.arange(len(keep))
        return Reduction.averages(keep, group, torch.ones(n), sizes)

    first = draw(tokens)
    second = draw(len(first))
    both = first.then(second, tokens)
    expected = second.sizes
    if expected is None and first.sizes is not None:
        expected = first.sizes[second.keep]
    assert (both.sizes is None) == (expected is None)
    assert expected is None or torch.equal(both.sizes, expected)
    x = torch.randn(tokens, 3)
    torch.testing.assert_close(both(x), second(first(x)))


@pytest.mark.parametrize("first", [None, 0])
def test_received_attention_is_the_mean_of_the_whole_map(first):
    tokens = 2 * ROWS + 9
    query, key = torch.randn(4, tokens, 8), torch.randn(2, tokens, 8)
    bias = torch.randn(tokens) if first is None else None
    whole = attention_rows(query, key, 0.3, first, bias=bias)
    received = received_attention(query, key, 0.3, first, bias)
    torch.testing.assert_close(received, whole.mean(1))
    assert received.shape == (4, tokens)
