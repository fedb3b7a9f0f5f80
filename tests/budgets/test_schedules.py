"""Budgets in closed form for methods that drop in several places: what they promise is executed."""

import pytest

from mustdrop.budgets.closed_form import budget_keep, floor, keep_for
from mustdrop.budgets.schedules import (
    average,
    pyramid_ratios,
    recycled,
    sparsevlm_keep,
    tome_removed,
    vtw_layer,
)

LLAVA = {"vision_tokens": 576, "layers": 32, "merging_blocks": 23}
POCKET = {"vision_tokens": 576, "layers": 12, "merging_blocks": 3}
MODELS = [LLAVA, POCKET, {"vision_tokens": 2880, "layers": 40, "merging_blocks": 23}]
LAYERS = {32: [1, 7, 15], 12: [0, 2, 5], 40: [2, 9, 19]}
BUDGETS = [288, 192, 144, 128, 100, 64]


def by_summing(entered: int, left: list, layers: list[int], depth: int) -> float:
    """Tokens entering each layer, one after the other."""
    total, now = 0.0, float(entered)
    for layer in range(depth):
        total += now
        if layer in layers:
            now = left[layers.index(layer)]
    return total / depth


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model["layers"]))
@pytest.mark.parametrize("tokens", BUDGETS)
def test_schedules_meet_their_budget(model, tokens):
    depth, entered = model["layers"], model["vision_tokens"]
    layers = LAYERS[depth]
    lowest = (layers[0] + 1) * entered / depth
    ratios = pyramid_ratios({"tokens": tokens}, model, layers)
    counts = sparsevlm_keep({"tokens": tokens}, model, layers)
    if tokens < lowest:
        assert ratios == f"floor {lowest:g}"
        # what is recycled stays in any case
        least = average(entered, recycled(entered, [0, 0, 0]), layers, depth)
        assert counts == f"floor {least:g}" and lowest < least < lowest + 20
        return
    kept = [int(entered * ratio) for ratio in ratios]
    executed = by_summing(entered, kept, layers, depth)
    assert executed == pytest.approx(average(entered, kept, layers, depth))
    assert tokens - 1 <= executed <= tokens + 0.1  # int() takes up to a token of each
    assert ratios[1] == pytest.approx(ratios[0] ** 2, abs=1e-5)
    executed = by_summing(entered, recycled(entered, counts), layers, depth)
    assert executed == pytest.approx(tokens, abs=0.5)
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("tokens", [576, 700])
def test_a_budget_of_all_tokens_or_more_keeps_all(tokens):
    budget = {"tokens": tokens}
    assert pyramid_ratios(budget, LLAVA, [2, 6]) == [1.0, 1.0]
    assert sparsevlm_keep(budget, LLAVA, [2, 6]) == [576, 576]
    assert budget_keep(budget, LLAVA) == budget_keep(budget, LLAVA, 5) == 576


def test_pyramids_are_those_of_their_author():
    """Solved for in Cooperx521/PyramidDrop's issue 29 and the golden budgets."""
    for tokens, ratio in ((192, 0.55960034), (128, 0.41974047), (64, 0.19157517)):
        assert pyramid_ratios({"tokens": tokens}, LLAVA, [1, 7, 15])[0] == pytest.approx(
            ratio, abs=1e-6
        )
    assert pyramid_ratios({"tokens": 64}, LLAVA, [7, 15, 23]) == "floor 144"
    assert average(576, [288, 144, 72], [7, 15, 23], 32) == 270


def test_the_authors_counts_of_sparsevlm_miss_their_budgets_as_executed():
    for counts, executed in (
        ([300, 200, 110], 206.5), ([303, 110, 36], 145.40625), ([66, 30, 17], 82.25),
    ):  # fmt: skip
        assert average(576, recycled(576, counts), [2, 6, 15], 32) == executed
    assert recycled(576, [300, 200, 110]) == [309, 204, 113]


