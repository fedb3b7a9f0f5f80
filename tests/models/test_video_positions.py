"""Positions of new tokens behind a long video, where transformers itself has two answers."""

import pytest
import torch
from families import FAMILIES, Video
from family_droppers import FITTING
from models import greedy

from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error

LONG = (4, Video(12, 16, 8), 3)  # the last frames are farther than the text behind the video
SHORT = (4, Video(2, 16, 24), 9)
QWEN = ["qwen2_5_vl", "qwen2_vl"]


def decoded_positions(model, call):
    """Positions that the language model gets for single tokens, without the row for masks."""
    seen = []

    def hook(module, args, kwargs):
        if kwargs["inputs_embeds"].shape[1] == 1:
            seen.append(kwargs["position_ids"][-3:, :, 0])

    handle = model.model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
    with torch.inference_mode():
        call()
    handle.remove()
    return seen


def loop(model, inputs, tokens):
    """Logits of a hand-written loop that passes no positions."""
    out, logits = model(**inputs, use_cache=True), []
    for step in range(tokens.shape[1]):
        logits.append(out.logits[:, -1])
        # with the whole mask, the plain model would make a position of every cached token
        out = model(input_ids=tokens[:, step : step + 1], past_key_values=out.past_key_values)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("family", QWEN)
def test_the_plain_model_itself_has_two_answers(family):
    """What our refusal rests on; if this fails, transformers has settled on one answer."""
    model, made = FAMILIES[family].model(), FAMILIES[family]
    for parts, same in ((LONG, False), (SHORT, True)):
        inputs = made.inputs(model, parts)
        tokens, _ = greedy(model, inputs, 3)
        by_generate = decoded_positions(model, lambda: greedy(model, inputs, 3))  # noqa: B023
        by_forward = decoded_positions(model, lambda: loop(model, inputs, tokens))  # noqa: B023
        positions, delta = model.model.get_rope_index(
            **{name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "video_grid_thw")}
        )
        length = inputs["input_ids"].shape[1]
        assert torch.equal(by_generate[0], positions[..., -1] + 1)
        assert int(by_forward[0][0, 0]) == int(positions.max()) + 1 == length + int(delta)
        assert torch.equal(by_generate[0], by_forward[0]) is same


@pytest.mark.parametrize("name", ["mustdrop", "fastv"])
@pytest.mark.parametrize("family", QWEN)
def test_generate_goes_on_after_the_last_token(family, name):
    model, made = FAMILIES[family].model(), FAMILIES[family]
    inputs = made.inputs(model, LONG)
    with FITTING[name].attach(model) as run:
        tokens, logits = greedy(model, inputs, 3)
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens)) <= 1e-5


@pytest.mark.parametrize("family", QWEN)
def test_a_loop_without_positions_is_refused_where_they_differ(family):
    model, made = FAMILIES[family].model(), FAMILIES[family]
    for dropper in (TokenDropper(), FITTING["fastv"]):
        inputs = made.inputs(model, SHORT)
        with dropper.attach(model), torch.inference_mode():
            tokens, logits = greedy(model, inputs, 3)
            assert relative_error(loop(model, inputs, tokens), logits) <= 1e-5
            inputs = made.inputs(model, LONG)
            tokens, _ = greedy(model, inputs, 3)
            with pytest.raises(ValueError, match="position_ids must be given in a decoding loop"):
                loop(model, inputs, tokens)
