"""What the rivals of the prefill and the cache choose, recomputed by loops from eager attention."""

import math

import numpy as np
import pytest
import torch
from droppers import mustdrop
from fake_views import cache_view, prefill_view
from models import batch, greedy, prompt, tiny_llava
from test_selection import GRID, maps, survivors, vision_at

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.functional import density_peaks
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.models import adapter_for
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.keep_centre import KeepCentre
from mustdrop.prefill.keep_last import KeepLast
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.cls_topk import ClsTopK

KEY = ClsAttention("ratio", ratio=0.1)  # 4 of 36


@pytest.fixture(scope="module")
def model():
    return tiny_llava("eager", kv_heads=2)


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


def best(score, keep: int, first=()) -> list[int]:
    """Places of the highest scores, ``first`` above all, the earlier one of equals."""
    ranked = sorted(range(len(score)), key=lambda at: (at not in first, -score[at], at))
    return sorted(ranked[: max(keep, len(first))])


@pytest.mark.parametrize("layer", [0, 3])
def test_fastv_of_the_paper_keeps_what_all_tokens_look_at(model, inputs, layer):
    attention, run = maps(model, TokenDropper(prefill=FastV(10, layer, "all")), inputs)
    ledger, seen = run.ledgers[0], attention[layer]
    at = vision_at(ledger, layer)
    score = [sum(float(row[j]) for head in seen for row in head) for j in at]
    expected = [int(ledger.alive[layer][at[i]]) for i in best(score, 10)]
    assert survivors(ledger, layer) == expected
    last = maps(model, TokenDropper(prefill=FastV(10, layer)), inputs)[1].ledgers[0]
    assert survivors(last, layer) != expected, "this case proves nothing"


def test_pyramiddrop_keeps_what_the_next_layer_would_look_at(model, inputs):
    ratios, layers = [0.5, 0.3, 0.12], [0, 1, 4]
    _, run = maps(model, TokenDropper(prefill=PyramidDrop(ratios, layers)), inputs)
    ledger = run.ledgers[0]
    for stage, layer in enumerate(layers):
        # the same model up to this drop; then the next layer sees what is about to be dropped
        before = PyramidDrop(ratios[:stage], layers[:stage]) if stage else None
        attention, seen = maps(model, TokenDropper(prefill=before), inputs)
        at = vision_at(seen.ledgers[0], layer + 1)
        score = [sum(float(head[-1, j]) for head in attention[layer + 1]) for j in at]
        kept = best(score, int(36 * ratios[stage]))
        alive = seen.ledgers[0].alive[layer + 1]
        assert survivors(ledger, layer) == [int(alive[at[i]]) for i in kept]
    assert ledger.vision_per_layer() == [36, 18, 10, 10, 10, 4]


def test_pyramiddrop_counts_what_entered_the_model(model, inputs):
    dropper = TokenDropper(ClsTopK(keep=20), prefill=PyramidDrop([0.5, 0.25], [0, 2]))
    _, run = maps(model, dropper, inputs)
    assert run.ledgers[0].vision_per_layer() == [20, 10, 10, 5, 5, 5]


@pytest.mark.parametrize("key", [None, KEY], ids=["no keys", "keys"])
@pytest.mark.parametrize("layer", [-1, 0, 4])
def test_withdrawal_leaves_key_tokens_alone(model, inputs, layer, key):
    _, run = maps(model, TokenDropper(key_tokens=key, prefill=VTW(layer)), inputs)
    ledger = run.ledgers[0]
    protected = ledger.protected.nonzero().flatten().tolist()
    assert survivors(ledger, layer) == protected and len(protected) == (4 if key else 0)
    assert ledger.vision_per_layer() == [36] * (layer + 1) + [len(protected)] * (5 - layer)


