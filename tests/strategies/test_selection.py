"""Which tokens are chosen, recomputed by separate code from eager attention maps."""

import math

import pytest
import torch
from droppers import DROPPERS, mustdrop
from eager_maps import GRID, maps, survivors, vision_at
from models import batch, encoder_blocks, greedy, prompt, tiny_llava
from versions import ATTENTION, EAGER, needs_eager

from mustdrop import PrefillStrategy, Reduction, TokenDropper
from mustdrop.functional import even_cells, top_keep
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.prefill.text_topk import TextTopK
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.known_patches import KnownPatches
from mustdrop.vision.local_merge import LocalMerge


@pytest.fixture(scope="module", params=[EAGER])
def model(request):
    return tiny_llava(request.param, kv_heads=2)


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


@needs_eager
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("layer", [0, 2])
def test_fastv_keeps_what_the_last_token_looks_at(layer, kv_heads):
    model = tiny_llava("eager", kv_heads=kv_heads)
    attention, run = maps(model, TokenDropper(prefill=FastV(10, layer)), prompt(model))
    ledger = run.ledgers[0]
    at = vision_at(ledger, layer)
    score = [sum(float(head[-1, i]) for head in attention[layer]) for i in at]
    best = sorted(range(len(at)), key=lambda i: -score[i])[:10]
    assert survivors(ledger, layer) == sorted(int(ledger.alive[layer][at[i]]) for i in best)


@pytest.mark.parametrize(
    ("gamma", "alpha"), [(0.02, 0.1), (0.03, None), (None, 0.15)], ids=["both", "global", "alone"]
)
def test_dual_attention_follows_its_equations(model, inputs, gamma, alpha):
    strategy = DualAttention(gamma, alpha, layers=[1, 3])
    attention, run = maps(model, TokenDropper(prefill=strategy), inputs)
    ledger = run.ledgers[0]
    for layer in strategy.layers:
        at = vision_at(ledger, layer)
        text = range(at[-1] + 1, len(ledger.alive[layer]))
        heads = len(attention[layer])
        mean = {
            (t, j): sum(float(head[t, j]) for head in attention[layer]) / heads
            for t in text
            for j in at
        }
        share = {j: sum(mean[t, j] for t in text) for j in at}
        total = sum(share.values())
        keep = []
        for j in at:
            unimportant = gamma is None or share[j] <= gamma * total
            if alpha is not None:
                unimportant = unimportant and max(mean[t, j] for t in text) < alpha
            if not unimportant:
                keep.append(int(ledger.alive[layer][j]))
        assert survivors(ledger, layer) == keep
        assert keep and (layer > 1 or len(keep) < len(at)), "this case proves nothing"


def test_thresholds_that_would_drop_all_leave_the_best(model, inputs):
    strategy = DualAttention(1.0, 1.0, layers=[1], min_keep=3)
    attention, run = maps(model, TokenDropper(prefill=strategy), inputs)
    ledger = run.ledgers[0]
    at = vision_at(ledger, 1)
    share = attention[1].mean(0)[at[-1] + 1 :, at].sum(0)
    best = sorted(at[i] for i in share.topk(3).indices.tolist())
    assert survivors(ledger, 1) == best
    none_left = DualAttention(1.0, 1.0, layers=[1], min_keep=0)
    _, run = maps(model, TokenDropper(prefill=none_left), inputs)
    assert survivors(run.ledgers[0], 1) == []


