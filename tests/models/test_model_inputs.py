"""Pixels, prompts and limits in front of a model are what its config says, on every machine."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hub_checkpoints import FAMILIES, save
from PIL import Image
from qwen_checkpoints import QWEN
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    Gemma3ImageProcessorPil,
    Idefics3ImageProcessorPil,
    PerceptionLMConfig,
    SiglipImageProcessorPil,
)

from mustdrop.checkpoint import Checkpoint
from mustdrop.models.frame_processors import ClipFrames, QwenFrames
from mustdrop.models.image_scale import image_scale
from mustdrop.models.inputs import PIL_KINDS, Inputs, load_processor
from mustdrop.pocket import build_processor
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.key import LATER_MODEL_FIELDS, run_key

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
COLOUR = (122, 116, 104)  # of the mean: 255 x 0.48145466 = 122.8, 116.7, 104.1, rounded down
SENTENCE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
QUESTION = [
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": 'What is it?\nOne "word".'}],
    }
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture
def processor_of(folders):
    def load(family, **fields):
        processor = load_processor(folders[family], AutoConfig.from_pretrained(folders[family]))
        Inputs(**fields).apply(processor)
        return processor

    return load


def noise(width, height):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values), values


def normalised(values):
    """[height, width, 3] of 0 to 255 -> what the encoder gets."""
    return (values / 255 - np.array(MEAN)) / np.array(DEVIATION)


def seen(processor, image):
    pixels = processor.image_processor([image], return_tensors="np")["pixel_values"][0]
    return pixels.transpose(1, 2, 0)


def prompt(processor, messages=QUESTION):
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(("width", "height"), [(24, 11), (10, 24), (24, 24)])
def test_padding_puts_the_whole_image_into_the_middle_of_a_square(processor_of, width, height):
    """The square has the encoder's size, so that no pixel is resampled."""
    image, values = noise(width, height)
    expected = np.empty((24, 24, 3))
    expected[:] = COLOUR
    top, left = (24 - height) // 2, (24 - width) // 2
    expected[top : top + height, left : left + width] = values
    pixels = seen(processor_of("llava", resize="pad"), image)
    assert np.abs(pixels - normalised(expected)).max() < 1e-5


def test_the_hubs_inputs_of_llava_are_the_centre(processor_of):
    image, values = noise(40, 24)
    pixels = seen(processor_of("llava"), image)
    assert np.abs(pixels - normalised(values[:, 8:32])).max() < 1e-5


def test_padding_comes_before_resizing(processor_of):
    """A red band of 48 x 12 becomes one of 24 x 6; rows near an edge mix colours."""
    pixels = seen(processor_of("llava", resize="pad"), Image.new("RGB", (48, 12), (250, 10, 10)))
    band, frame = normalised(np.array((250, 10, 10))), normalised(np.array(COLOUR))
    assert np.abs(pixels[11:13] - band).max() < 0.02
    assert np.abs(pixels[:6] - frame).max() < 0.02 and np.abs(pixels[18:] - frame).max() < 0.02


def test_the_authors_prompt_of_llava_is_vicuna_v1(processor_of):
    assert prompt(processor_of("llava")) == ('USER: <image>\nWhat is it?\nOne "word". ASSISTANT:')
    for family in ("llava", "llava_next"):
        assert prompt(processor_of(family, system=SENTENCE)) == (
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. USER: <image>\n"
            'What is it?\nOne "word". ASSISTANT:'
        )


def test_a_system_sentence_replaces_that_of_the_template(processor_of):
    question = '<|vision_start|><|image_pad|><|vision_end|>What is it?\nOne "word".<|im_end|>\n'
    assert prompt(processor_of("qwen2_5_vl")) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{question}<|im_start|>assistant\n"
    )
    odd = 'Say "{% if %}" or\n\\n é \U0001f600.'
    assert prompt(processor_of("qwen2_5_vl", system=odd)) == (
        f"<|im_start|>system\n{odd}<|im_end|>\n<|im_start|>user\n{question}<|im_start|>assistant\n"
    )