def naive_peaks(points: np.ndarray, clusters: int):
    """(centres, cluster of each point), one number at a time."""
    count, dim = points.shape
    distance = [
        [math.sqrt(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / dim) for q in points]
        for p in points
    ]
    density = [math.exp(-sum(d * d for d in sorted(row)[:clusters]) / clusters) for row in distance]
    largest = max(max(row) for row in distance)
    score = []
    for i in range(count):
        denser = [distance[i][j] for j in range(count) if density[j] > density[i]]
        score.append(density[i] * min(denser, default=largest))
    centres = sorted(range(count), key=lambda i: (-score[i], i))[:clusters]
    cluster = [
        centres.index(i)
        if i in centres
        else min(range(clusters), key=lambda c: (distance[i][centres[c]], c))
        for i in range(count)
    ]
    return centres, cluster, density, score


@pytest.mark.parametrize(("count", "clusters"), [(1, 1), (2, 1), (2, 2), (7, 3), (40, 5), (40, 40)])
def test_density_peaks_are_those_of_the_loops(count, clusters):
    points = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    centres, cluster, density, score = naive_peaks(points.astype(np.float64), clusters)
    found = density_peaks(torch.from_numpy(points), clusters)
    assert found.centres.tolist() == centres
    assert found.cluster.tolist() == cluster
    torch.testing.assert_close(found.density, torch.tensor(density), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(found.score, torch.tensor(score), rtol=1e-5, atol=1e-7)


def test_equal_points_go_to_the_earlier_centre_and_none_is_empty():
    points = torch.zeros(9, 4)
    points[3:] = 5.0
    found = density_peaks(points, 3)
    assert found.centres.tolist() == [0, 1, 2]  # all equally dense: the earlier ones
    assert found.cluster.tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0]
    assert sorted(set(found.cluster.tolist())) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"clusters must be in \[1, 9\], got 10"):
        density_peaks(points, 10)


def test_far_points_never_meet_in_one_cluster():
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    points = centres.repeat_interleave(20, 0) + noise
    # density looks at as many neighbours as there are clusters: the three densest may be close
    found = density_peaks(points * 0.2, 3)
    blobs = [set(found.cluster[20 * i : 20 * i + 20].tolist()) for i in range(3)]
    assert all(len(blob) == 1 for blob in blobs) and len(set.union(*blobs)) == 3


def watched(model, strategy: SparseVLM, inputs, **options):
    """(run, eager maps, each layer's output, each layer's input) under a dropper."""
    layers = adapter_for(model).layers
    out, into = {}, {}
    with torch.inference_mode(), TokenDropper(prefill=strategy, **options).attach(model) as run:
        hooks = []
        for at, layer in enumerate(layers):
            hooks.append(layer.register_forward_pre_hook(
                lambda module, args, at=at: into.update({at: args[0][0]})
            ))  # fmt: skip
            hooks.append(layer.register_forward_hook(
                lambda module, args, made, at=at: out.update({at: made[0]})
            ))  # fmt: skip
        attentions = model(**inputs, output_attentions=True).attentions
        for hook in hooks:
            hook.remove()
    return run, [attention[0] for attention in attentions], out, into


def naive_sparsevlm(strategy, layer, heads, states, at, text, embeds, protected):
    """(places that stay, then each cluster's places with its centre first)."""
    vision, words = embeds
    share = np.zeros(len(words))
    for v in vision:
        dots = np.array([float((v * w).sum()) for w in words])
        weights = np.exp(dots - dots.max())
        share += weights / weights.sum() / len(vision)
    raters = [t for t in range(len(words)) if share[t] > share.mean()]
    table = np.array([[sum(float(h[text[t], j]) for h in heads) for j in at] for t in raters])
    table /= len(heads)
    relation = table.mean(0)
    if strategy.keep is None:
        rank = np.linalg.matrix_rank(table.astype(np.float32))
        if rank == len(at):
            return list(range(len(at))), []
        keep = min(int(rank * strategy.scale + strategy.bias), len(at) - 1)
    else:
        keep = strategy.keep[strategy.layers.index(layer)]
    stay = best(relation, keep, protected)
    gone = [i for i in range(len(at)) if i not in stay]
    if not gone:
        return stay, []
    chosen = [gone[i] for i in best(relation[gone], min(int(0.3 * len(gone)) + 1, len(gone)))]
    points = states[[at[i] for i in chosen]].numpy().astype(np.float64)
    centres, cluster, _, _ = naive_peaks(points, int(len(chosen) / 10) + 1)
    groups = [
        [chosen[centre]] + [chosen[i] for i, c in enumerate(cluster) if c == n and i != centre]
        for n, centre in enumerate(centres)
    ]
    return stay, groups