@pytest.mark.parametrize("score", ["mean", "sum"])
def test_local_merge_merges_the_windows_that_are_alike(model, inputs, score):
    tau = 0.5 if score == "mean" else 36.0
    hidden = []
    block = encoder_blocks(model)[0]
    hook = block.register_forward_hook(lambda module, args, out: hidden.append(out[0, 1:]))
    with torch.inference_mode(), TokenDropper(LocalMerge(tau, score=score)).attach(model) as run:
        model(**inputs)
    hook.remove()
    image, patches = run.images[0], hidden[0]
    merged = {}
    for top in range(0, GRID, 3):
        for left in range(0, GRID, 3):
            cells = [(top + i) * GRID + left + j for i in range(3) for j in range(3)]
            pairs = [
                float(torch.cosine_similarity(patches[m], patches[n], dim=0))
                for m in cells
                for n in cells
                if m != n
            ]
            value = sum(pairs) / (len(pairs) if score == "mean" else 1)
            if value > tau:
                merged[cells[-1]] = cells
    assert 0 < len(merged) < (GRID // 3) ** 2, "this case proves nothing"
    gone = {cell for cells in merged.values() for cell in cells[:-1]}
    assert image.cells.tolist() == [cell for cell in range(GRID**2) if cell not in gone]
    expected = torch.stack(
        [patches[merged.get(cell, [cell])].mean(0) for cell in image.cells.tolist()]
    )
    torch.testing.assert_close(image.steps[0](patches), expected)
    assert int(image.sizes.sum()) == GRID**2


def cls_rows(model, dropper: TokenDropper, inputs, block: int) -> tuple[torch.Tensor, object]:
    """(eager attention of [CLS] to the tokens [heads, tokens], run)."""
    caught = []
    module = encoder_blocks(model)[block].self_attn
    hook = module.register_forward_hook(lambda module, args, out: caught.append(out[1]))
    with torch.inference_mode(), dropper.attach(model) as run:
        model(**inputs)
    hook.remove()
    return caught[0][0, :, 0, 1:], run


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_key_tokens_by_ratio_are_the_most_attended(model, inputs, heads):
    key = ClsAttention("ratio", ratio=0.15, heads=heads)
    dropper = TokenDropper(LocalMerge(0.5, score="mean"), key_tokens=key)
    attention, run = cls_rows(model, dropper, inputs, block=-1)
    image = run.images[0]
    joined = attention.mean(0) if heads == "mean" else attention.max(0).values
    best = joined.topk(math.ceil(0.15 * len(image.cells))).indices.sort().values
    assert image.protected.nonzero().flatten().tolist() == best.tolist()
    slots = run.ledgers[0].protected.nonzero().flatten()
    assert (slots - 3).tolist() == sorted(image.cells[best].tolist())


def test_key_tokens_by_outlier_exceed_the_quartiles(model, inputs):
    dropper = TokenDropper(key_tokens=ClsAttention("outlier", mu=1.0))
    attention, run = cls_rows(model, dropper, inputs, block=-1)
    score = sorted(attention.mean(0).tolist())

    def quantile(q: float) -> float:
        place = q * (len(score) - 1)
        low = math.floor(place)
        high = min(low + 1, len(score) - 1)
        return score[low] + (place - low) * (score[high] - score[low])

    mu = quantile(0.75) + 1.0 * (quantile(0.75) - quantile(0.25))
    expected = [bool(value > mu) for value in attention.mean(0)]
    assert run.images[0].protected.tolist() == expected
    assert any(expected) and not all(expected)


def test_key_tokens_by_threshold_exceed_it(model, inputs):
    dropper = TokenDropper(key_tokens=ClsAttention("threshold", mu=0.03))
    attention, run = cls_rows(model, dropper, inputs, block=-1)
    assert run.images[0].protected.tolist() == (attention.mean(0) > 0.03).tolist()


def test_cls_topk_keeps_what_cls_looks_at(model, inputs):
    attention, run = cls_rows(model, TokenDropper(ClsTopK(keep=11)), inputs, block=-1)
    best = attention.mean(0).topk(11).indices.sort().values
    assert run.images[0].cells.tolist() == best.tolist()
    assert survivors(run.ledgers[0], -1) == (best + 3).tolist()


def test_key_tokens_survive_every_stage(model, inputs):
    with mustdrop().attach(model) as run:
        greedy(model, inputs)
    ledger = run.ledgers[0]
    key = set(ledger.protected.nonzero().flatten().tolist())
    assert key
    for layer in range(ledger.depth):
        assert key <= set(ledger.alive[layer].tolist())
        assert key <= set(ledger.cached[layer].tolist())


@pytest.mark.parametrize(
    "strategy", [FastV(1, 1), Random(1), TextTopK(1, 1), UniformGrid(1)], ids=str
)
def test_protected_tokens_stay_even_beyond_the_count(model, inputs, strategy):
    key = ClsAttention("ratio", ratio=0.2)
    _, run = maps(model, TokenDropper(key_tokens=key, prefill=strategy), inputs)
    ledger = run.ledgers[0]
    protected = ledger.protected.nonzero().flatten().tolist()
    assert len(protected) == math.ceil(0.2 * 36)
    assert survivors(ledger, strategy.layer) == protected


def test_output_aware_keeps_the_last_layers_survivors(model, inputs):
    with DROPPERS["all_stages"].attach(model) as run:
        greedy(model, inputs)
    ledger = run.ledgers[0]
    last = ledger.alive[5].tolist()
    for layer in range(6):
        expected = ledger.alive[layer].tolist() if layer < 1 else last
        assert ledger.cached[layer].tolist() == expected


def test_random_draws_depend_on_sample_and_seed_alone(model):
    def kept(image: int, seed: int) -> list[int]:
        dropper = TokenDropper(prefill=Random(keep=8, seed=seed))
        _, run = maps(model, dropper, prompt(model, seed=image))
        return survivors(run.ledgers[0], -1)

    assert kept(0, 0) == kept(0, 0)
    assert kept(0, 0) != kept(1, 0)
    assert kept(0, 0) != kept(0, 1)
    assert len(kept(0, 0)) == 8


def test_random_draws_are_uniform(model, inputs):
    hits = torch.zeros(36)
    for seed in range(100):
        _, run = maps(model, TokenDropper(prefill=Random(keep=9, layer=-1, seed=seed)), inputs)
        hits[[at - 3 for at in survivors(run.ledgers[0], -1)]] += 1
    expected = 100 * 9 / 36
    chi2 = float(((hits - expected) ** 2 / expected).sum())
    assert chi2 < 70, f"chi2 {chi2:.0f} with 35 degrees of freedom"


@pytest.mark.parametrize("keep", [1, 4, 9, 10, 24, 36])
def test_uniform_grid_is_even(model, keep):
    _, run = maps(model, TokenDropper(prefill=UniformGrid(keep)), prompt(model))
    cells = [at - 3 for at in survivors(run.ledgers[0], -1)]
    assert len(set(cells)) == keep
    assert cells == sorted(even_cells(GRID, GRID, keep).tolist())
    half = sum(cell // GRID < GRID // 2 for cell in cells)
    assert abs(half - keep / 2) <= max(1, keep / 4)


def test_uniform_grid_shares_its_count_among_images(model):
    _, run = maps(model, TokenDropper(prefill=UniformGrid(9)), prompt(model, images=2))
    images = [(at - 3) // 36 for at in survivors(run.ledgers[0], -1)]
    assert sorted(images.count(i) for i in (0, 1)) == [4, 5]


class LookAhead(PrefillStrategy):
    """Drops at the input by what layer 0 is about to see; looks at layer 3 from before or after."""

    def __init__(self, layer: int) -> None:
        self.layers, self.seen = (-1, layer), {}

    def reduce(self, view) -> Reduction:
        attention = view.attention(rows="text", of="this" if view.layer == 3 else "next")
        self.seen[view.layer, len(view.grids)] = attention
        keep = len(view) - (9 if view.layer < 0 else 0)
        return Reduction(top_keep(attention.mean(0)[-1], keep))


@pytest.mark.parametrize("implementation", ATTENTION)
def test_looking_ahead_sees_what_the_next_layer_will(implementation):
    model = tiny_llava(implementation)
    alone = [prompt(model, flat=0.5), prompt(model, before=9, after=4, images=2, seed=4)]
    before, after = LookAhead(2), LookAhead(3)
    for strategy in (before, after):
        with torch.inference_mode(), TokenDropper(prefill=strategy).attach(model) as run:
            model(**batch(*alone))
    plain = tiny_llava("eager")
    for images, (single, ledger) in enumerate(zip(alone, run.ledgers, strict=True), start=1):
        with torch.inference_mode():
            first = plain(**single, output_attentions=True).attentions[0][0]
        vision = ledger.vision.nonzero().flatten()
        expected = first[:, int(vision[-1]) + 1 :][..., vision]
        torch.testing.assert_close(before.seen[-1, images], expected)
        torch.testing.assert_close(before.seen[2, images], after.seen[3, images])
        assert before.seen[2, images].shape[-1] == len(vision) - 9
        assert ledger.scored_rows == {3: expected.shape[1]}
        # the look ahead forms queries, keys and values of all tokens of the prompt as well
        rows = expected.shape[1] * ledger.seq_len * 32
        assert ledger.decision_macs == ledger.seq_len * 32 * (32 + 2 * 16) + rows


@pytest.mark.parametrize("layer", [0, 2])
def test_text_topk_keeps_what_the_text_looks_at(model, layer):
    attention, run = maps(model, TokenDropper(prefill=TextTopK(10, layer)), prompt(model))
    ledger = run.ledgers[0]
    at = vision_at(ledger, layer)
    text = range(at[-1] + 1, len(ledger.alive[layer]))
    score = [sum(float(head[row, i]) for head in attention[layer] for row in text) for i in at]
    best = sorted(range(len(at)), key=lambda i: -score[i])[:10]
    assert survivors(ledger, layer) == sorted(int(ledger.alive[layer][at[i]]) for i in best)


def marked(*patches: int) -> dict[str, torch.Tensor]:
    mark = torch.zeros(GRID, GRID, dtype=torch.bool)
    mark.view(-1)[list(patches)] = True
    return {"target_patches": mark}


def test_known_patches_stay_first_or_leave_first(model):
    inputs = prompt(model, images=2)
    told = [marked(0, 7, 35), marked(*range(30))]

    def cells(**fields):
        with TokenDropper(vision=KnownPatches(**fields)).attach(model, told) as run:
            greedy(model, inputs)
        return [set(image.cells.tolist()) for image in run.images]

    first, second = cells(keep=8)
    assert {0, 7, 35} < first and len(first) == 8 and len(second) == 8 and second < set(range(30))
    first, second = cells(keep=8, invert=True)
    assert not first & {0, 7, 35} and len(first) == 8
    assert set(range(30, 36)) < second, "what is not marked stays first, then marked ones"
    assert cells(keep=None) == [{0, 7, 35}, set(range(30))]
    assert cells(keep=8) == cells(keep=8) != cells(keep=8, seed=1)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (None, "KnownPatches needs the annotation target_patches of every image"),
        ([], "annotations were given for 0 images, but image 0 was encoded"),
        (
            [{"objects": torch.zeros(6, 6)}],
            "image 0 needs the annotation target_patches, got: objects",
        ),
        ([{"target_patches": torch.zeros(6, 6)}], r"a boolean 6 x 6, got torch.float32 of 6 x 6"),
        ([{"target_patches": torch.zeros(36) > 0}], "a boolean 6 x 6, got torch.bool of 36"),
    ],
)
def test_what_has_to_be_known_and_is_not_is_said(model, inputs, told, message):
    dropper = TokenDropper(vision=KnownPatches(keep=8))
    with pytest.raises(ValueError, match=message), dropper.attach(model, told):
        greedy(model, inputs)