def test_a_template_replaces_the_checkpoints_and_keeps_its_first_line_break(processor_of):
    template = "\n{% for turn in messages %}[{{ turn.content[0].text }}]{% endfor %}"
    messages = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    # Templates are rendered with trim_blocks, which removes a line break behind a block only.
    assert prompt(processor_of("llava", template=template), messages) == "\n[Why?]"
    both = processor_of("llava", template=template, system="Be brief.")
    assert prompt(both, messages) == "\n[Be brief.][Why?]"


@pytest.mark.parametrize(
    ("limits", "grid"),
    [
        # 60 x 100 pixels, cells of 8 x 8; sides are divided by sqrt(6000 / limit), down to cells:
        ({}, (12, 20)),  # 4096: by 1.2103, 49.6 x 82.6, so 6 x 10 cells of 2 x 2 patches
        ({"max_pixels": 1024}, (6, 10)),  # by 2.4206, 24.8 x 41.3
        ({"min_pixels": 9000, "max_pixels": 20000}, (20, 32)),  # times 1.2247, up: 80 x 128
        ({"min_pixels": 100, "max_pixels": 8000}, (16, 24)),  # within: 64 x 96, the nearest cells
    ],
)
def test_limits_on_pixels_decide_the_number_of_patches(processor_of, limits, grid):
    images = processor_of("qwen2_5_vl", **limits).image_processor
    made = images([noise(100, 60)[0]], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, *grid]]