@pytest.mark.parametrize("key", [None, KEY], ids=["no keys", "keys"])
@pytest.mark.parametrize(
    "strategy",
    [
        SparseVLM(scale=3.0, bias=0.0, layers=[0, 1, 3]),
        SparseVLM(keep=[5, 3, 1], layers=[1, 2, 4]),
        SparseVLM(keep=[0], layers=[2]),
    ],
    ids=["rank", "counts", "none"],
)
def test_sparsevlm_keeps_ranks_and_merges_by_its_equations(model, inputs, strategy, key):
    run, attention, out, into = watched(model, strategy, inputs, key_tokens=key)
    ledger = run.ledgers[0]
    ids = inputs["input_ids"][0]
    with torch.inference_mode():
        pixels = model.get_image_features(inputs["pixel_values"]).pooler_output[0]
        embeds = pixels, model.get_input_embeddings()(ids[39:])
    merged = 0
    for layer in strategy.layers:
        alive, at = ledger.alive[layer], vision_at(ledger, layer)
        text = range(at[-1] + 1, len(alive))
        protected = {i for i, j in enumerate(at) if ledger.protected[alive[j]]}
        stay, groups = naive_sparsevlm(
            strategy, layer, attention[layer], out[layer], at, text, embeds, protected
        )
        slots = [*stay, *(group[0] for group in groups)]
        assert survivors(ledger, layer) == [int(alive[at[i]]) for i in slots]
        states = torch.stack(
            [out[layer][at[i]] for i in stay]
            + [out[layer][[at[i] for i in group]].mean(0) for group in groups]
        )
        start = at[0]
        torch.testing.assert_close(into[layer + 1][start : start + len(slots)], states)
        merged += len(groups)
    assert merged >= len(strategy.layers), "this case proves nothing"


def test_the_sizes_of_merged_tokens_add_up():
    hidden = torch.randn(36, 8, generator=torch.Generator().manual_seed(0))
    attention = torch.rand(2, 10, 36, generator=torch.Generator().manual_seed(1))
    sizes = torch.arange(1.0, 37.0)
    view = prefill_view(
        36, layer=2, sizes=sizes, inputs=torch.randn(81, 4),
        get_hidden=lambda: hidden, get_attention=lambda rows, of: attention[:, : len(rows)],
    )  # fmt: skip
    decision = SparseVLM(keep=[6], layers=[2], recycle=1.0).reduce(view)
    assert decision.mix is not None and decision.sizes is not None
    torch.testing.assert_close(decision.mix.sum(1), torch.ones(len(decision)))
    assert float(decision.sizes.sum()) == float(sizes.sum()), "recycle=1 loses nothing"
    assert ((decision.mix > 0).sum(0) == 1).all()


def test_without_a_rater_above_the_mean_all_text_rates():
    view = prefill_view(9, start=2, text=5, inputs=torch.ones(16, 4))
    assert SparseVLM.raters(view).tolist() == [0, 1, 2, 3, 4]
    view = prefill_view(9, start=2, text=1, inputs=torch.randn(12, 4))
    assert SparseVLM.raters(view).tolist() == [0]


def test_raters_are_asked_for_once_a_prompt(model, inputs, monkeypatch):
    calls = []
    original = SparseVLM.raters
    monkeypatch.setattr(
        SparseVLM, "raters", staticmethod(lambda view: calls.append(1) or original(view))
    )
    dropper = TokenDropper(prefill=SparseVLM(keep=[20, 9, 4], layers=[0, 2, 3]))
    other = prompt(model, before=2, after=12, seed=3)
    with torch.inference_mode(), dropper.attach(model):
        model(**batch(inputs, other))
    assert len(calls) == 2


