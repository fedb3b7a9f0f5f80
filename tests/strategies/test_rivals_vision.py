"""The rivals in and behind the encoder: what they keep and mix, by plain loops."""

import naive_vision as naive
import numpy as np
import pytest
import torch
from fake_views import vision_view
from models import encoder_blocks, greedy, prompt, tiny_llava
from torch import Tensor

from mustdrop import TokenDropper
from mustdrop.functional import complement, even_regions, outliers
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.pairwise import bipartite_matching
from mustdrop.reduction import Reduction
from mustdrop.strategy import ModelFacts, VisionStrategy
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune, cosine_distance, farthest
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe, merge_schedule
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

TOKENS, HEADS, DIM = 36, 3, 8
FACTS = ModelFacts(depth=6, blocks=4, grid=(6, 6), has_cls=True, feature_block=2)


def made_up(seed: int = 0, cls: bool = True, copies: int = 1, scale: float = 1.0, **given):
    """(view, its hidden, queries, keys [heads, all, dim], [CLS] attention [heads, tokens])."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        few = torch.randn(*shape[:-2], shape[-2] // copies, shape[-1], generator=random)
        return few.repeat_interleave(copies, -2)

    hidden = draw(TOKENS, DIM)
    query, key = (
        torch.cat(
            [torch.randn(HEADS, int(cls), DIM, generator=random), draw(HEADS, TOKENS, DIM)], 1
        )
        for _ in range(2)
    )
    attention = (scale * draw(1, TOKENS, HEADS)[0].T).softmax(-1)
    view = vision_view(
        hidden, has_cls=cls, queries_keys=lambda block: (query, key),
        cls_attention=lambda block: attention, **given,
    )  # fmt: skip
    return view, hidden, query, key, attention


def joined(heads: Tensor) -> np.ndarray:
    """[heads, tokens, dim] -> [tokens, channels], as before the heads were split."""
    return torch.cat(list(heads), -1).double().numpy()


STRATEGIES: dict[str, VisionStrategy] = {
    "tome": ToMe([9]),
    "tome_forgetful": ToMe([9], proportional_attention=False, weighted=False),
    "prumerge": PruMerge(9, neighbours=4),
    "prumerge_adaptive": PruMerge(neighbours=4),
    "prumerge_paper": PruMerge(9, neighbours=4, variant="paper"),
    "prumerge_plus": PruMergePlus(9, neighbours=4),
    "prumerge_plus_adaptive": PruMergePlus(neighbours=4, variant="paper"),
    "visionzip": VisionZip(6, 3),
    "fastervlm": ClsTopK(9, block=-2),
    "vispruner": VisPruner(9),
    "divprune": DivPrune(9),
    "average_pool": AveragePool(9),
}


def place(strategy: VisionStrategy) -> dict:
    return {"block": 0} if strategy.inside_block else {"block": strategy.places[0]}


@pytest.mark.parametrize("copies", [1, 2, 36])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_reduction_is_sound(name, copies):
    """Places are distinct, mixes what is declared; duplicated patches change nothing of that."""
    strategy = STRATEGIES[name]
    view, hidden, *_ = made_up(copies=copies, **place(strategy))
    decision = strategy.reduce(view)
    keep = decision.keep
    assert len(keep.unique()) == len(keep) and int(keep.min()) >= 0 and int(keep.max()) < TOKENS
    if "adaptive" not in name:
        assert len(keep) == (27 if name.startswith("tome") else 9)
    cls = torch.zeros(len(keep)) if decision.cls is None else decision.cls
    if decision.mix is not None:
        assert decision.sizes is not None and decision.mix.dtype == torch.float32
        if strategy.normalised:
            torch.testing.assert_close(decision.mix.sum(1), torch.ones(len(keep)))
        assert (decision.mix[torch.arange(len(keep)), keep] + cls > 0).all()
        weighted = (decision.mix > 0).sum(1) + (cls > 0)
        assert torch.equal(decision.sizes, weighted.float())
    again = strategy.reduce(view)
    token = torch.ones(DIM)
    assert torch.equal(again.keep, keep) and torch.equal(
        again(hidden, token), decision(hidden, token)
    )


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("r", [0, 1, 7, 100])
@pytest.mark.parametrize("weighted", [True, False])
def test_tome_merges_the_most_similar_pairs(r, cls, weighted):
    sizes = torch.randint(1, 5, (TOKENS,), generator=torch.Generator().manual_seed(0)).float()
    view, hidden, _, key, _ = made_up(cls=cls, block=0, sizes=sizes)
    decision = ToMe([r], proportional_attention=weighted, weighted=weighted).reduce(view)
    groups = naive.tome_groups(key.mean(0).double().numpy(), r, cls)
    groups = [[token - cls for token in group] for group in groups][int(cls) :]
    assert decision.keep.tolist() == [group[0] for group in groups]
    assert len(groups) == TOKENS - min(r, TOKENS // 2)
    own = sizes if weighted else torch.ones(TOKENS)
    expected = [(own[g, None] * hidden[g]).sum(0) / own[g].sum() for g in groups]
    torch.testing.assert_close(decision(hidden), torch.stack(expected))
    found = sizes if decision.sizes is None else decision.sizes
    assert torch.equal(found, torch.stack([sizes[group].sum() for group in groups]))


@pytest.mark.parametrize("cls", [True, False])
def test_matching_gives_ties_to_the_earlier_token(cls):
    stay, leave, partner = bipartite_matching(torch.ones(10, 3), 3, cls)
    assert leave.tolist() == [i + cls for i in range(3)] and partner.tolist() == [0, 0, 0]
    assert stay.tolist() == ([0, 4] if cls else [3, 4])


@pytest.mark.parametrize("tokens", [1, 2, 3])
@pytest.mark.parametrize("cls", [True, False])
def test_matching_a_few_tokens_never_takes_more_than_half(tokens, cls):
    stay, leave, _ = bipartite_matching(torch.rand(tokens, 4), 5, cls)
    assert len(leave) == (tokens - cls) // 2
    assert sorted(stay.tolist() + leave.tolist()) == list(range((tokens + 1) // 2))


def test_a_schedule_is_a_constant_a_line_or_a_list():
    assert merge_schedule(16, 4) == [16] * 4
    assert merge_schedule(8, 5, inflect=-1.0) == [16, 12, 8, 4, 0]
    assert merge_schedule(8, 5, inflect=1.0) == [0, 4, 8, 12, 16]
    assert merge_schedule([3, 2], 4) == [3, 2, 0, 0]
    assert merge_schedule(5, 1) == [5]
    with pytest.raises(ValueError, match="this encoder has 1 blocks, got a list of 2"):
        merge_schedule([3, 2], 1)
    with pytest.raises(ValueError, match=r"inflect must be in \[-1, 1\], got 2"):
        merge_schedule(5, 4, inflect=2.0)


@pytest.mark.parametrize("neighbours", [0, 4, 100])
@pytest.mark.parametrize("keep", [None, 1, 2, 9, 35, 36, 99])
@pytest.mark.parametrize("plus", [False, True])
def test_prumerge_mixes_as_the_code_does(plus, keep, neighbours):
    view, _, query, key, _ = made_up(seed=3)
    decision = (PruMergePlus if plus else PruMerge)(keep, neighbours=neighbours).reduce(view)
    keys = joined(key)
    score = naive.cls_attention(joined(query), keys)
    ranked = naive.by_score(score)
    count = naive.standing_out(score) if keep is None else TOKENS if keep >= TOKENS else keep - 1
    assert keep is not None or 0 < count < TOKENS // 6, "this case proves nothing"
    kept = ranked[:count]
    if plus and keep is None:
        kept += [t for t in range(0, TOKENS - 1, TOKENS // count // 3) if t not in kept]
    elif plus:
        spaced = count // 2
        kept = ranked[: count - spaced]
        rest = [token for token in range(TOKENS) if token not in kept]
        kept += [rest[int((i + 0.5) * len(rest) / spaced)] for i in range(spaced)]
    mix = naive.prumerge_mix(score, keys[1:], kept, neighbours)
    dropped = [token for token in ranked if token not in kept]
    assert decision.keep.tolist() == [*kept, *dropped[:1]]
    assert decision.mix is not None
    if not dropped:  # the code's last token, of zeros
        mix = mix[:-1]
    torch.testing.assert_close(decision.mix.double(), torch.from_numpy(mix), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [1, 9])
def test_prumerge_of_the_paper_averages(keep):
    view, _, _, key, attention = made_up()
    decision = PruMerge(keep, neighbours=4, variant="paper").reduce(view)
    score = attention.mean(0).double().numpy()
    kept = naive.by_score(score)[: keep - 1]
    mix = naive.prumerge_mix(score, joined(key)[1:], kept, 4)
    for row, centre in zip(mix, kept, strict=False):
        row[centre] = score[centre]
    mix /= mix.sum(1, keepdims=True)
    assert decision.mix is not None
    torch.testing.assert_close(decision.mix.double(), torch.from_numpy(mix), atol=1e-6, rtol=1e-5)


def cls_attention_of(score: Tensor):
    """A view whose [CLS] attends as ``score`` says, in the reading of the paper."""
    tokens = len(score)
    keys = torch.randn(1, tokens + 1, 4, generator=torch.Generator().manual_seed(0))
    return vision_view(
        torch.rand(tokens, 2),
        queries_keys=lambda block: (keys, keys),
        cls_attention=lambda block: score[None],
    )


def test_where_nothing_stands_out_prumerge_keeps_the_remainder_alone():
    score = torch.full((TOKENS,), 1 / TOKENS)
    decision = PruMerge(variant="paper").reduce(cls_attention_of(score))
    assert decision.keep.tolist() == [0] and decision.mix is not None
    torch.testing.assert_close(decision.mix, score[None])
    decision = PruMergePlus(variant="paper").reduce(cls_attention_of(score))
    assert decision.keep.tolist() == [0, 12, 24, 1]  # steps of a third, and the remainder


@pytest.mark.parametrize(("out", "kept"), [(6, 24), (7, 35), (9, 35)])
def test_prumerge_plus_keeps_all_but_the_last_where_a_sixth_stands_out(out, kept):
    score = torch.full((TOKENS,), 0.01)
    score[1 : 2 * out : 2] = 1.0 + torch.arange(out) / 100
    decision = PruMergePlus(variant="paper").reduce(cls_attention_of(score))
    assert int(outliers(score).sum()) == out
    grid = range(0, TOKENS - 1, TOKENS // out // 3)
    *centres, remainder = decision.keep.tolist()
    assert len(centres) == kept and set(centres) == {*grid, *range(1, 2 * out, 2)}
    assert remainder not in centres


def test_where_all_are_kept_there_is_no_remainder():
    score = torch.full((TOKENS,), 0.01)
    score[-9:] = 1.0
    decision = PruMergePlus(variant="paper").reduce(cls_attention_of(score))
    assert sorted(decision.keep.tolist()) == list(range(TOKENS))


def test_no_more_than_a_quarter_stands_out():
    """So that the step of PruMerge+, which fails over a third, is always 1 or more."""
    for seed in range(50):
        score = torch.rand(57, generator=torch.Generator().manual_seed(seed)) ** (seed % 20)
        assert int(outliers(score).sum()) <= 57 / 4


def test_tokens_without_any_attention_average_to_their_mean():
    score = torch.zeros(TOKENS)
    score[4] = 1.0
    decision = PruMerge(2, neighbours=3, variant="paper").reduce(cls_attention_of(score))
    assert decision.mix is not None and decision.mix.isfinite().all()
    torch.testing.assert_close(decision.mix.sum(1), torch.ones(2))


@pytest.mark.parametrize("contextual", [0, 1, 5, 20])
@pytest.mark.parametrize("dominant", [1, 2, 16])
def test_visionzip_keeps_cls_the_dominant_and_the_contextual(dominant, contextual):
    view, hidden, _, key, attention = made_up()
    decision = VisionZip(dominant, contextual).reduce(view)
    score = attention.double().sum(0).numpy()
    metric = key.mean(0)[1:].double().numpy()
    chosen, rows = naive.visionzip_rows(score, metric, dominant, contextual)
    targets = [next(iter(row)) for row in rows]
    places = decision.keep.tolist()
    if dominant + contextual <= TOKENS:
        assert places[1:] == chosen + targets
        free = [token for token in naive.by_score(score) if token not in places[1:]]
        assert places[0] == free[0]
    cls = torch.full((DIM,), 5.0)
    expected = [cls, *hidden[chosen]]
    expected += [sum(weight * hidden[token] for token, weight in row.items()) for row in rows]
    torch.testing.assert_close(decision(hidden, cls), torch.stack(expected))
    assert decision.sizes is not None
    gone = 0 if contextual else TOKENS - dominant + 1
    assert int(decision.sizes.sum()) == TOKENS - gone + 1  # [CLS] is one too


@pytest.mark.parametrize(("dominant", "contextual"), [(36, 1), (37, 0), (99, 0), (1, 99), (30, 7)])
def test_visionzip_of_all_patches_has_no_place_for_cls(dominant, contextual):
    decision = VisionZip(dominant, contextual).reduce(made_up()[0])
    assert decision.keep.tolist() == list(range(TOKENS)) and decision.cls is None


def test_visionzip_of_all_places_gives_cls_the_last():
    decision = VisionZip(30, 6).reduce(made_up()[0])
    assert sorted(decision.keep.tolist()) == list(range(TOKENS))


@pytest.mark.parametrize("keep", [0, 1, 2, 9, 35, 36, 99])
def test_divprune_takes_the_farthest(keep):
    view, hidden, *_ = made_up(block="projected")
    distance = cosine_distance(hidden)
    expected = naive.divprune(distance.numpy(), min(keep, TOKENS)) if keep else []
    assert farthest(distance, keep).tolist() == expected
    assert DivPrune(keep).reduce(view).keep.tolist() == sorted(expected)


def test_divprune_chooses_nobody_twice():
    distance = torch.eye(5) * 1e-7  # all alike, each a rounding error away from itself
    assert farthest(distance, 4).tolist() == [0, 1, 2, 3]
    assert len(set(farthest(distance, 4, allow_repeats=True).tolist())) == 1


def test_divprune_of_one_token():
    assert DivPrune(1).reduce(vision_view(torch.rand(1, 3))).keep.tolist() == [0]


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 20, 35, 36, 99])
@pytest.mark.parametrize("important", [0.0, 0.5, 1.0])
def test_vispruner_weeds_out_duplicates(keep, important):
    view, hidden, _, _, attention = made_up()
    found = VisPruner(keep, important).reduce(view).keep.tolist()
    keep = min(keep, TOKENS)
    score, states = attention.double().mean(0).numpy(), hidden.double().numpy()
    if (keep, important) == (1, 0.0):
        assert len(found) == 1  # the list ends in a single pair: no plain reading of the code
    elif keep == TOKENS or keep == 0:
        assert found == list(range(keep))
    else:
        count = int(keep * important)
        assert found == sorted(naive.vispruner(score, states, keep, count))


@pytest.mark.parametrize("grid", [(6, 6), (4, 9), (9, 4), (1, 7), (24, 24)])
def test_regions_are_even_boxes_that_partition_the_grid(grid):
    cells = grid[0] * grid[1]
    for keep in {*range(1, min(cells, 60) + 1), cells // 3, cells // 2, cells - 1, cells}:
        regions = even_regions(*grid, keep)
        firsts = []
        for region in range(keep):
            rows, columns = (regions == region).nonzero(as_tuple=True)
            size = len(rows)
            box = (int(rows.max() - rows.min()) + 1) * (int(columns.max() - columns.min()) + 1)
            assert size == box > 0
            assert cells / keep / 2 <= size <= 2 * cells / keep
            firsts.append((int(rows[0]), int(columns[0])))
        assert firsts == sorted(firsts), "raster order"
    assert regions.shape == grid and even_regions(*grid, cells).flatten().tolist() == [
        *range(cells)
    ]


@pytest.mark.parametrize("keep", [0, 37])
def test_regions_that_cannot_be_are_refused(keep):
    with pytest.raises(ValueError, match=rf"keep must be in \[1, 36\], got {keep}"):
        even_regions(6, 6, keep)


@pytest.mark.parametrize("keep", [1, 2, 9, 10, 35])
def test_pooling_gives_the_mean_of_each_region(keep):
    view, hidden, *_ = made_up(block="projected")
    decision = AveragePool(keep).reduce(view)
    regions = even_regions(6, 6, keep).flatten()
    means = [hidden[regions == region].mean(0) for region in range(keep)]
    torch.testing.assert_close(decision(hidden), torch.stack(means))
    assert regions[decision.keep].tolist() == list(range(keep))
    assert decision.keep.tolist() == sorted(decision.keep.tolist())
    assert decision.sizes is not None and int(decision.sizes.sum()) == TOKENS


@pytest.mark.parametrize("keep", [36, 100])
def test_pooling_to_all_patches_changes_nothing(keep):
    decision = AveragePool(keep).reduce(made_up(block="projected")[0])
    assert decision.mix is None and decision.keep.tolist() == list(range(TOKENS))
    assert len(AveragePool(0).reduce(made_up()[0])) == 0


def test_pooling_a_grid_that_was_cut():
    """Rows 0 and 5 were cut away: of nine regions each loses cells, of 36 some have none left."""
    cells = torch.arange(6, 30)
    view = vision_view(torch.rand(24, 2), grid=(6, 6), cells=cells, sizes=torch.ones(24))
    decision = AveragePool(9).reduce(view)
    assert decision.sizes is not None and decision.mix is not None
    assert decision.sizes.tolist() == [2, 2, 2, 4, 4, 4, 2, 2, 2]
    torch.testing.assert_close(decision.mix.sum(1), torch.ones(9))
    assert AveragePool(36).reduce(view).keep.tolist() == list(range(24))


def test_one_images_outliers_are_its_own():
    """The authors' code pools the batch; here a loud neighbour does not change an image's count."""
    quiet, loud = torch.rand(50), 100 * torch.rand(50)
    quiet[:3] += 4
    assert outliers(quiet).nonzero().flatten().tolist() == [0, 1, 2]
    assert int(outliers(torch.cat([quiet, loud]))[:50].sum()) == 0


def test_small_functions_mean_what_they_say():
    assert complement(torch.tensor([4, 0]), 6).tolist() == [1, 2, 3, 5]
    assert complement(torch.arange(3), 3).tolist() == []
    group, weight = torch.tensor([1, 0, 1]), torch.tensor([1.0, 5.0, 3.0])
    mix = Reduction.averages(torch.tensor([1, 0]), group, weight).mix
    assert mix.tolist() == [[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]]


@pytest.mark.parametrize("name", STRATEGIES)
def test_needs_of_the_encoder_are_checked_before_work(name):
    strategy = STRATEGIES[name]
    strategy.check(FACTS)
    bare = ModelFacts(depth=6, blocks=4, grid=(6, 6), has_cls=False, feature_block=2)
    if name.startswith(("tome", "divprune", "average_pool")):
        strategy.check(bare)
        view, hidden, *_ = made_up(cls=False, **place(strategy))
        assert len(strategy.reduce(view)(hidden)) < TOKENS
    else:
        with pytest.raises(ValueError, match="this encoder has no"):
            strategy.check(bare)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ToMe([5, -1]), r"merged_per_block\[1\] must be a count"),
        (lambda: ToMe([5], weighted=False), "which weighted=False ignores"),
        (lambda: ToMe([1, 1, 1, 1]).check(FACTS), "got a merge in block 3"),
        (lambda: ToMe([0] * 6 + [2]).check(FACTS), "the encoder has blocks 0 to 3, got 6"),
        (lambda: PruMerge(0), "keep must be 1 or more"),
        (lambda: PruMergePlus(-2), "keep must be 1 or more"),
        (lambda: PruMerge(neighbours=-1), "neighbours must be a count"),
        (lambda: PruMerge(block=9).check(FACTS), "the encoder has blocks 0 to 3, got 9"),
        (
            lambda: VisionZip(0, 3),
            r"dominant must be 1 or more, as \[CLS\] counts, or a Budget, got 0",
        ),
        (lambda: VisionZip(4, -1), "contextual must be a count"),
        (lambda: DivPrune(-1), "keep must be a count"),
        (lambda: AveragePool(-1), "keep must be a count"),
        (lambda: VisPruner(4, important_ratio=1.5), r"a share in \[0, 1\], got 1.5"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_work_is_counted():
    """Multiply-accumulates of similarities, from shapes."""
    channels = HEADS * DIM
    expected = {
        "tome": 19 * 18 * DIM,
        "prumerge": 37 * channels + 8 * TOKENS * channels,
        "visionzip": 31 * 3 * DIM,
        "vispruner": TOKENS**2 * DIM,
        "divprune": TOKENS**2 * DIM,
        "average_pool": 0,
    }
    for name, macs in expected.items():
        spent: list[int] = []
        strategy = STRATEGIES[name]
        strategy.reduce(made_up(count_macs=spent.append, **place(strategy))[0])
        assert sum(spent) == macs, name


def test_cls_attention_weighs_tokens_by_their_patches():
    """As the block's own: sizes enter a strategy's scores as they enter the model's."""
    model = tiny_llava("eager")
    seen = []
    block = encoder_blocks(model)[3]
    hook = block.self_attn.register_forward_hook(lambda module, args, out: seen.append(out[1]))
    dropper = TokenDropper(vision=ToMe((9, 5, 3)), key_tokens=ClsAttention("ratio", block=3))
    with dropper.attach(model) as run:
        greedy(model, prompt(model), steps=1)
    hook.remove()
    (weights,) = seen
    torch.testing.assert_close(run.images[0].cls_attention[3], weights[0, :, 0, 1:])
    assert run.images[0].sizes.max() > 1
