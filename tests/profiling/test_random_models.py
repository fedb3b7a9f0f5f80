"""Full-size models without files: their sizes are those of the presets, their prompts fit them."""

import pytest
import torch
import yaml
from families import FAMILIES
from transformers import AutoModelForImageTextToText

from mustdrop.models import adapter_for
from mustdrop.presets.folders import conf_dir
from mustdrop.profiling.random_models import build_random, with_depth
from mustdrop.profiling.random_prompts import AFTER, BEFORE, RandomPrompts, usual_size
from mustdrop.profiling.sizes import CONFIGS

PRESETS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((conf_dir() / "model").glob("*.yaml"))
}
# Parameters of the released checkpoints, in thousand millions.
PARAMETERS = {
    "llava15_7b": 7.06, "llava15_13b": 13.35, "llava_next_7b": 7.06, "llava_next_13b": 13.35,
    "llava_next_mistral_7b": 7.57, "qwen2_5_vl_3b": 3.75, "qwen2_5_vl_7b": 8.29,
    "video_llava_7b": 7.37,
}  # fmt: skip


FEW = ("llava_next_mistral_7b", "qwen2_5_vl_3b")  # the others have the same builders
MARKED = [
    pytest.param(name, marks=() if name in FEW else pytest.mark.slow)
    for name in PRESETS
    if name != "pocket"
]


def test_every_preset_has_sizes_or_files():
    assert set(CONFIGS) == set(PRESETS) - {"pocket"}


@pytest.mark.parametrize("name", MARKED)
def test_every_model_preset_is_built_at_its_size(name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIGS[name](), dtype=torch.bfloat16)
    facts, preset = adapter_for(model).facts, PRESETS[name]
    assert facts.depth == preset["layers"]
    assert facts.feature_block + 1 == preset["merging_blocks"]
    tokens = None if facts.grid is None else facts.grid[0] * facts.grid[1]
    assert preset["vision_tokens"] in (None, tokens)
    count = sum(weight.numel() for weight in model.parameters())
    assert count / 1e9 == pytest.approx(PARAMETERS[name], abs=0.005)


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("llava15_7b", 576), ("llava_next_7b", 2928), ("qwen2_5_vl_7b", 1296),
        ("video_llava_7b", 256),
    ],
)  # fmt: skip
def test_a_random_prompt_has_the_slots_of_its_pictures(name, slots):
    config = CONFIGS[name]()
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    prompts = RandomPrompts(model, 1, usual_size(config))
    pixels = {**prompts.pixels(prompts.pictures(1)), "mm_token_type_ids": torch.zeros(0)}
    (image,) = adapter_for(model).visual_inputs(pixels)[config.image_token_id]
    assert len(image.cells) == slots


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
def test_a_batch_of_random_prompts_has_no_padding(family):
    model = FAMILIES[family].model()
    inputs = RandomPrompts(model, 2, (48, 48)).inputs(3)
    ids = inputs["input_ids"]
    text = (ids != model.config.image_token_id).sum(1)
    assert text.tolist() == [BEFORE + 1 + AFTER] * 3 and bool(inputs["attention_mask"].all())
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=1).logits
    assert torch.allclose(logits[0], logits[2], atol=1e-5)


def test_fewer_layers_are_built_and_more_are_refused():
    config = FAMILIES["llava_next"].model().config
    model = build_random(with_depth(config, 3), "cpu", torch.float32)
    assert len(adapter_for(model).layers) == 3
    assert with_depth(config, None) is config
    with pytest.raises(ValueError, match=r"depth must be in \[2, 3\] layers, got 9"):
        with_depth(config, 9)