REFUSED = {
    "model.resize must be hub: LlavaNextImageProcessorPil has no padding": (
        "llava_next", {"resize": "pad"},
    ),
    "model.min_pixels and model.max_pixels must be null: CLIPImageProcessorPil has no": (
        "llava", {"max_pixels": 1024},
    ),
    "model.min_pixels must be positive and at most model.max_pixels, got 5000 and 4096": (
        "qwen2_5_vl", {"min_pixels": 5000},
    ),
    "the chat template leaves it out and makes the prompt 'word'": (
        "llava", {"system": "Be brief.", "template": "{{ messages[-1].content[0].text }}"},
    ),
    "model.system: the chat template refuses it: no system": (
        "llava", {"system": "Be brief.", "template": "{{ raise_exception('no system') }}"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_an_option_that_a_processor_does_not_have_is_refused(processor_of, message):
    family, fields = REFUSED[message]
    with pytest.raises(ValueError) as refused:
        processor_of(family, **fields)
    assert message in str(refused.value)


def test_a_sentence_of_unknown_words_is_refused():
    with pytest.raises(ValueError, match="tokenizer does not know 2 of the 4 tokens of 'is "):
        Inputs(system="is the zebra curious").apply(build_processor())
    bare = build_processor()
    bare.chat_template = None
    with pytest.raises(ValueError, match=r"model\.system must be null: .*no chat template"):
        Inputs(system="what").apply(bare)


def test_a_checkpoint_has_the_inputs_of_its_fields():
    made = Checkpoint("pocket", "packaged", 12, 576, 3, resize="pad", template=QWEN)
    assert made.inputs == Inputs("pad", None, QWEN)
    with pytest.raises(ValueError, match=r"model\.max_pixels must be null"):
        Checkpoint("pocket", "packaged", 12, 576, 3, max_pixels=9).load("cpu")
    model, processor = Checkpoint("pocket", "packaged", 12, 576, 3, resize="pad").load("cpu")
    assert processor.image_processor.do_pad and model is not None


def test_images_are_read_with_pil_where_torchvision_is_installed_too(processor_of, monkeypatch):
    load, requested = AutoImageProcessor.from_pretrained, []

    def spied(*args, **kwargs):
        requested.append(kwargs.get("backend"))
        return load(*args, **kwargs)

    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", spied)
    for family in FAMILIES:
        assert isinstance(processor_of(family).image_processor, PIL_KINDS)
    assert requested == ["pil"] * len(FAMILIES)
    monkeypatch.setattr("mustdrop.models.inputs.PIL_KINDS", Image.Image)
    with pytest.raises(ValueError, match="CLIPImageProcessorPil does not read images with PIL"):
        processor_of("llava")


def test_a_package_that_a_processor_needs_is_told(processor_of, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("SmolVLMProcessor requires\n `pip install num2words`.")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", missing)
    with pytest.raises(ValueError, match=r"package that is missing: SmolVLM.* `pip install num2w"):
        processor_of("llava")


def test_a_processor_that_reads_frames_with_pil_is_the_real_one(processor_of, folders):
    """Without torchvision AutoProcessor cannot build it; the others it builds as we do."""
    for family, kind, name in (
        ("qwen2_5_vl", QwenFrames, "Qwen2_5_VLProcessor"),
        ("video_llava", ClipFrames, "VideoLlavaProcessor"),
    ):
        processor = processor_of(family)
        assert type(processor).__name__ == name and type(processor.video_processor) is kind
        assert processor.to_dict()["video_processor"] == processor.video_processor.to_dict()
    for family in ("llava", "llava_next"):
        theirs = AutoProcessor.from_pretrained(folders[family], backend="pil")
        assert type(theirs) is type(processor_of(family))
        assert theirs.to_dict() == processor_of(family).to_dict()
    with pytest.raises(ValueError, match="PerceptionLMProcessor cannot be built without a video"):
        load_processor(Path("nowhere"), PerceptionLMConfig())


def test_the_scale_of_an_image_is_that_of_its_processor(processor_of):
    size = (100, 60)  # width, height
    expected = {
        ("llava", "hub"): 24 / 60,  # the shorter side becomes 24
        ("llava", "pad"): 24 / 100,  # the longer one does
        ("llava_next", "hub"): 48 / 100,  # 48 x 48 holds most of it: 48 x 29 pixels
        ("qwen2_5_vl", "hub"): (64 * 64 / 6000) ** 0.5,
    }
    for (family, resize), scale in expected.items():
        images = processor_of(family, resize=resize).image_processor
        assert image_scale(images, size) == pytest.approx(scale)
        assert image_scale(images, (9, 10)) == 1.0
    assert image_scale(Idefics3ImageProcessorPil(size={"longest_edge": 64}), size) == 0.64
    siglip = SiglipImageProcessorPil(size={"height": 20, "width": 30})
    assert image_scale(siglip, size) == pytest.approx((600 / 6000) ** 0.5)
    with pytest.raises(ValueError, match="does not know how Gemma3ImageProcessorPil scales"):
        image_scale(Gemma3ImageProcessorPil(do_pan_and_scan=True), size)


@pytest.mark.parametrize("table", ["table1", "table1_next", "table3", "table4", "table5", "table6"])
def test_the_papers_tables_take_the_authors_inputs(table):
    chosen = ("method=fastv", "budget=none", "prefill.keep=3")
    authors = resolved(composed(f"experiment={table}", *chosen))["model"]
    resize = "hub" if authors["name"] == "llava_next_7b" else "pad"
    assert (authors["resize"], authors["system"]) == (resize, SENTENCE)
    hub = resolved(composed("model=llava15_7b", *chosen))["model"]
    assert (hub["resize"], hub["system"], hub["template"]) == ("hub", None, None)
    for model, resize, system in (
        ("pocket", "hub", None), ("llava15_7b", "pad", SENTENCE), ("llava15_13b", "pad", SENTENCE),
        ("llava_next_7b", "hub", SENTENCE), ("llava_next_mistral_7b", "hub", None),
    ):  # fmt: skip
        node = resolved(composed(f"experiment={table}", f"model={model}", *chosen))["model"]
        assert (node["resize"], node["system"]) == (resize, system)


def test_inputs_enter_the_run_key_only_where_they_change_something():
    (path, *_) = Path("notebooks/records").rglob("record.json")
    record = json.loads(path.read_text())
    earlier = record["config"]
    assert "resize" not in earlier["model"] and run_key(earlier) == record["key"]
    fields = {"resize": "hub", "system": None, "template": None, "frames": None}
    limits = {"min_pixels": None, "max_pixels": None}
    assert run_key({**earlier, "model": {**earlier["model"], **fields, **limits}}) == record["key"]
    keys = {
        run_key({**earlier, "model": {**earlier["model"], name: value}})
        for name, value in (
            ("resize", "pad"), ("system", "x"), ("template", "x"), ("min_pixels", 9),
            ("max_pixels", 9), ("frames", 8),
        )
    }  # fmt: skip
    assert len(keys | {record["key"]}) == 7
    defaults = {field.name: field.default for field in dataclasses.fields(Checkpoint)}
    assert LATER_MODEL_FIELDS.items() <= defaults.items()
    # the name of the preset does not count, its values do
    assert run_key({**earlier, "inputs": "authors"}) == record["key"]
