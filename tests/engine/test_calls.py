"""How a model may be called while a dropper is attached, and what one sentence refuses."""

import copy

import pytest
import torch
from droppers import DROPPERS
from models import batch, encoder_blocks, greedy, prompt, tiny_llava
from transformers import GenerationConfig

from mustdrop import KeyTokenStrategy, PrefillStrategy, Reduction, TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.visionzip import VisionZip

FASTV = TokenDropper(prefill=FastV(10, 1))


@pytest.fixture
def model():
    return tiny_llava()


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


@pytest.mark.parametrize("call", ["generate", "forward"])
@pytest.mark.parametrize("before", [3, 0], ids=["text first", "an image alone"])
def test_a_prompt_that_ends_with_its_image_is_refused_before_work(model, before, call):
    """The next word would be read off whichever token is last once that one has left."""
    inputs = batch(prompt(model, flat=0.5), prompt(model, before=before, after=0, seed=2))
    encoded = []
    model.model.vision_tower.register_forward_hook(lambda *_: encoded.append(1))
    for dropper in DROPPERS.values():
        with (
            dropper.attach(model),
            pytest.raises(ValueError, match="prompt 1 ends with a vision token"),
        ):
            greedy(model, inputs, 1) if call == "generate" else model(**inputs)
    assert not encoded


@pytest.mark.parametrize("decode", [OutputAware(0), SinkRecent(sinks=1, from_layer=0)])
def test_cutting_the_cache_alone_refuses_it_too(model, decode):
    with TokenDropper(decode=decode).attach(model), pytest.raises(ValueError, match="ends with a"):
        greedy(model, prompt(model, after=0), 1)


def test_without_a_stage_a_prompt_may_end_with_its_image(model):
    inputs = prompt(model, after=0)
    plain = greedy(model, inputs, 2)
    for dropper in (TokenDropper(), TokenDropper(key_tokens=ClsAttention())):
        with dropper.attach(model):
            assert torch.equal(greedy(model, inputs, 2)[1], plain[1])


