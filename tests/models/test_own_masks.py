"""Models whose masks are not causal, or whose layers have two rotaries and a window.

Controls: a run with one mechanism broken differs from the masked model, which has it whole.
"""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, Image
from family_errors import family_error
from models import greedy
from transformers import DynamicCache

from mustdrop import TokenDropper
from mustdrop.engine.prefill_view import PrefillState
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.models.gemma3 import Gemma3Adapter
from mustdrop.models.paligemma import PaliGemmaAdapter
from mustdrop.prefill.fastv import FastV

ORIGINAL = TokenDropper(prefill=FastV(keep=4, layer=0))
COMPACT = replace(ORIGINAL, positions="compact")


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_a_mask_that_is_made_causal_is_noticed(family, monkeypatch):
    monkeypatch.setattr(PaliGemmaAdapter, "causal", True)
    assert family_error(family, ORIGINAL, monkeypatch) > 1e-3


def test_one_rotary_for_all_layers_is_noticed(monkeypatch):
    first = {}
    rotary = PrefillState.rotary

    def of_the_first_layer(state, layer, hidden, arguments):
        made = first.setdefault(id(state), rotary(state, layer, hidden, arguments))
        return made if made[0].shape[1] == hidden.shape[1] else rotary(
            state, layer, hidden, arguments
        )  # fmt: skip

    monkeypatch.setattr(PrefillState, "rotary", of_the_first_layer)
    assert family_error("gemma3", ORIGINAL, monkeypatch) > 1e-3


def test_one_kind_for_all_layers_is_noticed(monkeypatch):
    """Positions are renumbered, so that rotary embeddings are made anew."""
    assert family_error("gemma3", COMPACT) <= 1e-5
    monkeypatch.setattr(Gemma3Adapter, "kind", lambda adapter, layer: "full_attention")
    assert family_error("gemma3", COMPACT, monkeypatch) > 1e-3


def test_positions_that_begin_at_1_are_renumbered_from_there():
    made = FAMILIES["paligemma"]
    model = made.model()
    inputs, calls = made.inputs(model, made.prompts[0]), []
    with COMPACT.attach(model):
        hook = model.model.language_model.layers[2].register_forward_pre_hook(
            lambda module, args, kwargs: calls.append(kwargs["position_ids"].tolist()),
            with_kwargs=True,
        )
        greedy(model, inputs, steps=2)
        hook.remove()
    assert calls == [[[*range(1, 15)]], [[15]]]  # ten words and four tokens of the image
    assert family_error("paligemma", COMPACT) <= 1e-5


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_images_without_kinds_of_tokens_are_refused(family):
    """Without them, the model attends causally and says nothing."""
    made = FAMILIES[family]
    model = made.model()
    inputs = made.inputs(model, made.prompts[0])
    del inputs["token_type_ids"]
    with (
        ORIGINAL.attach(model),
        pytest.raises(ValueError, match="token_type_ids must be given with images"),
    ):
        model.generate(**inputs, max_new_tokens=1)


def test_a_conversation_may_fill_the_window_and_not_leave_it():
    """Layers with a window of 512 tokens; an image has 16."""
    made = FAMILIES["gemma3"]
    model = made.model()
    assert adapter_for(model).window == 512
    inputs = made.inputs(model, (300, Image(16, 16), 194))
    with ORIGINAL.attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=3)  # the prompt and two tokens fill it
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens)) <= 1e-5
    refused = r"at most 512 tokens, because some .* got 513"
    with ORIGINAL.attach(model), pytest.raises(ValueError, match=refused):
        greedy(model, inputs, steps=4)
    longer = made.inputs(model, (300, Image(16, 16), 197))
    with ORIGINAL.attach(model), pytest.raises(ValueError, match="at most 512 tokens"):
        greedy(model, longer, steps=1)


def test_a_cache_that_would_forget_tokens_is_replaced_by_a_plain_one():
    made = FAMILIES["gemma3"]
    model = made.model()
    inputs = made.inputs(model, *made.prompts)
    cache = DynamicCache(config=model.config.text_config)
    with ORIGINAL.attach(model), torch.inference_mode():
        out = model(**inputs, past_key_values=cache, use_cache=True)
        kinds = {type(layer).__name__ for layer in out.past_key_values.layers}
        assert kinds == {"DynamicLayer"} and cache.get_seq_length() == 0


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_flash_attention_is_refused(family):
    model = FAMILIES[family].model()
    model.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="does not attend causally in its prompts"):
        ORIGINAL.attach(model).__enter__()


@pytest.mark.parametrize(
    "options", [{"num_beams": 2}, pytest.param({"num_return_sequences": 2}, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_every_sequence_of_a_prompt_gets_its_masks(family, options):
    made = FAMILIES[family]
    model = made.model()
    inputs = made.inputs(model, *made.prompts[:2])
    torch.manual_seed(0)
    with ORIGINAL.attach(model) as run, torch.inference_mode():
        out = model.generate(
            **inputs, **options, max_new_tokens=1, do_sample="num_beams" not in options,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    for number in range(2):
        tokens = torch.zeros(2, 1, dtype=torch.long)
        expected = masked_logits(model, run, inputs, tokens, number)[0]
        for row in out.logits[0][2 * number : 2 * number + 2]:
            assert relative_error(row, expected) <= 1e-5