@pytest.mark.parametrize("layers", [[0], [2, 6, 15], [0, 1, 2, 3], [-1, 5]])
@pytest.mark.parametrize("recycle", [0.0, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("per_cluster", [1, 2, 10, 1000])
def test_counts_of_sparsevlm_follow_all_its_fields(layers, recycle, per_cluster):
    least = average(576, recycled(576, [0] * len(layers), recycle, per_cluster), layers, 32)
    for tokens in (576, 400, 192, 64, least, min(least + 1, 576)):
        counts = sparsevlm_keep({"tokens": tokens}, LLAVA, layers, recycle, per_cluster)
        if tokens < least:
            assert counts == f"floor {least:g}"
        else:
            executed = average(576, recycled(576, counts, recycle, per_cluster), layers, 32)
            assert executed == pytest.approx(tokens, abs=0.5)
            assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("tokens", "recycle", "per_cluster"),
    [(192, 0.3, 10), (418, 0.3, 10), (167, 0.9, 2), (172, 0.9, 2)],
)
def test_no_other_last_count_of_sparsevlm_comes_nearer(tokens, recycle, per_cluster):
    layers = [2, 6, 15]
    budget = {"tokens": tokens}
    *first, last = sparsevlm_keep(budget, LLAVA, layers, recycle, per_cluster)

    def miss(count: int) -> float:
        left = recycled(576, [*first, count], recycle, per_cluster)
        return abs(average(576, left, layers, 32) - tokens)

    assert miss(last) == min(miss(count) for count in range(first[-1] + 1))


def test_a_count_above_what_is_there_lets_nothing_leave():
    assert recycled(576, [600, 100, 300]) == [576, 115, 115]


@pytest.mark.parametrize("form", [pyramid_ratios, sparsevlm_keep])
def test_a_budget_that_is_exactly_the_floor_is_in_reach(form):
    layers = [2, 6, 15]
    counts = form({"tokens": 54}, LLAVA, layers)
    if form is pyramid_ratios:
        assert counts == [0, 0, 0]
        assert form({"tokens": 53.99}, LLAVA, layers) == "floor 54"
    else:
        least = average(576, recycled(576, [0, 0, 0]), layers, 32)
        assert counts == "floor 57.0312" and least == 57.03125
        assert form({"tokens": least}, LLAVA, layers) == [0, 0, 0]


@pytest.mark.parametrize("layers", [[], [3, 2], [2, 2], [2, 31], [-2, 3], [True, 3], [1, False]])
@pytest.mark.parametrize("form", [pyramid_ratios, sparsevlm_keep])
def test_layers_that_no_schedule_has_are_refused_in_words(form, layers):
    with pytest.raises(ValueError, match="layers must be a list of ascending layers from -1 to 30"):
        form({"tokens": 192}, LLAVA, layers)
    form({"tokens": 192}, LLAVA, [-1, 30])


@pytest.mark.parametrize(
    ("recycle", "per_cluster", "reason"),
    [
        (2.0, 10, r"recycle must be in \[0, 1\], got 2.0"),
        (-0.1, 10, r"recycle must be in \[0, 1\], got -0.1"),
        (0.3, 0, "per_cluster must be a count of 1 or more, got 0"),
    ],
)
def test_shares_and_counts_that_cannot_be_are_refused_in_words(recycle, per_cluster, reason):
    with pytest.raises(ValueError, match=reason):
        sparsevlm_keep({"tokens": 192}, LLAVA, [2, 6], recycle, per_cluster)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model["layers"]))
@pytest.mark.parametrize("tokens", [1, *BUDGETS])
def test_tome_ends_at_its_budget_and_never_merges_more_than_half(model, tokens):
    removed = tome_removed({"tokens": tokens}, model)
    now = model["vision_tokens"]
    lowest = -(-now // 2 ** model["merging_blocks"])
    if tokens < lowest:
        assert removed == f"floor {lowest}"
        return
    for r in removed:
        assert 0 <= r <= now // 2
        now -= r
    assert now == tokens and len(removed) == model["merging_blocks"]
    assert removed == sorted(removed, reverse=True)


def test_tome_on_llava_is_as_even_as_can_be():
    """The lists of the card: 17 in 16 blocks and 16 in 7, and so on."""
    for tokens, high, blocks in ((192, 17, 16), (128, 20, 11), (64, 23, 6)):
        expected = [high] * blocks + [high - 1] * (23 - blocks)
        assert tome_removed({"tokens": tokens}, LLAVA) == expected


def test_vtw_takes_the_nearest_whole_layer():
    for tokens, layer in ((192, 10), (128, 6), (64, 3), (270, 14)):
        assert vtw_layer({"tokens": tokens}, LLAVA) == layer
    assert [vtw_layer({"tokens": t}, POCKET) for t in (192, 128, 64)] == [3, 2, 0]


def test_a_count_is_the_nearest_one_and_the_floor_itself_is_in_reach():
    """Against all counts that there are, for every layer."""
    for layer in range(-1, 11):
        lowest = floor(576, 12, layer)
        assert keep_for(lowest, 576, 12, layer) == 0
        if lowest:
            assert keep_for(lowest - 0.01, 576, 12, layer) is None
        for tokens in (lowest, lowest + 0.3, lowest + 7.77, 200.5, 333.3, 575.6, 576.0):
            if tokens >= lowest:
                executed = [average(576, [keep], [layer], 12) for keep in range(577)]
                nearest = min(abs(value - tokens) for value in executed)
                keep = keep_for(tokens, 576, 12, layer)
                assert keep is not None
                assert abs(executed[keep] - tokens) == pytest.approx(nearest, abs=1e-9)


@pytest.mark.parametrize("layer", [-2, 11, True])
def test_a_layer_that_there_is_not_is_refused_in_words(layer):
    with pytest.raises(ValueError, match=f"can drop after layers -1 to 10, got {layer}"):
        budget_keep({"tokens": 192}, POCKET, layer)


def test_parts_of_a_budget_add_up():
    for tokens, whole in ((192, (162, 30)), (128, (108, 20)), (64, (54, 10)), (288, (243, 45))):
        parts = [budget_keep({"tokens": tokens}, LLAVA, -1, share) for share in (0.84375, 0.15625)]
        assert tuple(parts) == whole


@pytest.mark.parametrize("form", [tome_removed, vtw_layer])
def test_no_budget_is_said(form):
    with pytest.raises(ValueError, match="no budget to compute it from"):
        form(None, LLAVA)
