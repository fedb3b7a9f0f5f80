"""Full-size models without files: their sizes are those of the presets, their prompts fit them."""

import pytest
import torch
import yaml
from families import FAMILIES
from transformers import AutoModelForImageTextToText

from mustdrop import TokenDropper
from mustdrop.models import adapter_for
from mustdrop.presets.folders import conf_dir
from mustdrop.profiling.device import Device
from mustdrop.profiling.random_models import build_random, with_depth
from mustdrop.profiling.random_pictures import processed, random_pictures
from mustdrop.profiling.random_pixels import random_pixels
from mustdrop.profiling.random_prompts import AFTER, BEFORE, RandomPrompts, usual_size
from mustdrop.profiling.reference import Reference, recorded, vision_slots
from mustdrop.profiling.sizes import CONFIGS

PRESETS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((conf_dir() / "model").glob("*.yaml"))
}
# Parameters of the released checkpoints, in thousand millions.
PARAMETERS = {
    "llava15_7b": 7.06, "llava15_13b": 13.35, "llava_next_7b": 7.06, "llava_next_13b": 13.35,
    "llava_next_mistral_7b": 7.57, "qwen2_5_vl_3b": 3.75, "qwen2_5_vl_7b": 8.29,
    "qwen3_vl_2b": 2.13, "qwen3_vl_4b": 4.44, "qwen3_vl_8b": 8.77, "qwen3_vl_30b_a3b": 31.07,
    "video_llava_7b": 7.37, "gemma3_4b": 4.30, "gemma3_12b": 12.19, "paligemma_3b_224": 2.92,
    "paligemma_3b_448": 2.92, "internvl3_2b": 2.09, "internvl3_8b": 7.94, "internvl3_5_8b": 8.53,
    "idefics3_8b": 8.46, "smolvlm_2b": 2.25, "smolvlm2_2b": 2.25, "llava_onevision_0_5b": 0.89,
    "llava_onevision_7b": 8.03, "llava_video_7b": 8.03, "mistral_small_3_1_24b": 24.01,
    "pixtral_12b": 12.68,
}  # fmt: skip


FEW = (
    "internvl3_2b", "llava_next_mistral_7b", "qwen2_5_vl_3b", "qwen3_vl_8b", "qwen3_vl_30b_a3b",
    "gemma3_4b", "paligemma_3b_224",
)  # fmt: skip
MARKED = [
    pytest.param(name, marks=() if name in FEW else pytest.mark.slow)
    for name in PRESETS
    if not name.startswith("pocket")  # those have files
]


def test_every_preset_has_sizes_or_files():
    assert set(CONFIGS) == {name for name in PRESETS if not name.startswith("pocket")}


@pytest.mark.parametrize("name", MARKED)
def test_every_model_preset_is_built_at_its_size(name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIGS[name](), dtype=torch.bfloat16)
    facts, preset = adapter_for(model).facts, PRESETS[name]
    assert facts.depth == preset["layers"]
    merging = facts.feature_block + 1 if facts.whole_encoder is None else None
    assert preset["merging_blocks"] == merging
    tokens = None if facts.grid is None else facts.grid[0] * facts.grid[1]
    assert preset["vision_tokens"] in (None, tokens)
    count = sum(weight.numel() for weight in model.parameters())
    assert count / 1e9 == pytest.approx(PARAMETERS[name], abs=0.005)


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("llava15_7b", 576), ("llava_next_7b", 2928), ("qwen2_5_vl_7b", 1296),
        ("qwen3_vl_4b", 1296), ("video_llava_7b", 256), ("gemma3_4b", 256),
        ("paligemma_3b_448", 1024), ("internvl3_8b", 1280), ("smolvlm2_2b", 17 * 81),
        ("llava_onevision_7b", 27 * 27 + 54 * 55), ("mistral_small_3_1_24b", 36 * 36),
        ("pixtral_12b", 21 * 21),
    ],
)  # fmt: skip
def test_a_random_prompt_has_the_slots_of_its_pictures(name, slots):
    config = CONFIGS[name]()
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    kinds = dict.fromkeys(("mm_token_type_ids", "token_type_ids"), torch.zeros(0))
    pixels = {**random_pixels(config, 1, usual_size(config)), **kinds}
    images = adapter_for(model).visual_inputs(pixels)[config.image_token_id]
    assert sum(len(image.cells) for image in images) == slots


