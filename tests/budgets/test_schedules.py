"""Strategies that drop by a budget: the counts that they plan are what is executed."""

import pytest

from mustdrop.budget import Budget, average, keep_for
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.sparsevlm import SparseVLM, recycled
from mustdrop.prefill.vtw import VTW
from mustdrop.schedule import executed_average, least_average
from mustdrop.vision.prumerge import PruMerge
from mustdrop.vision.tome import ToMe, removed_per_block
from mustdrop.vision.visionzip import VisionZip

LLAVA = {"vision_tokens": 576, "layers": 32, "merging_blocks": 23}
POCKET = {"vision_tokens": 576, "layers": 12, "merging_blocks": 3}
MODELS = [LLAVA, POCKET, {"vision_tokens": 2880, "layers": 40, "merging_blocks": 23}]
LAYERS = {32: [1, 7, 15], 12: [0, 2, 5], 40: [2, 9, 19]}
BUDGETS = [288, 192, 144, 128, 100, 64]


def pyramid(tokens, layers, model=LLAVA):
    strategy = PyramidDrop(Budget(tokens=tokens), layers)
    return strategy.plan(model["vision_tokens"], model["layers"]).ratios


def sparse(tokens, layers, model=LLAVA, recycle=0.3, per_cluster=10):
    budget = Budget(tokens=tokens)
    strategy = SparseVLM(keep=budget, layers=layers, recycle=recycle, per_cluster=per_cluster)
    return list(strategy.plan(model["vision_tokens"], model["layers"]).keep)


def least(strategy, model=LLAVA):
    facts = (model[name] for name in ("vision_tokens", "merging_blocks", "layers"))
    return least_average(strategy, *facts)


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
    ratios, counts = pyramid(tokens, layers, model), sparse(tokens, layers, model)
    if tokens < lowest:
        assert least(PyramidDrop(Budget(tokens=tokens), layers), model) == lowest
        # what is recycled stays in any case
        fewest = average(entered, recycled(entered, [0, 0, 0], 0.3, 10), layers, depth)
        assert least(SparseVLM(keep=Budget(tokens=tokens), layers=layers), model) == fewest
        assert lowest < fewest < lowest + 20
        assert not any(ratios) and not any(counts)
        return
    kept = [int(entered * ratio) for ratio in ratios]
    executed = by_summing(entered, kept, layers, depth)
    assert executed == pytest.approx(average(entered, kept, layers, depth))
    assert tokens - 1 <= executed <= tokens + 0.1  # int() takes up to a token of each
    assert ratios[1] == pytest.approx(ratios[0] ** 2, abs=1e-5)
    executed = by_summing(entered, recycled(entered, counts, 0.3, 10), layers, depth)
    assert executed == pytest.approx(tokens, abs=0.5)
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("tokens", [576, 700])
def test_a_budget_of_all_tokens_or_more_keeps_all(tokens):
    budget = Budget(tokens=tokens)
    assert pyramid(tokens, [2, 6]) == (1.0, 1.0)
    assert sparse(tokens, [2, 6]) == [576, 576]
    assert keep_for(budget, 576, 32) == keep_for(budget, 576, 32, 5) == 576
    assert ToMe(budget).plan(576, 23).merged_per_block == (0,) * 23


def test_pyramids_are_those_of_their_author():
    """Solved for in Cooperx521/PyramidDrop's issue 29 and the golden budgets."""
    for tokens, ratio in ((192, 0.55960034), (128, 0.41974047), (64, 0.19157517)):
        assert pyramid(tokens, [1, 7, 15])[0] == pytest.approx(ratio, abs=1e-6)
    assert least(PyramidDrop(Budget(tokens=64), [7, 15, 23])) == 144
    assert average(576, [288, 144, 72], [7, 15, 23], 32) == 270


def test_the_authors_counts_of_sparsevlm_miss_their_budgets_as_executed():
    for counts, executed in (
        ([300, 200, 110], 206.5), ([303, 110, 36], 145.40625), ([66, 30, 17], 82.25),
    ):  # fmt: skip
        assert average(576, recycled(576, counts, 0.3, 10), [2, 6, 15], 32) == executed
    assert recycled(576, [300, 200, 110], 0.3, 10) == [309, 204, 113]


