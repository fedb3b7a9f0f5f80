"""Dropping equals masking for every family, strategy, attention and batch; with controls.

The default tests take a few strategies; ``make test-all`` takes all of them.
"""

import inspect
from dataclasses import replace
from functools import cache

import pytest
import torch
from cases import AnyPrefill, AnyVision
from families import FAMILIES, FRAMES, OTHER_CLASSES
from family_droppers import (
    FEW,
    FEWER,
    FIRST,
    FITTING,
    FITTING_OF,
    LATE,
    ONE_EACH,
    TWINS,
    WHOLE,
    all_families,
    fits,
    fitting_cases,
)
from models import greedy

from mustdrop import TokenDropper
from mustdrop.engine.encoder_attention import EncoderAttention
from mustdrop.ledger import OFF_GRID
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models.video_llava import VideoLlavaAdapter
from mustdrop.vision.average_pool import AveragePool

MADE = FAMILIES | OTHER_CLASSES


def by_default(family: str, name: str, attention: str) -> bool:
    """Whether a case belongs to the default tests."""
    if family in TWINS:
        return False
    if family in OTHER_CLASSES:
        return (name, attention) == ("all_stages", "sdpa")
    names = FEW if family in FIRST else FEWER if family in LATE else ONE_EACH
    return (name in names and attention == "sdpa") or (name, attention) == ("all_stages", "eager")


MATRIX = [
    pytest.param(
        family, name, attention,
        marks=() if by_default(family, name, attention) else pytest.mark.slow,
    )
    for family in MADE
    for name in FITTING
    for attention in ("sdpa", "eager")
    if fits(family, name)
]  # fmt: skip

KEEPS_ALL = ("sink_recent", "sparsevlm")  # SparseVLM's rank finds nothing to drop in some models


@cache
def model_of(family: str, attention: str = "sdpa"):
    return MADE[family].model(attention)


def errors(model, run, inputs, tokens, logits) -> list[float]:
    """Error of each prompt against the masked model, which must choose the same tokens."""
    found = []
    for number in range(len(tokens)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert torch.equal(tokens[number], expected.argmax(-1))
        found.append(relative_error(logits[number], expected))
    return found


@pytest.mark.parametrize(("family", "name", "attention"), MATRIX)
def test_dropping_equals_masking(family, name, attention):
    model, made = model_of(family, attention), MADE[family]
    for prompts in (made.prompts[:1], made.prompts):
        inputs = made.inputs(model, *prompts)
        with FITTING_OF[family][name].attach(model) as run:
            tokens, logits = greedy(model, inputs, steps=4)
        assert max(errors(model, run, inputs, tokens, logits)) <= 1e-5
        counts = [(ledger.counts(), int(ledger.vision.sum())) for ledger in run.ledgers]
        assert name in KEEPS_ALL or any(count.resident < total for count, total in counts)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_changes_without_stages(family):
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *made.prompts)
    plain = greedy(model, inputs)
    with TokenDropper().attach(model):
        held = greedy(model, inputs)
    assert torch.equal(plain[0], held[0]) and torch.equal(plain[1], held[1])


@pytest.mark.parametrize(
    ("family", "name"), fitting_cases("random", "fastv", "divprune", "all_stages", "visionzip")
)
def test_neighbours_do_not_matter(family, name):
    """A prompt alone keeps the same tokens and gets the same logits as in a batch."""
    model, made = model_of(family), FAMILIES[family]
    with FITTING_OF[family][name].attach(model) as run:
        _, together = greedy(model, made.inputs(model, *made.prompts))
        ledgers = run.ledgers
        for number, parts in enumerate(made.prompts):
            _, alone = greedy(model, made.inputs(model, parts, seed=number))
            assert relative_error(together[number], alone[0]) <= 1e-5
            for cost in ("decision_macs", "encoder_decision_macs", "encoder", "encoder_pairs"):
                assert getattr(run.ledgers[0], cost) == getattr(ledgers[number], cost)
            for layer, alive in run.ledgers[0].alive.items():
                assert torch.equal(alive, ledgers[number].alive[layer])