@pytest.mark.parametrize("call", ["generate", "forward"])
@pytest.mark.parametrize(
    "option",
    [
        {"vision_feature_select_strategy": "full"},
        {"vision_feature_layer": -1},
        {"vision_feature_layer": -3},
        {"vision_feature_layer": [-2, -1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["cls_topk", "visionzip", "tome", "all_stages", "fastv"])
def test_facts_of_the_checkpoint_are_not_changed_by_a_call(model, inputs, name, option, call):
    field = next(iter(option))
    with DROPPERS[name].attach(model), pytest.raises(ValueError, match=f"{field}=.*at the call"):
        if call == "generate":
            model.generate(**inputs, **option, max_new_tokens=1)
        else:
            model(**inputs, **option)


def test_the_facts_themselves_may_be_given(model, inputs):
    same = {"vision_feature_select_strategy": "default", "vision_feature_layer": -2}
    with DROPPERS["cls_topk"].attach(model):
        expected = greedy(model, inputs, 2)[1]
        assert torch.equal(greedy(model, {**inputs, **same}, 2)[1], expected)


def test_text_alone_works_after_a_prompt_that_failed(model, inputs):
    text = {"input_ids": inputs["input_ids"][:, :3]}
    plain = model(**text).logits
    bad = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    for name in ("cls_topk", "all_stages", "fastv", "tome"):
        with torch.inference_mode(), DROPPERS[name].attach(model):
            expected = greedy(model, inputs, 2)[1]
            for call in (lambda: model(**bad), lambda: greedy(model, bad, 1)):
                with pytest.raises(ValueError):
                    call()
                assert torch.equal(model(**text).logits, plain)
                assert torch.equal(greedy(model, inputs, 2)[1], expected)
            both = batch(inputs, {**text, "attention_mask": torch.ones(1, 3, dtype=torch.long),
                                  "pixel_values": inputs["pixel_values"][:0]})  # fmt: skip
            assert relative_error(greedy(model, both, 2)[1][0], expected[0]) <= 1e-5


@pytest.mark.parametrize("name", ["cls_topk", "all_stages", "fastv"])
def test_a_strategy_that_fails_leaves_nothing_behind(model, inputs, name, monkeypatch):
    dropper = DROPPERS[name]
    stage = dropper.vision or dropper.prefill
    with dropper.attach(model):
        expected = greedy(model, inputs, 2)[1]

        def fails(self, view):
            raise RuntimeError("its own error")

        with monkeypatch.context() as patch:
            patch.setattr(type(stage), "begin", fails)
            for call in (lambda: model(**inputs), lambda: greedy(model, inputs, 1)):
                with pytest.raises(RuntimeError, match="its own error"):
                    call()
        assert torch.equal(greedy(model, inputs, 2)[1], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
        ({"custom_generate": "x/y"}, "custom_generate='x/y'"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha=0.6"),
        ({"use_mtp": True}, "use_mtp=True"),
        ({"generation_config": GenerationConfig(guidance_scale=2.0)}, "guidance_scale=2.0"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_generation_that_runs_the_model_in_other_ways(model, inputs, options, message):
    with FASTV.attach(model), pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=2, **options)


def test_a_tensor_in_a_message_is_its_shape(model, inputs):
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with FASTV.attach(model), pytest.raises(ValueError, match=r"inputs_embeds=a tensor of \(1, 46"):
        model.generate(inputs_embeds=embeds, max_new_tokens=1)


def test_masks_and_positions_of_another_shape(model, inputs):
    with FASTV.attach(model):
        with pytest.raises(ValueError, match=r"attention_mask must be as long as input_ids"):
            model(**{**inputs, "attention_mask": inputs["attention_mask"][:, :-1]})
        with pytest.raises(ValueError, match=r"position_ids must be \[batch, tokens\]"):
            model(**inputs, position_ids=torch.zeros(3, 1, 46, dtype=torch.long))


def test_padding_without_a_mask_is_found_as_generate_finds_it(model, inputs):
    """``generate`` makes the mask from the padding tokens where it gets none."""
    padded = batch(inputs, prompt(model, before=9, after=9, seed=3))
    bare = {name: value for name, value in padded.items() if name != "attention_mask"}
    for name in ("all_stages", "cls_topk", "fastv"):
        with DROPPERS[name].attach(model) as run:
            expected = greedy(model, padded, 2)[1]
            lengths = [ledger.seq_len for ledger in run.ledgers]
            assert torch.equal(greedy(model, bare, 2)[1], expected)
            assert [ledger.seq_len for ledger in run.ledgers] == lengths == [46, 54]


@pytest.mark.parametrize("other", ["llava", None, 3], ids=str)
def test_what_is_no_model(other):
    attach = FASTV.attach.__wrapped__.__wrapped__  # past the run-time checker of the tests
    with pytest.raises(TypeError, match=f"expected a loaded model, got {other!r}"):
        next(attach(FASTV, other))


def test_a_model_without_its_head(model):
    with pytest.raises(TypeError, match=r"no adapter for LlavaModel"), FASTV.attach(model.model):
        pass


def test_a_peft_model_is_unwrapped(model, inputs):
    peft = pytest.importorskip("peft")
    with FASTV.attach(model):
        expected = greedy(model, inputs, 3)[1]
    target = ["q_proj", "v_proj"]
    config = peft.LoraConfig(r=2, target_modules=target, init_lora_weights=False)
    wrapped = peft.get_peft_model(copy.deepcopy(model), config).eval()
    assert adapter_for(wrapped).model is wrapped.get_base_model()
    with FASTV.attach(wrapped) as run:
        tokens, logits = greedy(wrapped, inputs, 3)
    assert relative_error(logits, expected) > 1e-3, "LoRA changes nothing: the case is empty"
    assert run.ledgers[0].vision_per_layer() == [36, 36, 10, 10, 10, 10]
    twin = masked_logits(wrapped.get_base_model(), run, inputs, tokens)
    assert relative_error(logits[0], twin) <= 1e-5


def test_gradient_checkpointing(model, inputs):
    model.gradient_checkpointing_enable()
    with FASTV.attach(model):
        model.train()
        with pytest.raises(ValueError, match="gradient checkpointing keeps no KV cache"):
            model(**inputs)
        model.eval()
        model(**inputs)


@pytest.mark.parametrize("name", ["fastv", "cls_topk", "all_stages", "tome", "visionzip"])
def test_gradients_pass(model, inputs, name):
    with DROPPERS[name].attach(model):
        model(**inputs, logits_to_keep=1).logits.sum().backward()
    weight = encoder_blocks(model)[0].self_attn.q_proj.weight
    assert weight.grad is not None and weight.grad.abs().sum() > 0


class Forgetful(PrefillStrategy):
    """Keeps the last tokens, whether the others are key tokens or not."""

    layers = (1, 3)

    def reduce(self, view) -> Reduction:
        return Reduction(torch.arange(len(view) // 2, len(view)))


class Repeats(PrefillStrategy):
    """Keeps a token twice."""

    layers = (2,)

    def reduce(self, view) -> Reduction:
        return Reduction(torch.tensor([0, 4, 4, 7]))


@pytest.mark.parametrize("call", ["generate", "forward"])
def test_a_strategy_that_drops_key_tokens_is_stopped(model, inputs, call):
    neighbours = batch(inputs, prompt(model, before=5, seed=2, flat=0.2))
    dropper = TokenDropper(key_tokens=ClsAttention("ratio", ratio=0.3), prefill=Forgetful())
    with (
        dropper.attach(model),
        pytest.raises(ValueError, match=r"Forgetful, after layer \d of prompt \d, dropped \d+ key"),
    ):
        greedy(model, neighbours, 1) if call == "generate" else model(**neighbours)
    with TokenDropper(prefill=Forgetful()).attach(model):
        greedy(model, neighbours, 1)


def test_a_token_is_not_kept_twice(model, inputs):
    with (
        TokenDropper(prefill=Repeats()).attach(model),
        pytest.raises(ValueError, match=r"Repeats, after layer 2 of prompt 0, kept 1 tokens more"),
    ):
        greedy(model, inputs, 1)


@pytest.mark.parametrize(
    "vision", [DivPrune(12), ClsTopK(12), VisionZip(8, 4)], ids=lambda v: type(v).__name__
)
def test_key_tokens_are_marked_among_what_stage_1_left(model, inputs, vision):
    """A token that is marked is there, whatever stage 1 did and wherever it acted."""
    keys = ClsAttention("ratio", ratio=0.5)
    for prefill in (None, VTW(layer=1), Random(0, layer=2)):
        with TokenDropper(vision, keys, prefill).attach(model) as run:
            greedy(model, inputs, 1)
        ledger = run.ledgers[0]
        marked = ledger.protected.nonzero().flatten()
        assert len(marked) == 6
        for alive in ledger.alive.values():
            assert torch.isin(marked, alive).all()


class MarksAll(KeyTokenStrategy):
    """Marks every token."""

    def protect(self, view):
        return torch.ones(len(view.sizes), dtype=torch.bool)


@pytest.mark.parametrize("name", [name for name, d in DROPPERS.items() if d.prefill is not None])
def test_no_prefill_strategy_of_ours_drops_a_key_token(model, name):
    dropper = DROPPERS[name]
    dropper = TokenDropper(key_tokens=MarksAll(), prefill=dropper.prefill)
    with dropper.attach(model) as run:
        greedy(model, prompt(model, flat=0.5), 1)
    assert run.ledgers[0].vision_per_layer() == [36] * 6