@pytest.mark.parametrize("family", ["gemma3", "llava_next", "paligemma", "qwen2_5_vl"])
def test_a_batch_of_random_prompts_has_no_padding(family):
    model = FAMILIES[family].model()
    inputs = RandomPrompts(model, 2, (48, 48)).inputs(3)
    ids = inputs["input_ids"]
    text = (ids != model.config.image_token_id).sum(1)
    assert text.tolist() == [BEFORE + 1 + AFTER] * 3 and bool(inputs["attention_mask"].all())
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=1).logits
    assert torch.allclose(logits[0], logits[2], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "frames", "batch"),
    [("qwen2_5_vl", 4, 1), ("qwen2_5_vl", 6, 2), ("qwen3_vl", 4, 2)],
)
def test_a_random_prompt_of_frames_shows_one_video(family, frames, batch):
    model = FAMILIES[family].model()
    prompts = RandomPrompts(model, 0, (48, 64), frames)
    inputs = prompts.inputs(batch)
    (videos,) = [made for made in adapter_for(model).visual_inputs(inputs).values() if made]
    assert len(videos) == batch and all(video.is_video for video in videos)
    assert len(videos[0].grids) == frames // 2
    slots = vision_slots(model, inputs).sum(1)
    assert slots.tolist() == [len(videos[0].cells)] * batch == [frames // 2 * 6 * 8] * batch
    assert inputs["mm_token_type_ids"].unique().tolist() == [0, 2]
    with torch.inference_mode():
        expected = model(**inputs, logits_to_keep=1).logits
    work, _ = recorded(model, inputs, TokenDropper())
    assert work.lengths.layers[0] == inputs["input_ids"].shape[1]
    token, _, _ = Reference(model, inputs, work, Device("cpu")).prefill()
    assert token.shape == (batch,) and bool(expected.isfinite().all())


def test_frames_need_a_model_that_reads_videos():
    llava, qwen = FAMILIES["llava_next"].model(), FAMILIES["qwen2_5_vl"].model()
    with pytest.raises(ValueError, match=r"needs a model that reads videos .* got llava_next"):
        RandomPrompts(llava, 0, (48, 48), 4)
    with pytest.raises(ValueError, match=r"must be a multiple of 2, .* got 5"):
        RandomPrompts(qwen, 0, (48, 48), 5)
    assert usual_size(qwen.config, video=True) == (896, 896)


def test_fewer_layers_are_built_and_more_are_refused():
    config = FAMILIES["llava_next"].model().config
    model = build_random(with_depth(config, 3), "cpu", torch.float32)
    assert len(adapter_for(model).layers) == 3
    assert with_depth(config, None) is config
    with pytest.raises(ValueError, match=r"depth must be in \[2, 3\] layers, got 9"):
        with_depth(config, 9)


@pytest.mark.parametrize("size", [None, (336, 616), (700, 420)])
@pytest.mark.parametrize("name", ["internvl3_8b", "llava15_7b", "llava_next_7b", "qwen2_5_vl_7b"])
def test_drawn_pixels_have_the_form_of_processed_pictures(name, size):
    config = CONFIGS[name]()
    size = size or usual_size(config)
    drawn = random_pixels(config, 2, size)
    made = processed(config, random_pictures(2, size))
    assert {key: value.shape for key, value in drawn.items()} == {
        key: value.shape for key, value in made.items()
    }
    for key in drawn.keys() - {"pixel_values"}:
        assert torch.equal(drawn[key], made[key])
    assert 0.5 < drawn["pixel_values"].std() / made["pixel_values"].std() < 2


def test_the_upper_half_of_a_drawn_picture_has_one_colour():
    small, *crops = random_pixels(CONFIGS["llava_next_7b"](), 1, (672, 672))["pixel_values"][0]
    assert len(crops) == 4
    assert float(small[:, :168].std()) == 0 < float(small[:, 168:].std())
    flat = [float(crop.std()) == 0 for crop in crops]
    assert flat == [True, True, False, False]
    patches = random_pixels(CONFIGS["qwen2_5_vl_7b"](), 1, (1008, 1008))["pixel_values"]
    assert float(patches[:2592].std()) == 0 < float(patches[2592:].std())