@pytest.mark.parametrize("family", all_families(whole=False))
def test_a_call_that_failed_leaves_nothing_for_the_next_one(family, monkeypatch):
    """The attention of a block fails after its queries and keys were stored."""
    model, made = model_of(family), FAMILIES[family]
    first, second = (made.inputs(model, made.prompts[0], seed=seed) for seed in (1, 2))
    with FITTING["cls_topk"].attach(model) as run:
        _, expected = greedy(model, second)
        cells = [image.cells.tolist() for image in run.images]
        with monkeypatch.context() as patch:
            patch.setattr(EncoderAttention, "record", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                greedy(model, first)
        _, logits = greedy(model, second)
        assert [image.cells.tolist() for image in run.images] == cells
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("family", all_families())
def test_text_beside_images(family):
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, made.prompts[0], (6, 5))
    with FITTING_OF[family]["all_stages"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    assert max(errors(model, run, inputs, tokens, logits)) <= 1e-5
    assert run.ledgers[1].vision_per_layer() == [0] * 6


@pytest.mark.parametrize(
    ("family", "name"), fitting_cases("all_stages", "fastv", "sink_recent", "pyramiddrop")
)
def test_a_loop_without_positions(family, name):
    """A caller that hands over no position_ids gets those that ``generate`` would make."""
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *made.prompts)
    with FITTING_OF[family][name].attach(model), torch.inference_mode():
        tokens, logits = greedy(model, inputs, steps=4)
        out = model(**inputs, use_cache=True)
        mask = inputs["attention_mask"]
        for step in range(3):
            assert relative_error(out.logits[:, -1], logits[:, step]) <= 1e-5
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            out = model(
                input_ids=tokens[:, step : step + 1], attention_mask=mask,
                past_key_values=out.past_key_values,
            )  # fmt: skip


@pytest.mark.parametrize("stage", ["vision", "key_tokens"])
@pytest.mark.parametrize("family", all_families(whole=False))
def test_tokens_are_mixed_at_the_input_in_the_order_in_which_they_entered(family, stage):
    """LLaVA-NeXT's newlines enter, too, although they belong to no image."""
    model, made = model_of(family), FAMILIES[family]
    before = replace(TokenDropper(), **{stage: getattr(FITTING_OF[family]["all_stages"], stage)})
    dropper = replace(
        before, prefill=AnyPrefill((-1, 1), 3, 0.5, mixes=True), cls_attention="received"
    )
    inputs = made.inputs(model, *made.prompts)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    assert max(errors(model, run, inputs, tokens, logits)) <= 1e-5


@pytest.mark.parametrize(
    ("family", "place"),
    [
        pytest.param(*case.values, place, marks=case.marks)
        for place in ("features", "projected")
        for case in all_families(whole=place == "projected")
    ],
)
def test_no_token_of_any_image_is_left(family, place):
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *made.prompts)
    with TokenDropper(AnyVision((place,), 0, 0.0, mixes=False)).attach(model) as run:
        tokens, logits = greedy(model, inputs)
    assert max(errors(model, run, inputs, tokens, logits)) <= 1e-5
    for ledger in run.ledgers:
        assert ledger.counts().resident == int((ledger.cells == OFF_GRID).sum())


@pytest.mark.parametrize(
    ("family", "name"), fitting_cases("all_stages", "visionzip", "tome_plain", "divprune")
)
def test_a_model_in_half_precision_gets_the_pixels_of_the_processor(family, name):
    """Dropping equals masking up to the rounding of bfloat16; the pixels are float32."""
    made = FAMILIES[family]
    model = made.model().to(torch.bfloat16)
    inputs = made.inputs(model, *made.prompts)
    with FITTING_OF[family][name].attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=2)
    for number in range(3):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 0.1


