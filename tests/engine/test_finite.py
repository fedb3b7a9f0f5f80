"""Numbers that are infinite or NaN end a run with prompt, stage and dtype, without a wait."""

import math
from contextlib import contextmanager

import pytest
import torch
from droppers import DROPPERS, mustdrop
from models import IMAGE_TOKEN, batch, encoder_blocks, greedy, prompt, tiny_llava
from torch.utils._python_dispatch import TorchDispatchMode

from mustdrop import TokenDropper
from mustdrop.calibration.threshold import executed
from mustdrop.calibration.vtw import divergences
from mustdrop.engine.finite import FiniteNotes, NotFinite
from mustdrop.evaluation.answers import generate_options
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.tome import ToMe

VANILLA = TokenDropper()


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture
def inputs(model):
    """Three prompts of other lengths; the last one has no image."""
    both = batch(prompt(model, flat=0.5), prompt(model, before=9, after=4, images=2, seed=4))
    text = torch.full((1, both["input_ids"].shape[1]), 7)
    text[:, :60] = 0
    ids = torch.cat([both["input_ids"], text])
    mask = torch.cat([both["attention_mask"], (text > 0).long()])
    return {**both, "input_ids": ids, "attention_mask": mask}


@contextmanager
def replaced(tensor, place, value):
    """One number of a weight changed while the context is open."""
    before = tensor[place].clone()
    with torch.no_grad():
        tensor[place] = value
    try:
        yield
    finally:
        with torch.no_grad():
            tensor[place] = before


def fault(model, dropper, inputs, steps=2):
    """(prompt, words) of the first number that was not finite; None where all were."""
    with dropper.attach(model) as run:
        greedy(model, inputs, steps)
    try:
        run.require_finite()
    except NotFinite as error:
        assert isinstance(error, ValueError) and str(error).startswith(f"prompt {error.prompt}: ")
        return error.prompt, error.fault
    return None


@pytest.mark.parametrize(
    "name", ["all_stages", "tome", "prumerge_paper", "pyramiddrop", "fastv_paper"]
)
def test_a_sound_run_is_finite(model, inputs, name):
    assert fault(model, DROPPERS[name], inputs) is None
    assert fault(model, VANILLA, inputs) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dropper", [VANILLA, DROPPERS["all_stages"]], ids=["vanilla", "mustdrop"])
def test_pixels_are_those_of_their_prompt(model, inputs, value, dropper):
    pixels = inputs["pixel_values"].clone()
    pixels[2, 1, 3, 4] = value  # the second image of the second prompt
    found = fault(model, dropper, {**inputs, "pixel_values": pixels})
    assert found is not None and found[0] == 1
    assert found[1].startswith("the pixels are not finite in float32; look at the image")


def weights(model):
    """Where a weight is broken, and what is the first that shows it."""
    base = model.model
    layer = base.language_model.layers[3]
    return {
        "features": (encoder_blocks(model)[1].mlp.fc2.bias, 0),
        "embeddings": (base.multi_modal_projector.linear_2.bias, 0),
        "logits": (layer.mlp.down_proj.weight, (0, 0)),
        "words": (model.get_input_embeddings().weight, (7, 0)),
    }


@pytest.mark.parametrize(
    ("place", "dropper", "prompt_number", "words"),
    [
        ("features", VANILLA, 0, "the features of the vision encoder"),
        ("features", TokenDropper(ClsTopK(9)), 0, "the features of the vision encoder"),
        ("embeddings", VANILLA, 0, "the embeddings at the language model's input"),
        ("embeddings", TokenDropper(DivPrune(9)), 0, "the encoder's hidden states at projected"),
        ("embeddings", TokenDropper(prefill=FastV(9)), 0, "the embeddings at the language model's"),
        ("logits", VANILLA, 0, "the logits of the first new token"),
        ("logits", TokenDropper(prefill=FastV(9, 2)), 0, "the logits of the first new token"),
        ("logits", TokenDropper(prefill=FastV(9, 3)), 0, "the hidden states after layer 3"),
        ("logits", TokenDropper(prefill=FastV(9, 4)), 0, "the hidden states after layer 4"),
        ("words", VANILLA, 2, "the embeddings at the language model's input"),
    ],
)
def test_the_first_stage_that_is_not_finite_is_named(
    model, inputs, place, dropper, prompt_number, words
):
    weight, index = weights(model)[place]
    with replaced(weight, index, math.nan):
        found = fault(model, dropper, inputs)
    assert found is not None and found[0] == prompt_number
    assert found[1].startswith(f"{words}")
    assert " are not finite in float32; look at the weights" in found[1]


