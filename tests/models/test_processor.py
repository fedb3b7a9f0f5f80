"""A processor that does not fit its model is refused at load, by the field's name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mustdrop.checkpoint import Checkpoint
from mustdrop.models import adapter_for
from mustdrop.models.processor import require_fit
from mustdrop.pocket import CHECKPOINT, build_model, build_processor, config


@pytest.fixture(scope="module")
def adapter():
    return adapter_for(build_model())


def image_settings(processor, **values):
    for name, value in values.items():
        setattr(processor.image_processor, name, value)


def square(side):
    return {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}


def without(attribute):
    return lambda processor: setattr(processor, attribute, None)


def tokenizer_without_the_image(processor):
    processor.image_token = "<img>"


def split_image_token(processor):
    processor.image_token = "<image> <image>"


MISFITS = {
    "patch_size: the processor has none": without("patch_size"),
    "vision_feature_select_strategy: the processor has none": without(
        "vision_feature_select_strategy"
    ),
    "num_additional_image_tokens: the processor has none": without("num_additional_image_tokens"),
    # what LlavaProcessor takes where the file does not say it
    "num_additional_image_tokens must be 1, got 0: the processor makes": lambda processor: setattr(
        processor, "num_additional_image_tokens", 0
    ),
    "patch_size must be 8, got 16: the processor makes 144 slots": lambda processor: setattr(
        processor, "patch_size", 16
    ),
    "vision_feature_select_strategy must be 'default', got 'full'": lambda processor: setattr(
        processor, "vision_feature_select_strategy", "full"
    ),
    "crop_size: the processor makes images of 224 x 224": lambda processor: image_settings(
        processor, **square(224)
    ),
    "crop_size: the processor makes images of 288 x 192": lambda processor: image_settings(
        processor, do_center_crop=False
    ),
    "image_token: the tokenizer has no token '<img>'": tokenizer_without_the_image,
    "image_token: the tokenizer has no token '<image> <image>'": split_image_token,
    "pad_token: the tokenizer has none": lambda processor: setattr(
        processor.tokenizer, "pad_token", None
    ),
    "the tokenizer has 71 tokens, but the model has 70": lambda processor: (
        processor.tokenizer.add_tokens("zebra")
    ),
    "chat_template: the processor has none": without("chat_template"),
    "chat_template: the prompt must contain one <image>": lambda processor: setattr(
        processor, "chat_template", "{{ messages[0]['content'][1]['text'] }}"
    ),
    "chat_template: the prompt must contain one <image> and the question": lambda processor: (
        setattr(processor, "chat_template", "<image>")
    ),
    "chat_template: TemplateSyntaxError": lambda processor: setattr(
        processor, "chat_template", "{% for"
    ),
    "has no image_processor": without("image_processor"),
    "has no tokenizer": without("tokenizer"),
}


def test_the_packaged_processor_fits(adapter):
    require_fit(adapter, build_processor())


@pytest.mark.parametrize("message", MISFITS)
def test_a_misfit_is_named_by_its_field(adapter, message):
    processor = build_processor()
    MISFITS[message](processor)
    with pytest.raises(ValueError) as refused:
        require_fit(adapter, processor)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_another_image_token_of_the_model_is_a_misfit():
    other = config()
    other.image_token_id = 7
    with pytest.raises(
        ValueError, match="is token 4 of the tokenizer, but the model's image_token"
    ):
        require_fit(adapter_for(build_model(other)), build_processor())


def copied(folder, file, **values):
    """The packaged checkpoint with another value, or none, in one of its files."""
    shutil.copytree(CHECKPOINT, folder)
    settings = json.loads((folder / file).read_text())
    for name, value in values.items():
        settings[name] = value
        if value is None:
            del settings[name]
    (folder / file).write_text(json.dumps(settings))
    return Checkpoint("own", str(folder), 12, 576, 3)


def test_a_checkpoint_with_an_old_processor_is_refused_at_load(tmp_path):
    made = copied(tmp_path / "old", "processor_config.json", patch_size=None)
    with pytest.raises(ValueError, match=r"processor of .*old does not fit its model: patch_size"):
        made.load("cpu")


def test_weights_that_are_missing_torn_or_of_another_shape_are_refused(tmp_path):
    """transformers would draw them at random, with a warning."""
    made = copied(tmp_path / "own", "config.json")
    path = tmp_path / "own" / "model.safetensors"
    whole, stored = path.read_bytes(), load_file(path)
    del stored["language_model.model.layers.3.self_attn.q_proj.weight"]
    save_file(stored, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights: .*3\.self_attn\.q_proj"):
        made.load("cpu")
    stored["language_model.model.layers.3.self_attn.q_proj.weight"] = torch.zeros(96, 95)
    save_file(stored, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"has shape \(96, 95\).* asks for \(96, 96\)"):
        made.load("cpu")
    for size in (len(whole) // 2, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a weight file of .*own is torn"):
            made.load("cpu")


@pytest.mark.slow
def test_decoding_is_greedy_and_padded_on_the_left_whatever_the_files_say(tmp_path):
    from experiments.run import run
    from mustdrop.presets.compose import composed
    from mustdrop.runs.folder import read_samples

    sampled = {"do_sample": True, "temperature": 0.2, "top_p": 0.7, "num_beams": 3, "max_length": 9}
    made = {
        "plain": ("generation_config.json", {}),
        "sampled": ("generation_config.json", sampled),
        "right": ("tokenizer_config.json", {"padding_side": "right"}),
    }
    answers = []
    for name, (file, values) in made.items():
        copied(tmp_path / name, file, **values)
        run(
            composed(
                "model=pocket", f"model.pretrained={tmp_path / name}", "method=fastv",
                "budget=t128", "benchmark.limit=12", "controls=none",
                f"output_root={tmp_path / name / 'out'}",
            )
        )  # fmt: skip
        (record,) = (tmp_path / name).rglob("record.json")
        answers.append([line["answer"] for line in read_samples(record.parent)])
    assert len(answers[0]) == 12 and answers[0] == answers[1] == answers[2]
