"""SparseVLM, recomputed by loops from eager attention: raters, counts, clusters, what is merged."""

import math

import numpy as np
import pytest
import torch
from best import KEY, best
from eager_maps import survivors, vision_at
from fake_views import prefill_view
from models import batch, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.models import adapter_for
from mustdrop.pairwise import density_peaks
from mustdrop.prefill.sparsevlm import SparseVLM


@pytest.fixture(scope="module")
def model():
    return tiny_llava("eager", kv_heads=2)


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


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
        hidden=hidden, attention=lambda rows, of="this": attention[:, : len(rows)],
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
    original = SparseVLM.is_rater
    monkeypatch.setattr(
        SparseVLM, "is_rater", staticmethod(lambda view: calls.append(1) or original(view))
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
        36, layer=2, text=7, inputs=torch.randn(78, 4), count_macs=spent.append,
        hidden=torch.randn(36, 8), attention=lambda rows, of="this": attention,
        cached=lambda name, compute: compute()[:1].repeat(3),
    )  # fmt: skip
    SparseVLM(scale=2.0, bias=0.0, layers=[2]).reduce(view)
    recycled = int(0.3 * 30) + 1
    assert spent == [36 * 4 * 7, 2 * 36 * 3**2, recycled**2 * 8]


def test_where_rank_fills_the_tokens_nothing_leaves():
    attention = torch.eye(3)[None]
    view = prefill_view(
        3, layer=1, text=3, inputs=torch.ones(41, 4), attention=lambda rows, of="this": attention
    )
    decision = SparseVLM(scale=0.1, bias=0.0, layers=[1]).reduce(view)
    assert decision.keep.tolist() == [0, 1, 2] and decision.mix is None
    view = prefill_view(
        3, layer=1, text=3, inputs=torch.ones(41, 4), hidden=torch.randn(3, 4),
        attention=lambda rows, of="this": torch.ones(1, 3, 3),
    )  # fmt: skip
    decision = SparseVLM(scale=0.1, bias=-9.0, layers=[1]).reduce(view)
    assert decision.keep.tolist() == [0] and decision.mix is not None  # one merged token is left