@pytest.mark.parametrize("dropper", [VANILLA, DROPPERS["all_stages"]], ids=["vanilla", "mustdrop"])
def test_later_tokens_count_too(model, inputs, dropper):
    one = prompt(model, flat=0.5)
    with dropper.attach(model):
        first = int(greedy(model, one, 1)[0])
    assert first not in (*one["input_ids"][0].tolist(), IMAGE_TOKEN)
    with replaced(model.get_input_embeddings().weight, (first, 0), math.nan):
        assert fault(model, dropper, one, steps=1) is None
        found = fault(model, dropper, one, steps=4)
        with dropper.attach(model) as run, torch.no_grad():  # a loop of the caller's own
            out = model(**one)
            new = torch.tensor([[first]])
            model(input_ids=new, past_key_values=out.past_key_values, return_dict=False)
        with pytest.raises(NotFinite, match="the logits of later tokens"):
            run.require_finite()
    assert found == (0, "the logits of later tokens are not finite in float32; look at the "
                     "weights of the checkpoint")  # fmt: skip
    with dropper.attach(model) as run:  # the next prompt starts anew
        greedy(model, one, 3)
    run.require_finite()


@pytest.mark.parametrize(
    ("dropper", "words"),
    [
        (TokenDropper(prefill=FastV(9, 1)), "the attention scores of layer 1"),
        (TokenDropper(prefill=FastV(9, 1, rows="all")), "the attention scores of layer 1"),
        (TokenDropper(prefill=PyramidDrop([0.5], [1])), "the attention scores of layer 2"),
        (TokenDropper(ClsTopK(9)), "the [CLS] attention scores of block 3"),
        (TokenDropper(ToMe([0, 5])), "the keys of block 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scores_that_a_strategy_reads_are_looked_at(model, inputs, dropper, words):
    """Half precision overflows in a product that the model's own attention never forms."""
    broken = TorchNaN(words)
    with broken.broken(), dropper.attach(model) as run:
        greedy(model, inputs, 1)
    with pytest.raises(NotFinite, match=r"prompt 0: the") as error:
        run.require_finite()
    assert error.value.fault.startswith(f"{words} are not finite in float32")


class TorchNaN:
    """Replaces what a view hands out by NaN, on its way to the notes."""

    def __init__(self, words):
        self.words = words

    @contextmanager
    def broken(self):
        kept = {name: getattr(FiniteNotes, name) for name in ("note", "note_image")}

        def poisoned(name):
            def note(notes, what, owner, values):
                bad = torch.full_like(values, math.nan) if what == self.words else values
                return kept[name](notes, what, owner, bad)

            return note

        for name in kept:
            setattr(FiniteNotes, name, poisoned(name))
        try:
            yield
        finally:
            for name, method in kept.items():
                setattr(FiniteNotes, name, method)


def test_an_overflow_in_half_precision_names_a_wider_dtype():
    half = tiny_llava(dtype=torch.float16)
    one = prompt(half)
    assert fault(half, VANILLA, one) is None
    weight = half.model.multi_modal_projector.linear_2.weight
    for dropper in (VANILLA, DROPPERS["fastv"], DROPPERS["cls_topk"]):
        with replaced(weight, slice(None), 6e4):
            found = fault(half, dropper, one)
        assert found is not None
        assert found[1].endswith("not finite in float16; load the model in bfloat16 or float32 "
                                 "(model.dtype=bfloat16)")  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket in (
            torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal,
        )  # fmt: skip
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["all_stages", "pyramiddrop"])
def test_notes_cost_no_wait(model, inputs, name, monkeypatch):
    def waits(dropper):
        with dropper.attach(model) as run, Waits() as counted:
            greedy(model, inputs, 2)
            run.finite.flags()
        return counted.count

    noted = waits(DROPPERS[name]), waits(VANILLA)
    monkeypatch.setattr(FiniteNotes, "_pixels", lambda *args: lambda *args: None)
    for method in ("note", "note_image", "_features", "_logits"):
        monkeypatch.setattr(FiniteNotes, method, lambda *args: None)
    assert noted == (waits(DROPPERS[name]), waits(VANILLA))


def test_a_strategy_that_stops_at_nan_is_explained(model, inputs):
    """The rank of a matrix of NaN is an error of torch's, with torch's words."""
    weight, index = weights(model)["logits"]
    dropper = TokenDropper(prefill=SparseVLM(scale=1.0, bias=1.0, layers=[4]))
    with (
        replaced(weight, index, math.nan),
        dropper.attach(model),
        pytest.raises(NotFinite, match="the hidden states after layer 4 are not finite"),
    ):
        greedy(model, inputs, 1)


def test_a_draw_from_nan_is_explained(model, inputs):
    weight, index = weights(model)["logits"]
    for dropper in (VANILLA, DROPPERS["random"]):
        with (
            replaced(weight, index, math.nan),
            dropper.attach(model),
            pytest.raises(NotFinite, match="the logits of the first new token are not finite"),
        ):
            model.generate(**inputs, do_sample=True, max_new_tokens=2, pad_token_id=0)


def test_another_error_keeps_its_words(model, inputs, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(model.model.language_model.layers[5], "forward", failing)
    with VANILLA.attach(model), pytest.raises(RuntimeError, match="out of memory, say"):
        greedy(model, inputs, 1)


def test_an_error_before_the_prefill_is_not_explained_by_an_earlier_batch(model, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("out of memory, say")

    one = prompt(model)
    with VANILLA.attach(model):
        with replaced(model.model.multi_modal_projector.linear_2.bias, 0, math.nan):
            greedy(model, one, 1)  # nobody asks
        monkeypatch.setattr(model.model.vision_tower, "forward", failing)
        with pytest.raises(RuntimeError, match="out of memory, say"):
            greedy(model, one, 1)


def test_images_of_a_prompt_that_failed_are_forgotten(model, inputs):
    bad = {**inputs, "pixel_values": torch.full_like(inputs["pixel_values"][:1], math.nan)}
    with mustdrop().attach(model) as run:
        with pytest.raises(ValueError):
            greedy(model, bad, 1)
        greedy(model, inputs, 1)
        run.require_finite()


def test_notes_keep_no_graph_alive(model, inputs):
    with mustdrop().attach(model) as run:
        logits = model(**inputs).logits
    assert logits.requires_grad
    assert not any(end.requires_grad for note in run.finite.notes for end in note.ends)


def test_only_what_cannot_be_drawn_is_replaced():
    (processor,) = generate_options({"do_sample": True}, 4, 0)["logits_processor"]
    scores = torch.tensor([[math.nan, math.inf, -math.inf, 2.5]])
    assert processor(scores, scores).tolist() == [[0.0, 0.0, -math.inf, 2.5]]
    assert "logits_processor" not in generate_options({}, 4, 0)


def test_thresholds_are_not_searched_on_nan(model, inputs):
    weight, index = weights(model)["logits"]
    one = prompt(model)
    strategy = TokenDropper(prefill=DualAttention(0.02, 0.1, layers=[4]))
    with replaced(weight, index, math.nan):
        for search in (
            lambda: executed(model, strategy, [one]),
            lambda: divergences(model, [one], 6),
        ):
            with pytest.raises(NotFinite, match="not finite in float32"):
                search()
