"""Target recall: a dropped patch counts 0, a kept one 1, one of many in a token a little."""

import numpy as np
import pytest
import torch
from droppers import DROPPERS, encoder_side
from models import prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.evaluation.metrics import target_recall
from mustdrop.ledger import TokenLedger, TokenSources
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.reduction import Reduction
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge

EVERYTHING = np.ones((6, 6), dtype=bool)
SOME = np.arange(36).reshape(6, 6) % 5 == 0


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


def run_of(model, dropper: TokenDropper, flat: float = 0.5):
    """A ledger, and what a prefill strategy mixed after each layer."""
    with dropper.attach(model) as run, torch.inference_mode():
        model(**prompt(model, flat=flat))
    return run.ledgers[0], {layer: decisions[0] for layer, decisions in run.mixed.items()}


def shares(ledger: TokenLedger, mixed: dict) -> list[dict[int, dict[int, float]]]:
    """Per layer, slot -> patch -> share: by dictionaries, one token and one patch at a time."""
    slots = ledger.vision.nonzero().flatten().tolist()
    if ledger.sources:
        source = ledger.sources[0]
        rows = {}
        for token, slot in enumerate(source.slots.tolist()):
            if source.mix is None:
                rows[slot] = {int(source.cells[token]): 1.0}
                continue
            weights = source.mix[token].tolist()
            own = 0.0 if source.cls is None else float(source.cls[token])
            whole = sum(weights) + own
            rows[slot] = {patch: w / whole for patch, w in enumerate(weights) if w}
    else:
        rows = {slot: {patch: 1.0} for patch, slot in enumerate(slots)}
    layers = []
    for layer in range(ledger.depth):
        if layer - 1 in mixed:
            decision, old = mixed[layer - 1], rows
            before = [slot for slot in ledger.alive[layer - 1].tolist() if ledger.vision[slot]]
            rows = {}
            for token, weights in zip(decision.keep.tolist(), decision.mix.tolist(), strict=True):
                mine: dict[int, float] = {}
                for slot, weight in zip(before, weights, strict=True):
                    for patch, share in old[slot].items() if weight else ():
                        mine[patch] = mine.get(patch, 0.0) + weight / sum(weights) * share
                rows[before[token]] = mine
        alive = {*ledger.alive[layer].tolist()}
        layers.append({slot: row for slot, row in rows.items() if slot in alive})
    return layers


def credit(rows: dict[int, dict[int, float]], patch: int) -> float:
    return min(1.0, 10 * max((row.get(patch, 0.0) for row in rows.values()), default=0.0))


@pytest.fixture(scope="module")
def runs(model):
    return {name: run_of(model, dropper) for name, dropper in DROPPERS.items()}


@pytest.mark.parametrize("name", DROPPERS)
def test_recall_is_what_the_tokens_hold_of_each_patch(runs, name):
    ledger, mixed = runs[name]
    layers = shares(ledger, mixed)
    for target in (EVERYTHING, SOME):
        told = target_recall(ledger, target, mixed)
        asked = target.ravel().nonzero()[0].tolist()
        for key, rows in (("target_recall_input", layers[0]), ("target_recall", layers[-1])):
            expected = sum(credit(rows, patch) for patch in asked) / len(asked)
            assert told[key] == pytest.approx(expected, abs=1e-6)
            # no token carries more than ten patches' worth
            if target is EVERYTHING:
                tokens = len(rows)
                assert told[key] <= min(1.0, 10 * tokens / 36) + 1e-6


def test_a_selection_has_the_share_of_patches_that_it_kept(runs):
    """Every selection alone: what is merged nowhere is carried wholly or not at all."""
    seen = 0
    for ledger, mixed in runs.values():
        if mixed or any(source.mix is not None for source in ledger.sources):
            continue
        vision = ledger.vision.nonzero().flatten().tolist()
        patch = {slot: at for at, slot in enumerate(vision)}
        for key, layer in (("target_recall_input", 0), ("target_recall", 5)):
            kept = {patch[slot] for slot in ledger.alive[layer].tolist() if slot in patch}
            asked = {*SOME.ravel().nonzero()[0].tolist()}
            assert target_recall(ledger, SOME)[key] == pytest.approx(len(kept & asked) / len(asked))
        seen += 1
    assert seen > 12