def test_a_decision_tells_what_it_costs():
    spent = []
    attention = torch.rand(2, 3, 36)
    view = prefill_view(
        36, layer=2, text=7, inputs=torch.randn(78, 4), spend=spent.append,
        get_hidden=lambda: torch.randn(36, 8), get_attention=lambda rows, of: attention,
        get_once=lambda name, compute: compute()[:1].repeat(3),
    )  # fmt: skip
    SparseVLM(scale=2.0, bias=0.0, layers=[2]).reduce(view)
    recycled = int(0.3 * 30) + 1
    assert spent == [36 * 4 * 7, 2 * 36 * 3**2, recycled**2 * 8]


@pytest.mark.parametrize("keep", [0, 1, 5, 36, 50])
def test_the_last_are_the_last(model, keep):
    _, run = maps(model, TokenDropper(prefill=KeepLast(keep)), prompt(model))
    assert survivors(run.ledgers[0], -1) == list(range(39 - min(keep, 36), 39))


@pytest.mark.parametrize("keep", [0, 1, 4, 9, 20, 36, 50])
def test_the_centre_is_nearest_to_the_centre(model, keep):
    _, run = maps(model, TokenDropper(prefill=KeepCentre(keep)), prompt(model))
    middle = (GRID - 1) / 2
    far = [(cell // GRID - middle) ** 2 + (cell % GRID - middle) ** 2 for cell in range(GRID**2)]
    expected = best([-value for value in far], keep)
    assert [at - 3 for at in survivors(run.ledgers[0], -1)] == expected


def test_the_centre_is_shared_among_images(model):
    _, run = maps(model, TokenDropper(prefill=KeepCentre(9)), prompt(model, images=2))
    kept = [at - 3 for at in survivors(run.ledgers[0], -1)]
    first, second = ([cell % 36 for cell in kept if cell // 36 == image] for image in (0, 1))
    assert sorted([len(first), len(second)]) == [4, 5]
    assert first == [14, 15, 20, 21]  # the four in the middle of 6 x 6


def test_slots_off_the_grid_and_cells_that_are_gone_give_their_share_away():
    cells = torch.tensor([[0, 0, 0], [0, 1, 1], [-1, -1, -1], [1, 0, 0], [1, 1, 1], [1, 2, 2]])
    view = prefill_view(6, layer=-1, grid=(3, 3), image_count=3, get_cells=lambda: cells)
    # one each for three images, of which the third has no token; then the next nearest of all
    assert KeepCentre(3).reduce(view).keep.tolist() == [0, 1, 4]
    assert KeepCentre(5).reduce(view).keep.tolist() == [0, 1, 3, 4, 5]
    assert KeepCentre(6).reduce(view).keep.tolist() == [0, 1, 2, 3, 4, 5]


def naive_window(count: int, sinks: int, tokens: int, protected: set[int]) -> list[bool]:
    """Key tokens, then sinks from the front, then the last, until enough stay."""
    order = sorted(protected)
    order += [i for i in range(min(sinks, count)) if i not in protected]
    order += [i for i in reversed(range(count)) if i not in order]
    chosen = set(order[: max(tokens, len(protected))])
    return [i in chosen for i in range(count)]


@pytest.mark.parametrize("keys", [set(), {5}, {0, 8, 9}])
@pytest.mark.parametrize("sinks", [0, 1, 4, 30])
@pytest.mark.parametrize("tokens", [None, 0, 1, 4, 7, 12, 99])
def test_the_window_keeps_both_ends(tokens, sinks, keys):
    protected = torch.zeros(12, dtype=torch.bool)
    protected[list(keys)] = True
    survives = torch.arange(12) % 2 == 0
    view = cache_view(12, survives, protected=protected)
    found = SinkRecent(sinks, tokens).keep(view)
    assert found.tolist() == naive_window(12, sinks, 6 if tokens is None else tokens, keys)
    early = cache_view(12, survives, layer=1, protected=protected)
    assert SinkRecent(sinks, tokens).keep(early).all()


def test_the_window_costs_what_output_aware_costs(model, inputs):
    resident = []
    for decode in (OutputAware(1), SinkRecent(sinks=1, from_layer=1)):
        dropper = mustdrop()
        dropper = TokenDropper(dropper.vision, dropper.key_tokens, dropper.prefill, decode)
        with dropper.attach(model) as run:
            greedy(model, inputs)
        resident.append(run.ledgers[0])
    first, second = resident
    assert first.resident_per_layer() == second.resident_per_layer()
    assert any(first.cached[at].tolist() != second.cached[at].tolist() for at in range(1, 3))


STRATEGIES = {
    "fastv_paper": lambda keep: FastV(keep, 1, "all"),
    "keep_last": lambda keep: KeepLast(keep, 1),
    "keep_centre": lambda keep: KeepCentre(keep, 1),
    "pyramiddrop": lambda keep: PyramidDrop([min(keep, 36) / 36], [1]),
    "sparsevlm_fixed": lambda keep: SparseVLM(keep=[keep], layers=[1]),
    "sparsevlm": lambda keep: SparseVLM(scale=0.0, bias=float(keep), layers=[1]),
}


@pytest.mark.parametrize("keep", [0, 1, 35, 36, 99])
@pytest.mark.parametrize("name", STRATEGIES)
def test_none_one_and_more_than_there_are(model, name, keep):
    """In a ragged batch with a prompt of one word, and one without an image."""
    text = {
        "input_ids": torch.randint(6, 97, (1, 9)),
        "attention_mask": torch.ones(1, 9, dtype=torch.long),
        "pixel_values": torch.zeros(0, 3, 24, 24),
    }
    alone = [prompt(model), prompt(model, before=5, after=1, seed=2), text]
    with TokenDropper(prefill=STRATEGIES[name](keep)).attach(model) as run:
        _, logits = greedy(model, batch(*alone), steps=2)
    assert logits.isfinite().all()
    counts = [ledger.vision_per_layer()[2] for ledger in run.ledgers]
    assert counts[2] == 0
    if name.startswith("sparsevlm"):
        kept = min(keep, 36 if name == "sparsevlm_fixed" else 35)
        recycled = int(0.3 * (36 - kept)) + 1
        kept += int(recycled / 10) + 1 if kept < 36 else 0
        assert counts[:2] == [kept, kept]
    else:
        assert counts[:2] == [min(keep, 36)] * 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_duplicated_tokens_leave_by_their_place(model, name):
    """One colour: equal scores everywhere they can be; the same choice alone and in a batch."""
    flat = prompt(model, flat=1.0)
    other = prompt(model, before=2, after=12, seed=3)
    dropper = TokenDropper(prefill=STRATEGIES[name](7))
    with torch.inference_mode(), dropper.attach(model) as run:
        model(**batch(flat, other))
        together = run.ledgers[0]
        model(**flat)
    assert together.alive[2].tolist() == run.ledgers[0].alive[2].tolist()


def test_equal_scores_go_to_the_earlier_token():
    flat = torch.full((2, 4, 20), 0.05)
    given = {
        "layer": 1, "inputs": torch.ones(59, 4), "get_received": lambda: flat[0, 0],
        "get_attention": lambda rows, of: flat[:, : 1 if rows == "last" else 4],
        "text": 4,
        "get_hidden": lambda: torch.zeros(20, 8),
    }  # fmt: skip
    view = prefill_view(20, **given)
    assert FastV(3, 1, "all").reduce(view).keep.tolist() == [0, 1, 2]
    assert PyramidDrop([0.15], [1]).reduce(view).keep.tolist() == [0, 1, 2]
    merged = SparseVLM(keep=[3], layers=[1]).reduce(view)
    assert merged.keep.tolist() == [0, 1, 2, 3]
    assert merged.mix is not None
    assert (merged.mix[3] > 0).nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8]
    protected = torch.zeros(20, dtype=torch.bool)
    protected[[4, 17, 18, 19]] = True
    view = prefill_view(20, **given, protected=protected, protected_count=4)
    assert SparseVLM(keep=[3], layers=[1]).reduce(view).keep.tolist()[:4] == [4, 17, 18, 19]


def test_where_rank_fills_the_tokens_nothing_leaves():
    attention = torch.eye(3)[None]
    view = prefill_view(
        3, layer=1, text=3, inputs=torch.ones(41, 4), get_attention=lambda rows, of: attention
    )
    decision = SparseVLM(scale=0.1, bias=0.0, layers=[1]).reduce(view)
    assert decision.keep.tolist() == [0, 1, 2] and decision.mix is None
    view = prefill_view(
        3, layer=1, text=3, inputs=torch.ones(41, 4), get_hidden=lambda: torch.randn(3, 4),
        get_attention=lambda rows, of: torch.ones(1, 3, 3),
    )  # fmt: skip
    decision = SparseVLM(scale=0.1, bias=-9.0, layers=[1]).reduce(view)
    assert decision.keep.tolist() == [0] and decision.mix is not None  # one merged token is left


@pytest.mark.parametrize(
    "strategy",
    [PyramidDrop([0.05], [1]), SparseVLM(keep=[1], layers=[1]), VTW(1), FastV(1, 1, "all"),
     KeepLast(1, 1), KeepCentre(1, 1), Random(1, 1)],
    ids=lambda strategy: type(strategy).__name__,
)  # fmt: skip
def test_protected_tokens_stay_even_beyond_the_count(model, inputs, strategy):
    _, run = maps(model, TokenDropper(key_tokens=KEY, prefill=strategy), inputs)
    ledger = run.ledgers[0]
    protected = ledger.protected.nonzero().flatten().tolist()
    kept = survivors(ledger, 1)
    extra = len(kept) - len(protected)
    assert kept[: len(protected)] == protected and len(protected) == 4
    # 32 leave, 10 of them are recycled into 2
    assert extra == (2 if isinstance(strategy, SparseVLM) else 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SparseVLM(), "give scale and bias, or keep, and not both"),
        (lambda: SparseVLM(scale=1.0), "give scale and bias, or keep"),
        (lambda: SparseVLM(scale=1.0, bias=0.0, keep=[1], layers=[2]), "and not both"),
        (lambda: SparseVLM(keep=[1, 2], layers=[2]), "one count for each of 1 layers"),
        (lambda: SparseVLM(keep=[-1], layers=[2]), r"keep\[0\] must be a count"),
        (lambda: SparseVLM(keep=[2, 1], layers=[6, 2]), "layers must ascend"),
        (lambda: SparseVLM(keep=[2], layers=[2], recycle=1.5), r"recycle must be in \[0, 1\]"),
        (lambda: SparseVLM(keep=[2], layers=[2], per_cluster=0), "per_cluster must be 1 or more"),
        (lambda: SparseVLM(scale=-1.0, bias=0.0), "scale must be 0 or more"),
        (lambda: PyramidDrop([0.5], [1, 2]), "ratios must be one for each of 2 layers"),
        (lambda: PyramidDrop([0.5, 1.5], [1, 2]), r"ratios must be in \[0, 1\]"),
        (lambda: PyramidDrop([0.5, 0.5], [2, 2]), "layers must ascend"),
        (lambda: PyramidDrop([0.5], []), "layers must be a list"),
        (lambda: KeepLast(-1), "keep must be a count"),
        (lambda: KeepCentre(-1), "keep must be a count"),
        (lambda: SinkRecent(sinks=-1), "sinks must be a count"),
        (lambda: SinkRecent(tokens=-2), "tokens must be a count"),
    ],
)
def test_hyper_parameters_that_cannot_be_are_told(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize(
    "dropper",
    [
        TokenDropper(prefill=VTW(5)),
        TokenDropper(prefill=PyramidDrop([0.5, 0.2], [1, 5])),
        TokenDropper(prefill=SparseVLM(keep=[3], layers=[5])),
        TokenDropper(decode=SinkRecent(from_layer=7)),
    ],
    ids=lambda dropper: type(dropper.prefill or dropper.decode).__name__,
)
def test_layers_that_the_model_lacks_are_refused(model, dropper):
    with pytest.raises(ValueError, match=r"layers -1 to 4|from_layer must be in \[0, 6\]"):
        dropper.attach(model).__enter__()
