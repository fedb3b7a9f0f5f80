"""What the rivals of the prefill and the cache choose, recomputed by loops from eager attention."""

import pytest
import torch
from best import KEY, best
from droppers import mustdrop
from eager_maps import GRID, maps, survivors, vision_at
from fake_views import cache_view, prefill_view
from models import batch, greedy, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.keep_centre import KeepCentre
from mustdrop.prefill.keep_last import KeepLast
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.cls_topk import ClsTopK


@pytest.fixture(scope="module")
def model():
    return tiny_llava("eager", kv_heads=2)


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


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
    view = prefill_view(6, layer=-1, grids=[(3, 3)] * 3, cell_coordinates=cells)
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
        "layer": 1, "inputs": torch.ones(59, 4), "received_attention": lambda: flat[0, 0],
        "attention": lambda rows, of="this": flat[:, : 1 if rows == "last" else 4],
        "text": 4,
        "hidden": torch.zeros(20, 8),
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
        (lambda: SparseVLM(), "give scale and bias, or keep, but not both"),
        (lambda: SparseVLM(scale=1.0), "give scale and bias, or keep"),
        (lambda: SparseVLM(scale=1.0, bias=0.0, keep=[1], layers=[2]), "but not both"),
        (lambda: SparseVLM(keep=[1, 2], layers=[2]), "one count for each of 1 layers"),
        (lambda: SparseVLM(keep=[-1], layers=[2]), r"keep\[0\] must be a count"),
        (lambda: SparseVLM(keep=[2, 1], layers=[6, 2]), "layers must ascend"),
        (lambda: SparseVLM(keep=[2], layers=[2], recycle=1.5), "recycle must be a share"),
        (
            lambda: SparseVLM(keep=[2], layers=[2], per_cluster=0),
            "per_cluster must be a count, 1 or more",
        ),
        (lambda: SparseVLM(scale=-1.0, bias=0.0), "scale must be 0 or more"),
        (lambda: PyramidDrop([0.5], [1, 2]), "ratios must have one ratio for each of 2 layers"),
        (lambda: PyramidDrop([0.5, 1.5], [1, 2]), r"ratios\[1\] must be a share"),
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


def test_what_a_token_receives_is_a_mean_over_heads_and_rows():
    model = tiny_llava("eager")
    dropper = TokenDropper(prefill=FastV(10, 1, rows="all"), log_scores=True)
    with torch.inference_mode(), dropper.attach(model) as run:
        out = model(**prompt(model), output_attentions=True)
    ledger = run.ledgers[0]
    expected = out.attentions[1][0].mean((0, 1))[ledger.vision]
    torch.testing.assert_close(ledger.scores[1], expected)