def test_a_window_of_nine_loses_no_patch_and_a_mean_of_everything_does(model):
    ledger, _ = run_of(model, TokenDropper(LocalMerge(-1.0, score="mean")))
    assert ledger.vision_per_layer()[0] == 4
    assert target_recall(ledger, SOME)["target_recall"] == 1.0
    for keep, expected in ((4, 1.0), (2, 10 / 18), (1, 10 / 36)):
        ledger, _ = run_of(model, encoder_side(AveragePool(keep=keep)))
        assert target_recall(ledger, SOME)["target_recall_input"] == pytest.approx(expected)


@pytest.mark.parametrize("reading", ["code", "paper"])
def test_the_remainder_of_prumerge_carries_ten_patches_worth_at_most(model, reading):
    ledger, _ = run_of(model, encoder_side(PruMerge(keep=2, neighbours=0, variant=reading)), 0.0)
    mix = ledger.sources[0].mix
    assert mix is not None and (mix != 0).sum(0).min() == 1, "every patch is in some token"
    found = target_recall(ledger, EVERYTHING)["target_recall_input"]
    assert found is not None and 0 < found <= 11 / 36 + 1e-6


def test_merged_tokens_of_a_prefill_count_for_their_patches(model):
    ledger, mixed = run_of(model, TokenDropper(prefill=SparseVLM(keep=[4], layers=[4])))
    alone = target_recall(ledger, EVERYTHING)
    merged = target_recall(ledger, EVERYTHING, mixed)
    assert ledger.vision_per_layer()[5] == 4 + 2
    assert alone["target_recall"] == pytest.approx(6 / 36)
    # int(0.3 * 32) + 1 tokens went into two clusters
    assert merged["target_recall"] == pytest.approx(14 / 36)
    assert alone["target_recall_input"] == merged["target_recall_input"] == 1.0


def test_what_is_mixed_at_each_place_is_mixed_there_and_once():
    """Four tokens become two before layer 0, the last patch a twentieth of its token, then one."""
    ledger = TokenLedger(4, torch.ones(4) > 0, torch.zeros(4) > 0, [(2, 2)], torch.arange(4))
    two, one = torch.tensor([1, 2]), torch.tensor([1])
    ledger.alive = {0: two, 1: one, 2: one}
    mixed = {
        -1: Reduction(two, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.95, 0.05]])),
        0: Reduction(torch.tensor([0]), torch.tensor([[2.0, 2.0]])),  # shares, whatever their sum
    }
    for patch, expected in enumerate(([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.5, 0.25])):
        target = np.arange(4).reshape(2, 2) == patch
        assert list(target_recall(ledger, target, mixed).values()) == pytest.approx(expected)


def test_the_last_layer_counts_and_not_the_one_before_it(model):
    ledger, _ = run_of(model, TokenDropper(prefill=FastV(keep=0, layer=4)))
    assert ledger.vision_per_layer() == [36] * 5 + [0]
    assert target_recall(ledger, SOME) == {"target_recall_input": 1.0, "target_recall": 0.0}


def test_cls_takes_its_share_of_a_token():
    ledger = TokenLedger(4, torch.ones(4) > 0, torch.zeros(4) > 0, [(2, 2)], torch.arange(4))
    slots = torch.arange(3)
    ledger.alive = {0: slots}
    # [CLS] alone, [CLS] and three patches, nothing at all
    mix = torch.tensor([[0.0] * 4, [2.0, 0.1, 0.0, 0.4], [0.0] * 4])
    cls = torch.tensor([1.0, 1.5, 0.0])
    ledger.sources = [TokenSources(slots, slots, mix, cls)]
    for patch, expected in enumerate((1.0, 10 * 0.1 / 4, 0.0, 1.0)):
        target = np.zeros(4, dtype=bool)
        target[patch] = True
        told = target_recall(ledger, target.reshape(2, 2))
        assert told["target_recall_input"] == pytest.approx(expected)


def test_a_question_about_nothing_has_no_recall(model):
    ledger, mixed = run_of(model, TokenDropper())
    nothing = np.zeros((6, 6), dtype=bool)
    assert {*target_recall(ledger, nothing, mixed).values()} == {None}
