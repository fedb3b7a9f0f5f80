"""Decoders are judged by their structure: what is not proved is refused at attach."""

import pytest
import torch
from models import condition, greedy, prompt
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    Gemma2Config,
    GPTNeoXConfig,
    GraniteConfig,
    JetMoeConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Ministral3Config,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.random import Random

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
    "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
DROPPER = TokenDropper(prefill=Random(keep=8, layer=1))
COMPACT = TokenDropper(prefill=Random(keep=8, layer=1), positions="compact")


def llava(text, attention: str = "sdpa") -> LlavaForConditionalGeneration:
    """A tiny LLaVA with any decoder."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=4, num_attention_heads=3,
        image_size=24, patch_size=4,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=5, image_seq_length=36
    )
    model = LlavaForConditionalGeneration(config).eval()
    condition(model)
    model.set_attn_implementation(attention)
    model.generation_config.eos_token_id = None
    return model


UNFIT = {
    "mistral": (MistralConfig(**GROUPED, sliding_window=16), "sliding"),
    "qwen2": (
        Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=16, max_window_layers=2),
        "sliding_attention",
    ),
    "gemma2": (Gemma2Config(**GROUPED, head_dim=8, sliding_window=16), "sliding_attention"),
    "gemma2, capped": (
        Gemma2Config(**GROUPED, head_dim=8, layer_types=["full_attention"] * 6), "capped at 50",
    ),
    "gpt_neox": (GPTNeoXConfig(**SIZES), "no 'self_attn'"),
    "jetmoe": (
        JetMoeConfig(**{**SIZES, "num_attention_heads": 2}, num_key_value_heads=2, kv_channels=8),
        "no 'self_attn'",
    ),
    "granite": (
        GraniteConfig(**GROUPED, embedding_multiplier=12.0), "embedding_multiplier=12.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_an_unproved_decoder_is_refused(name):
    config, reason = UNFIT[name]
    model = llava(config, "eager" if "gemma2" in name else "sdpa")
    with pytest.raises(ValueError, match=reason), DROPPER.attach(model):
        pass


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_move_with_the_positions(kind):
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    rope |= {
        "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    if kind == "dynamic":
        rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    longest = 32 if kind == "longrope" else 4096  # vanilla is dynamic from call to call beyond it
    model = llava(LlamaConfig(**GROUPED, max_position_embeddings=longest, rope_parameters=rope))
    for dropper in (
        COMPACT,
        TokenDropper(prefill=Random(8), vision_positions="compact"),
        TokenDropper(prefill=Random(8, layer=1), decode_positions="cache_length"),
    ):
        message = f"'{kind}' depend on the largest position"
        with pytest.raises(ValueError, match=message), dropper.attach(model):
            pass
    inputs = prompt(model, seed=1)
    with DROPPER.attach(model) as run:
        tokens, logits = greedy(model, inputs, 3)
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens)) <= 1e-5


FIT = {
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "qwen2": Qwen2Config(**GROUPED, use_sliding_window=False, sliding_window=16),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "granite": GraniteConfig(**GROUPED),
    "ministral3": Ministral3Config(**GROUPED, head_dim=8, sliding_window=None),  # reads positions
    "phi": PhiConfig(**GROUPED, partial_rotary_factor=0.5),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FIT)
def test_dropping_equals_masking_in_other_decoders(name, attention):
    model = llava(FIT[name], attention)
    inputs = prompt(model, seed=1, flat=0.5)
    dropper = TokenDropper(
        key_tokens=ClsAttention("ratio", ratio=0.1),
        prefill=DualAttention(0.03, 0.1, layers=[1, 3]), decode=OutputAware(0), positions="compact",
    )  # fmt: skip
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, 3)
    assert run.ledgers[0].counts().executed_average < 36
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens)) <= 1e-5


def test_a_window_is_refused_whatever_the_cache():
    model = llava(UNFIT["mistral"][0])
    with pytest.raises(ValueError, match="whatever the cache"), DROPPER.attach(model):
        model(**prompt(model), past_key_values=DynamicCache())


def test_a_decoder_that_changes_its_embeddings_is_noticed():
    """Where no field of the configuration says so, the first layer's input does."""
    model = llava(FIT["qwen2"])
    text = model.model.language_model

    def double(module, args, kwargs):
        return args, {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] * 2}

    with DROPPER.attach(model):
        handle = text.register_forward_pre_hook(double, with_kwargs=True)
        with pytest.raises(ValueError, match=r"changes \d+ values of its input embeddings"):
            model(**prompt(model))
        handle.remove()
        model(**prompt(model))
