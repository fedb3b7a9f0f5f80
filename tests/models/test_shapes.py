"""Costs of other decoders and encoders: exact to the integer, or refused by the name of a class."""

import pytest
import torch
from models import batch, greedy, prompt, tiny_llava
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    CohereConfig,
    DeepseekV3Config,
    DiffLlamaConfig,
    DynamicCache,
    Gemma2Config,
    GPTNeoXConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    NemotronConfig,
    OlmoeConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    SiglipVisionConfig,
    StableLmConfig,
    Starcoder2Config,
    ViTConfig,
)

from mustdrop import TokenDropper
from mustdrop.cost import flops
from mustdrop.decode.output_aware import OutputAware
from mustdrop.evaluation.metrics import CostMeter
from mustdrop.prefill.fastv import FastV
from mustdrop.profiling.counting import UNSEEN
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.local_merge import LocalMerge

TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": None,
    "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 3,
    "image_size": 24, "patch_size": 4,
}  # fmt: skip
QWEN, CLIP = Qwen2Config(**TEXT), CLIPVisionConfig(**VISION)
COUNTED = {
    "qwen2": QWEN,
    "heads wider than the model": Qwen3Config(**TEXT, head_dim=16),
    "two matrices, phi": PhiConfig(**TEXT),
    "two matrices, starcoder2": Starcoder2Config(**TEXT, sliding_window=None),
    "two matrices, nemotron": NemotronConfig(**TEXT),
    "fused matrices": Phi3Config(**TEXT),
    "norms with a weight a head": CohereConfig(**TEXT, use_qk_norm=True),
    "norms in a list": StableLmConfig(**TEXT, qk_layernorm=True),
    "experts, mixtral": MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=3),
    "experts, olmoe": OlmoeConfig(**TEXT, num_experts=4, num_experts_per_tok=2),
}
REFUSED = {
    "Qwen2MoeMLP": Qwen2MoeConfig(
        **TEXT, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
    ),
    "DiffLlamaAttention": DiffLlamaConfig(**TEXT),
    "DeepseekV3Attention": DeepseekV3Config(
        **TEXT, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
        first_k_dense_replace=9,
    ),
    "GPTNeoXLayer": GPTNeoXConfig(**TEXT),
}  # fmt: skip


def llava(text=QWEN, vision=CLIP, select: str = "default") -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    slots = 37 if select == "full" and vision is CLIP else 36
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=5, image_seq_length=slots,
        vision_feature_select_strategy=select,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")
    return model


def told_and_counted(model, dropper: TokenDropper, images: int = 1) -> tuple[int, int]:
    """FLOPs of a prompt from its ledger, and those that torch counts."""
    meter = CostMeter.from_model(model)
    with (
        dropper.attach(model) as run,
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=UNSEEN) as counter,
    ):
        model(**prompt(model, images=images, flat=0.5), logits_to_keep=1)
    line = meter.measure(run.ledgers[0], None)
    return flops(line["prefill_macs"] + line["encoder_macs"]), counter.get_total_flops()


@pytest.mark.parametrize("name", COUNTED)
def test_costs_of_a_decoder_equal_the_counter_to_the_integer(name):
    model = llava(COUNTED[name])
    for dropper in (TokenDropper(), TokenDropper(prefill=FastV(5, layer=1))):
        told, counted = told_and_counted(model, dropper)
        assert told == counted


SIGLIP = SiglipVisionConfig(**VISION)
BARE = SiglipVisionConfig(**VISION, vision_use_head=False)


@pytest.mark.parametrize(
    ("vision", "select"),
    [(SIGLIP, "full"), (BARE, "full"), (CLIP, "full"), (CLIP, "default")],
    ids=["siglip with its head", "siglip", "cls to the projector", "clip"],
)
def test_costs_of_an_encoder_equal_the_counter_to_the_integer(vision, select):
    model = llava(vision=vision, select=select)
    droppers = [TokenDropper(), TokenDropper(LocalMerge(-1.0, score="mean", block=1))]
    # the head reads the last block's tokens, which have left; the [CLS] stays
    droppers += [TokenDropper(ClsTopK(keep=9))] if vision is CLIP else []
    for dropper in droppers:
        told, counted = told_and_counted(model, dropper, images=2)
        assert told == counted
    meter = CostMeter.from_model(model)
    assert meter.encoder.pooled == (vision is SIGLIP)
    assert meter.encoder.extra_projected == (vision is CLIP and select == "full")


@pytest.mark.parametrize("name", REFUSED)
def test_a_decoder_without_a_closed_form_is_refused_by_the_name_of_its_class(name):
    with pytest.raises(ValueError, match=f"^the costs of {name} have no closed form here: ") as e:
        CostMeter.from_model(llava(REFUSED[name]))
    assert "\n" not in str(e.value)


def test_a_refused_cost_hinders_no_dropping():
    model = llava(REFUSED["DiffLlamaAttention"])
    with TokenDropper(prefill=FastV(5, layer=1)).attach(model) as run:
        greedy(model, prompt(model))
    assert run.ledgers[0].vision_per_layer() == [36, 36, 5, 5]


@pytest.mark.parametrize("head", [nn.Linear(16, 97), nn.Sequential(nn.Linear(32, 97))])
def test_a_head_of_another_structure_is_refused(head):
    model = llava()
    model.lm_head = head
    with pytest.raises(ValueError, match=f"^the costs of {type(head).__name__} have no closed"):
        CostMeter.from_model(model)


def changed(change) -> LlavaForConditionalGeneration:
    model = llava()
    change(model.model, model.model.language_model.layers[2])
    return model


def low_rank(_, layer):
    layer.mlp.up_proj = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 64))