@pytest.mark.parametrize("layers", [[0], [2, 6, 15], [0, 1, 2, 3], [-1, 5]])
@pytest.mark.parametrize("recycle", [0.0, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("per_cluster", [1, 2, 10, 1000])
def test_counts_of_sparsevlm_follow_all_its_fields(layers, recycle, per_cluster):
    fewest = average(576, recycled(576, [0] * len(layers), recycle, per_cluster), layers, 32)
    keep = Budget(tokens=64)
    strategy = SparseVLM(keep=keep, layers=layers, recycle=recycle, per_cluster=per_cluster)
    assert least(strategy) == fewest
    for tokens in (576, 400, 192, 64, fewest, min(fewest + 1, 576)):
        counts = sparse(tokens, layers, LLAVA, recycle, per_cluster)
        if tokens < fewest:
            assert not any(counts)
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
    *first, last = sparse(tokens, layers, LLAVA, recycle, per_cluster)

    def miss(count: int) -> float:
        left = recycled(576, [*first, count], recycle, per_cluster)
        return abs(average(576, left, layers, 32) - tokens)

    assert miss(last) == min(miss(count) for count in range(first[-1] + 1))


def test_a_count_above_what_is_there_lets_nothing_leave():
    assert recycled(576, [600, 100, 300], 0.3, 10) == [576, 115, 115]


def test_the_least_average_itself_is_in_reach():
    layers = [2, 6, 15]
    assert pyramid(54, layers) == (0, 0, 0) and pyramid(54.5, layers) != (0, 0, 0)
    assert least(PyramidDrop(Budget(tokens=1), layers)) == 54
    fewest = average(576, recycled(576, [0, 0, 0], 0.3, 10), layers, 32)
    assert fewest == least(SparseVLM(keep=Budget(tokens=1), layers=layers)) == 57.03125
    assert sparse(fewest, layers) == [0, 0, 0]
    assert least(PruMerge(Budget(tokens=0))) == 1  # the dropped tokens become one
    assert least(FastV(Budget(share=0.01), layer=1)) == 36


@pytest.mark.parametrize("layers", [[3, 2], [2, 2], [2, 31], [-2, 3]])
@pytest.mark.parametrize("form", [pyramid, sparse])
def test_layers_that_no_schedule_has_are_refused(form, layers):
    with pytest.raises(ValueError, match="ascend"):
        form(192, layers)
    form(192, [-1, 30])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model["layers"]))
@pytest.mark.parametrize("tokens", [1, *BUDGETS])
def test_tome_ends_at_its_budget_and_never_merges_more_than_half(model, tokens):
    now, blocks = model["vision_tokens"], model["merging_blocks"]
    removed = list(ToMe(Budget(tokens=tokens)).plan(now, blocks).merged_per_block)
    lowest = -(-now // 2**blocks)
    assert least(ToMe(Budget(tokens=tokens)), model) == lowest
    tokens = max(tokens, lowest)
    for r in removed:
        assert 0 <= r <= now // 2
        now -= r
    assert now == tokens and len(removed) == model["merging_blocks"]
    assert removed == sorted(removed, reverse=True)


def test_tome_on_llava_is_as_even_as_can_be():
    """The lists of the card: 17 in 16 blocks and 16 in 7, and so on."""
    for tokens, high, blocks in ((192, 17, 16), (128, 20, 11), (64, 23, 6)):
        expected = [high] * blocks + [high - 1] * (23 - blocks)
        assert removed_per_block(tokens, 576, 23) == expected


def test_vtw_takes_the_nearest_whole_layer():
    for tokens, layer in ((192, 10), (128, 6), (64, 3), (270, 14)):
        assert VTW(Budget(tokens=tokens)).plan(576, 32) == VTW(layer)
    assert [VTW(Budget(tokens=t)).plan(576, 12).layer for t in (192, 128, 64)] == [3, 2, 0]
    assert VTW(Budget(share=0.5)).plan(2880, 32) == VTW(15)
    assert executed_average(None, VTW(15), 2880, 32) == 1440
    with pytest.raises(ValueError, match=r"VTW must know its layer before work starts, got layer"):
        _ = VTW(Budget(share=0.5)).layers


def test_a_count_is_the_nearest_and_the_least_average_is_in_reach():
    """Against all counts that there are, for every layer."""
    for layer in range(-1, 11):
        lowest = (layer + 1) * 576 / 12
        assert keep_for(Budget(tokens=lowest), 576, 12, layer) == 0
        for tokens in (lowest, lowest + 0.3, lowest + 7.77, 200.5, 333.3, 575.6, 576.0):
            if tokens >= lowest:
                executed = [average(576, [keep], [layer], 12) for keep in range(577)]
                nearest = min(abs(value - tokens) for value in executed)
                keep = keep_for(Budget(tokens=tokens), 576, 12, layer)
                assert abs(executed[keep] - tokens) == pytest.approx(nearest, abs=1e-9)


@pytest.mark.parametrize("entered", [64, 576, 577, 1184, 2880])
def test_a_share_is_met_for_any_number_of_tokens(entered):
    for percent in (5, 22.2, 50, 100):
        budget = Budget(share=percent / 100)
        for layer in (-1, 0, 3):
            keep = keep_for(budget, entered, 32, layer)
            executed = average(entered, [keep], [layer], 32)
            fewest = (layer + 1) * entered / 32
            assert abs(executed - max(budget.target(entered), fewest)) <= 0.5


@pytest.mark.parametrize("layer", [-2, 11, True])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(ValueError, match=rf"layer must be in \[-1, 10\], .* got {layer}"):
        keep_for(Budget(tokens=192), 576, 12, layer)


def test_the_two_counts_of_visionzip_add_up():
    for tokens, whole in ((192, (162, 30)), (128, (108, 20)), (64, (54, 10)), (288, (243, 45))):
        budget = Budget(tokens=tokens)
        assert VisionZip(budget, budget).counts(576) == whole
    for tokens in range(1, 577):
        budget = Budget(tokens=tokens)
        assert sum(VisionZip(budget, budget).counts(576)) == tokens
    assert VisionZip(Budget(tokens=64), 30).counts(576) == (54, 30)