@pytest.mark.parametrize("family", all_families())
def test_a_forgotten_drop_is_noticed(family):
    """Control: the masked model with one token less, and with one image in another's place."""
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *made.prompts)
    with FITTING_OF[family]["all_stages"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    ledger = run.ledgers[0]
    last = ledger.depth - 1
    vision = ledger.vision[ledger.alive[last]].nonzero().flatten()
    kept = ledger.alive[last]
    ledger.alive[last] = torch.cat([kept[: vision[0]], kept[vision[0] + 1 :]])
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens, 0)) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_cell_is_noticed(family):
    """Control: two cells of an image change places in the ledger's map of slots."""
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *made.prompts)
    pooled = TokenDropper(vision=AveragePool(2))
    mixing = pooled if family in WHOLE else FITTING["local_merge"]
    with mixing.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    ledger = run.ledgers[1]
    cells = ledger.cells.clone()
    ends = (cells >= 0).nonzero().flatten()[[0, -1]]
    cells[ends] = cells[ends.flip(0)]
    ledger.cells = cells
    assert relative_error(logits[1], masked_logits(model, run, inputs, tokens, 1)) > 1e-3


def mixed_run(name: str = "local_merge"):
    """Video-LLaVA, and a run on prompts with images, videos and both."""
    model, made = FAMILIES["video_llava"].model(), FAMILIES["video_llava"]
    inputs = made.inputs(model, *made.prompts)
    with FITTING[name].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    return model, run, inputs, tokens, logits


def test_two_encoders_that_change_places_are_noticed():
    """Control: the masked model with the encoder of images for frames, and the reverse."""
    model, run, inputs, tokens, logits = mixed_run()
    base = model.model
    base.image_tower, base.video_tower = base.video_tower, base.image_tower
    for number in range(3):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) > 1e-3


def test_a_cls_slot_that_is_taken_for_a_patch_is_noticed():
    """Control: each frame's cells begin one slot too early in the ledger's map, at its [CLS]."""
    model, run, inputs, tokens, logits = mixed_run()
    ledger = run.ledgers[0]
    frames = ledger.cells.view(FRAMES, -1)
    ledger.cells = torch.cat([frames[:, 1:], frames[:, :1]], 1).flatten()
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens, 0)) > 1e-3


def test_images_and_videos_in_the_wrong_order_are_noticed(monkeypatch):
    """Control: the run expects the frames before the images, as no model encodes them."""
    visual_inputs = VideoLlavaAdapter.visual_inputs
    with monkeypatch.context() as patch:
        patch.setattr(
            VideoLlavaAdapter, "visual_inputs",
            lambda adapter, inputs: dict(reversed(visual_inputs(adapter, inputs).items())),
        )  # fmt: skip
        model, run, inputs, tokens, logits = mixed_run()
    worst = [
        relative_error(logits[number], masked_logits(model, run, inputs, tokens, number))
        for number in range(3)
    ]
    assert min(worst) > 1e-3


@pytest.mark.parametrize("name", ["pixel_values", "pixel_values_images"])
def test_both_names_of_the_pixels_of_images(name):
    """Which one a processor gives and a model takes depends on the version of transformers."""
    model, made = model_of("video_llava"), FAMILIES["video_llava"]
    inputs = made.inputs(model, *made.prompts)
    pixels = inputs.pop("pixel_values_images")
    if name not in inspect.signature(model.forward).parameters:
        pytest.skip(f"this version's model does not take {name}")
    inputs[name] = pixels
    with FITTING["all_stages"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    assert max(errors(model, run, inputs, tokens, logits)) <= 1e-5


def test_positions_of_qwen_that_are_counted_are_noticed():
    """Control: the masked model with one-dimensional positions."""
    model, made = model_of("qwen2_5_vl"), FAMILIES["qwen2_5_vl"]
    inputs = made.inputs(model, *made.prompts)
    with FITTING["fastv"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    flat = {k: v for k, v in inputs.items() if k != "mm_token_type_ids"}
    assert relative_error(logits[0], masked_logits(model, run, flat, tokens, 0)) > 1e-3


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def test_coordinates_are_kept_whatever_the_rule(family):
    model, made = model_of(family), FAMILIES[family]
    inputs, results = made.inputs(model, *made.prompts), []
    for rule in ("original", "compact"):
        dropper = replace(FITTING["all_stages"], positions=rule, vision_positions=rule)
        with dropper.attach(model):
            results.append(greedy(model, inputs)[1])
    assert torch.equal(*results)
    with pytest.raises(ValueError, match=r"positions of .* are coordinates: use 'continue'"):
        replace(FITTING["all_stages"], decode_positions="cache_length").attach(model).__enter__()
