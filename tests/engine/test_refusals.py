"""What cannot work is refused with one clear message before work starts, and leaves no trace."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from droppers import DROPPERS, mustdrop
from model_state import state
from models import batch, encoder_blocks, greedy, prompt, tiny_llava
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from mustdrop import PrefillStrategy, Reduction, TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.local_merge import LocalMerge

FASTV = TokenDropper(prefill=FastV(10, 1))


@pytest.fixture
def model():
    return tiny_llava()


@pytest.fixture
def inputs(model):
    return prompt(model, flat=0.5)


def attach(dropper: TokenDropper, model) -> None:
    with dropper.attach(model):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefill_chunk_size": 8}, "prefill_chunk_size=8.* a chunk of the prompt lacks the text"),
        ({"cache_implementation": "static"}, "cache_implementation='static'.*cannot be cut"),
        ({"cache_implementation": "offloaded"}, "cache_implementation='offloaded'.*cannot be cut"),
        ({"cache_implementation": "quantized"}, "cache_implementation='quantized'.*cannot be cut"),
        ({"use_cache": False}, "use_cache=False.* every step would be a new prefill"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens=3.* guessed tokens"),
        ({"token_healing": True}, "token_healing=True.*rewrites the end of the prompt"),
        ({"num_beam_groups": 2, "num_beams": 2}, "num_beam_groups=2.*loop comes from outside"),
        ({"negative_prompt_ids": torch.ones(1, 3)}, r"a tensor of \(1, 3\).*on a second prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_generate_options_that_dropping_cannot_follow(model, inputs, options, message):
    encoded = []
    model.model.vision_tower.register_forward_hook(lambda *_: encoded.append(1))
    with FASTV.attach(model), pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=2, **options)
    assert not encoded, "refused after work has started"


def test_an_assistant_is_refused(model, inputs):
    with FASTV.attach(model), pytest.raises(ValueError, match=r"model=a Llava.*guessed tokens"):
        model.generate(**inputs, max_new_tokens=2, assistant_model=tiny_llava())


def test_generate_options_are_found_in_configs_too(model, inputs):
    config = copy.deepcopy(model.generation_config)
    config.prompt_lookup_num_tokens = 3
    with FASTV.attach(model), pytest.raises(ValueError, match="prompt_lookup_num_tokens=3"):
        model.generate(**inputs, max_new_tokens=2, generation_config=config)
    model.generation_config.prompt_lookup_num_tokens = 4
    with FASTV.attach(model), pytest.raises(ValueError, match="prompt_lookup_num_tokens=4"):
        model.generate(**inputs, max_new_tokens=2)


def test_continuous_batching(model, inputs):
    with FASTV.attach(model):
        for name in ("generate_batch", "init_continuous_batching"):
            with pytest.raises(ValueError, match=f"{name} is not supported .* pages"):
                getattr(model, name)(inputs["input_ids"].tolist())


def test_a_cache_of_another_prefill(model, inputs):
    with FASTV.attach(model):
        first = model(**inputs).past_key_values
        model(**inputs)
        with pytest.raises(ValueError, match="not filled by the last prefill"):
            model(input_ids=torch.tensor([[7]]), past_key_values=first)


def test_caches_that_cannot_be_cut(model, inputs):
    text = model.config.text_config
    with FASTV.attach(model):
        with pytest.raises(ValueError, match="StaticLayer"):
            model(**inputs, past_key_values=StaticCache(config=text, max_cache_len=64))
        sliding = LlamaConfig(**text.to_dict())
        sliding.sliding_window, sliding.layer_types = 8, ["sliding_attention"] * 6
        with pytest.raises(ValueError, match="SlidingWindow"):
            model(**inputs, past_key_values=DynamicCache(config=sliding))
        with pytest.raises(ValueError, match="offloaded"):
            model(**inputs, past_key_values=DynamicCache(offloading=True))


def test_forward_arguments_that_lose_their_meaning(model, inputs):
    with FASTV.attach(model):
        with pytest.raises(ValueError, match="labels"):
            model(**inputs, labels=inputs["input_ids"])
        with pytest.raises(ValueError, match="logits_to_keep"):
            model(**inputs, logits_to_keep=torch.tensor([3]))
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        with pytest.raises(ValueError, match="input_ids"):
            model(inputs_embeds=embeds)
        with pytest.raises(ValueError, match="empty image"):
            model(**{**inputs, "pixel_values": inputs["pixel_values"][:0]})
        four = torch.ones(1, 1, 46, 46, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"\[batch, tokens\]"):
            model(**{**inputs, "attention_mask": four})


def test_right_padding_and_holes(model, inputs):
    with FASTV.attach(model):
        for at in (-1, 5):
            mask = inputs["attention_mask"].clone()
            mask[0, at] = 0
            with pytest.raises(ValueError, match="pad on the left"):
                model(**{**inputs, "attention_mask": mask})


def test_a_compiled_model(model):
    model.model.language_model.compile(backend="eager")
    with pytest.raises(ValueError, match=r"model\.language_model is compiled"):
        attach(FASTV, model)
    other = tiny_llava()
    other.forward = torch.compile(other.forward, backend="eager")
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration is compiled"):
        attach(FASTV, other)
    with pytest.raises(ValueError, match="OptimizedModule is compiled"):
        attach(FASTV, torch.compile(tiny_llava(), backend="eager"))


def test_compiled_parts_whose_hooks_would_be_ignored(model):
    layer = model.model.language_model.layers[2]
    layer.compile(backend="eager")
    with pytest.raises(ValueError, match=r"layers\.2 is compiled.*layer\.forward = torch\.compile"):
        attach(FASTV, model)
    other = tiny_llava()
    encoder_blocks(other)[1].mlp.compile(backend="eager")
    with pytest.raises(ValueError, match=r"encoder\.layers\.1\.mlp is compiled"):
        attach(FASTV, other)
    third = tiny_llava()
    third.model.language_model.layers[2].mlp.compile(backend="eager")
    layer = third.model.language_model.layers[3]
    layer.forward = torch.compile(layer.forward, backend="eager")
    attach(FASTV, third)


def test_an_attention_that_hides_its_masks(model):
    model.config.text_config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="flex_attention"):
        attach(FASTV, model)


def test_a_model_with_no_adapter():
    config = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with pytest.raises(TypeError, match=r"no adapter for LlamaForCausalLM.*LlavaForConditional"):
        attach(FASTV, LlamaForCausalLM(config))


def test_several_feature_layers_with_merging(model, inputs):
    with (
        DROPPERS["local_merge"].attach(model),
        pytest.raises(
            ValueError, match=r"vision_feature_layer=\[-2, -1\] at the call differs from .* -2"
        ),
    ):
        model.generate(**inputs, max_new_tokens=1, vision_feature_layer=[-2, -1])
    model.config.vision_feature_layer = [-2, -1]
    with pytest.raises(ValueError, match=r"vision_feature_layer must be one layer.*\[-2, -1\]"):
        attach(DROPPERS["local_merge"], model)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TokenDropper(prefill=FastV(5, layer=5)), "layers -1 to 4"),
        (lambda: TokenDropper(prefill=FastV(5, layer=99)), "after layer 99"),
        (lambda: TokenDropper(prefill=DualAttention(0.1, 0.1, layers=[1, 40])), "layer 40"),
        (lambda: TokenDropper(vision=LocalMerge(0.5, window=4)), "4x4 does not divide.*6x6"),
        (lambda: TokenDropper(vision=LocalMerge(0.5, block=9)), "blocks 0 to 3, got 9"),
        (lambda: TokenDropper(vision=LocalMerge(0.5, block=2)), "features are read at block 2"),
        (lambda: TokenDropper(vision=ClsTopK(5, block=7)), "blocks 0 to 3, got 7"),
        (lambda: TokenDropper(key_tokens=ClsAttention(block=-9)), "blocks 0 to 3, got -9"),
        (lambda: TokenDropper(decode=OutputAware(from_layer=7)), r"from_layer.*\[0, 6\], got 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_and_blocks_the_model_does_not_have(model, build, message):
    with pytest.raises(ValueError, match=message):
        attach(build(), model)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FastV(keep=-1), "0 or more, or a Budget, got -1"),
        (lambda: Random(keep=-2), "0 or more, or a Budget, got -2"),
        (lambda: UniformGrid(keep=-3), "0 or more, or a Budget, got -3"),
        (lambda: ClsTopK(keep=-4), "0 or more, or a Budget, got -4"),
        (lambda: DualAttention(2.0, 0.1), r"gamma must be a share in \[0, 1\], or None, got 2.0"),
        (lambda: DualAttention(0.1, -0.1), "alpha must be an attention weight in .* got -0.1"),
        (lambda: DualAttention(None, None), "at least one threshold"),
        (lambda: DualAttention(0.1, 0.1, min_keep=-1), "min_keep.*got -1"),
        (lambda: DualAttention(0.1, 0.1, layers=[]), "a list of one layer or more"),
        (lambda: LocalMerge(0.8, window=1), "at least 2 patches wide, got 1"),
        (lambda: ClsAttention("ratio", ratio=1.5), r"ratio must be a share in \[0, 1\], got 1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("stage", ["vision", "key_tokens", "prefill", "decode"])
def test_a_stage_that_is_no_strategy(stage):
    from omegaconf import OmegaConf

    from mustdrop.stages import require_strategy

    config = OmegaConf.create({"_target_": "mustdrop.prefill.fastv.FastV", "keep": 3})
    with pytest.raises(TypeError, match=r"got DictConfig; build it first with .*instantiate"):
        require_strategy(stage, config, PrefillStrategy)
    with pytest.raises(TypeError, match="got the class FastV; pass an instance"):
        require_strategy(stage, FastV, PrefillStrategy)
    with pytest.raises(TypeError, match="must be a PrefillStrategy or None, got str"):
        require_strategy(stage, "fastv", PrefillStrategy)


@pytest.mark.parametrize(
    ("stage", "choice", "known"),
    [
        (LocalMerge(0.8), "score", "mean, sum"),
        (LocalMerge(0.8), "crops", "own, fewest"),
        (LocalMerge(0.8), "order", "raster, similarity"),
        (ClsAttention(), "rule", "outlier, threshold, ratio"),
        (ClsAttention(), "heads", "mean, max"),
        (FastV(3), "rows", "last, all"),
        (TokenDropper(), "positions", "original, compact"),
        (TokenDropper(), "vision_positions", "original, compact"),
        (TokenDropper(), "decode_positions", "continue, cache_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_misspelt_choice_never_means_another(stage, choice, known):
    object.__setattr__(stage, choice, "misspelt")  # past the run-time checker of the tests
    with pytest.raises(ValueError, match=f"{choice} must be one of {known}, got 'misspelt'"):
        stage.__post_init__()


def test_the_dropper_itself_refuses_what_is_no_strategy():
    """In a process of its own: here the run-time checker of the tests would speak first."""
    code = "from mustdrop import TokenDropper; TokenDropper(prefill={'keep': 3})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TypeError: prefill must be a PrefillStrategy or None, got dict; build" in done.stderr


def test_images_that_do_not_match_their_prompts(model, inputs):
    two = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    official = DROPPERS["mustdrop_official"]
    with (
        official.attach(model),
        pytest.raises(ValueError, match="1 of 2 images have no vision slots"),
    ):
        model(**two)


def test_a_prompt_that_ends_with_its_image(model):
    with FASTV.attach(model), pytest.raises(ValueError, match="prompt 0 ends with a vision token"):
        model(**prompt(model, after=0))


def test_a_block_that_was_not_listed(model, inputs):
    class Forgetful(ClsTopK.__mro__[1]):
        places, cls_attention_blocks = ("features",), ()

        def reduce(self, view):
            return Reduction(view.cls_attention(1).mean(0).topk(3).indices)

    with (
        TokenDropper(vision=Forgetful()).attach(model),
        pytest.raises(ValueError, match="block 1 was not recorded; list it in 'cls_att"),
    ):
        model(**inputs)


def test_attaching_twice(model):
    with FASTV.attach(model), pytest.raises(ValueError, match="already attached"):
        attach(FASTV, model)
    attach(FASTV, model)


@pytest.mark.parametrize("name", ["fastv", "all_stages", "cls_topk"])
def test_the_model_is_as_found_after_exit(model, inputs, name):
    greedy(model, inputs)  # transformers installs hooks of its own on the first call
    before = state(model)
    tokens, logits = greedy(model, inputs)
    with DROPPERS[name].attach(model):
        assert state(model) != before
        greedy(model, inputs)
    assert state(model) == before
    again = greedy(model, inputs)
    assert torch.equal(again[0], tokens) and torch.equal(again[1], logits)


class Fails(PrefillStrategy):
    layers = (1,)

    def reduce(self, view) -> Reduction:
        raise RuntimeError("a strategy's own error")


def test_the_model_is_as_found_after_an_exception(model, inputs):
    greedy(model, inputs)
    before = state(model)
    _, logits = greedy(model, inputs)
    with (
        pytest.raises(RuntimeError, match="a strategy's own error"),
        TokenDropper(prefill=Fails()).attach(model),
    ):
        greedy(model, inputs)
    assert state(model) == before
    assert torch.equal(greedy(model, inputs)[1], logits)


def test_a_run_goes_on_after_a_failed_prompt(model, inputs):
    with mustdrop().attach(model):
        expected = greedy(model, inputs)
        bad = batch(inputs, prompt(model, seed=9))
        bad["pixel_values"] = bad["pixel_values"][:1]
        with pytest.raises(ValueError):
            greedy(model, bad)
        found = greedy(model, inputs)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_stage_that_was_never_called_is_an_error(model, inputs, monkeypatch):
    from mustdrop.engine.prefill import PrefillPass

    monkeypatch.setattr(PrefillPass, "before", _skips(PrefillPass.before))
    with FASTV.attach(model), pytest.raises(RuntimeError, match="was called after layers"):
        model(**inputs)


def _skips(before):
    def broken(self, layer, args, kwargs):
        if layer == 2:
            self.decides = set()
        return before(self, layer, args, kwargs)

    return broken


def test_cls_attention_of_an_encoder_without_cls(model):
    facts = replace(adapter_for(model).facts, has_cls=False)
    for stage in (ClsTopK(3), ClsAttention()):
        with pytest.raises(ValueError, match="no \\[CLS\\] token"):
            stage.check(facts)


def test_eager_attention_where_it_cannot_be_read(monkeypatch):
    """transformers 5.0 calls eager attention without looking it up in the table."""
    monkeypatch.setattr("mustdrop.engine.fit.reads_eager", lambda: False)
    with pytest.raises(ValueError, match="load the model with attn_implementation='sdpa', or"):
        FASTV.attach(tiny_llava("eager")).__enter__()
    with FASTV.attach(tiny_llava("sdpa")):
        pass