def of_another_width(_, layer):
    layer.mlp = type(layer.mlp)(Qwen2Config(**{**TEXT, "intermediate_size": 96}))


def with_a_fourth_matrix(_, layer):
    layer.mlp.third_proj = nn.Linear(32, 64)


def with_a_narrow_way_in(_, layer):
    layer.mlp.up_proj = nn.Linear(16, 64)


def with_a_narrow_way_out(_, layer):
    layer.mlp.down_proj = nn.Linear(64, 16)


def with_another_output(_, layer):
    layer.self_attn.gate = nn.Linear(32, 32)


def with_a_matrix_of_its_own(_, layer):
    layer.extra = nn.Parameter(torch.zeros(32, 32))


def with_a_matrix_beside_its_layers(base, _):
    base.language_model.mixer = nn.Bilinear(32, 32, 32)


def with_a_second_convolution(base, _):
    base.vision_tower.stem = nn.Conv2d(3, 3, 1)


def with_a_matrix_in_the_encoder(base, _):
    base.vision_tower.mixer = nn.Bilinear(24, 24, 24)


def with_a_matrix_in_the_projector(base, _):
    base.multi_modal_projector.mixer = nn.Bilinear(24, 24, 32)


def with_a_short_way(base, _):
    base.multi_modal_projector.skip = nn.Linear(24, 32)


def with_overlapping_patches(base, _):
    base.vision_tower.embeddings.patch_embedding.stride = (2, 2)


def with_an_uneven_encoder(base, _):
    base.vision_tower.encoder.layers[1].mlp.fc1 = nn.Linear(24, 24)
    base.vision_tower.encoder.layers[1].mlp.fc2 = nn.Linear(24, 24)


def with_narrow_attention(base, _):
    base.vision_tower.encoder.layers[1].self_attn.v_proj = nn.Linear(24, 8)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (low_rank, "Sequential"),
        (of_another_width, "Qwen2DecoderLayer"),
        (with_a_fourth_matrix, "Qwen2DecoderLayer"),
        (with_a_narrow_way_in, "Qwen2DecoderLayer"),
        (with_a_narrow_way_out, "Qwen2DecoderLayer"),
        (with_another_output, "Qwen2Attention"),
        (with_a_matrix_of_its_own, "Qwen2DecoderLayer"),
        (with_a_matrix_beside_its_layers, "Bilinear"),
        (with_a_second_convolution, "CLIPVisionModel"),
        (with_a_matrix_in_the_encoder, "Bilinear"),
        (with_a_matrix_in_the_projector, "Bilinear"),
        (with_a_short_way, "LlavaMultiModalProjector"),
        (with_overlapping_patches, "CLIPVisionModel"),
        (with_an_uneven_encoder, "CLIPEncoderLayer"),
        (with_narrow_attention, "CLIPAttention"),
    ],
)  # fmt: skip
def test_a_changed_part_is_refused_by_its_structure_not_by_its_models_name(change, where):
    with pytest.raises(ValueError, match=f"^the costs of {where} have no closed form here: "):
        CostMeter.from_model(changed(change))


def with_a_shared_expert(layer):
    layer.mlp.shared = nn.Linear(32, 32)


def with_a_wide_router(layer):
    layer.mlp.gate.weight = nn.Parameter(torch.zeros(4, 64))


@pytest.mark.parametrize(
    ("change", "where"),
    [(with_a_shared_expert, "MixtralDecoderLayer"), (with_a_wide_router, "MixtralExperts")],
)
def test_other_experts_are_refused(change, where):
    model = llava(COUNTED["experts, mixtral"])
    change(model.model.language_model.layers[2])
    with pytest.raises(ValueError, match=f"^the costs of {where} have no closed form here: "):
        CostMeter.from_model(model)


def test_an_encoder_of_another_structure_is_refused():
    with pytest.raises(ValueError, match=r"^the vision encoder must be one of .*, got vit$"):
        CostMeter.from_model(llava(vision=ViTConfig(**VISION), select="full"))


def two_queries(head):
    head.probe = nn.Parameter(torch.zeros(1, 2, 24))


def two_attentions(head):
    head.second = nn.MultiheadAttention(24, 3)


def narrow_attention(head):
    head.attention = nn.MultiheadAttention(12, 3)


def a_wider_mlp(head):
    head.mlp.fc1, head.mlp.fc2 = nn.Linear(24, 80), nn.Linear(80, 24)


@pytest.mark.parametrize("change", [two_queries, two_attentions, narrow_attention, a_wider_mlp])
def test_another_pooling_head_is_refused(change):
    model = llava(vision=SIGLIP, select="full")
    change(model.model.vision_tower.head)
    with pytest.raises(ValueError, match=r"^the costs of SiglipMultiheadAttentionPoolingHead have"):
        CostMeter.from_model(model)


def test_soft_caps_cost_nothing():
    assert CostMeter.from_model(llava(Gemma2Config(**TEXT, head_dim=8))).decoder.mlp_matrices == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kv_bytes_of_a_record_are_the_bytes_of_the_cache(dtype):
    model = tiny_llava(dtype=dtype)
    inputs = batch(prompt(model, images=2, after=4), prompt(model, after=9))
    for dropper in (TokenDropper(), TokenDropper(prefill=FastV(5), decode=OutputAware(0))):
        cache = DynamicCache()
        alone = {name: value[:1] for name, value in inputs.items() if name != "pixel_values"}
        alone["pixel_values"] = inputs["pixel_values"][:2]
        with dropper.attach(model) as run, torch.inference_mode():
            model(**alone, past_key_values=cache)
        line = CostMeter.from_model(model).measure(run.ledgers[0], None)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert line["kv_bytes"] == held
        if dropper.prefill is None:
            assert line["vanilla_kv_bytes"] == held
