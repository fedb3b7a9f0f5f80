"""Checkpoints in the hub's layout, through the chat path: inputs, batches, controls, decoding."""

import numpy as np
import pytest
import torch
from einops import rearrange
from family_droppers import FITTING, FITTING_OF, TWINS
from hub_checkpoints import FAMILIES, random_model, save, tokenizer
from models import greedy
from PIL import Image
from standins import write_benchmark
from tiled_checkpoints import TILED_CHECKPOINTS
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
)

from analysis.records.mosaics import crop_mosaics
from analysis.report.__main__ import main as report
from analysis.report.tracing import Traces
from experiments.run import run
from experiments.trace import main as trace_runs
from mustdrop.evaluation.answers import generate_options
from mustdrop.evaluation.chat import pictures, read_chat
from mustdrop.evaluation.image_controls import BlankImage, ResizedImage, WrongImage, showing
from mustdrop.evaluation.model_inputs import processor_inputs, prompt_inputs
from mustdrop.evaluation.trace import _pictures as trace_pictures
from mustdrop.evaluation.trace import encoder_images
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.models.inputs import load_processor, without_video
from mustdrop.presets.compose import composed
from mustdrop.runs.trace import Trace

# Vision tokens of one image of 40 x 30 pixels. Gemma 3: 4 x 4 cells. LLaVA-1.5, PaliGemma and
# Video-LLaVA: 6 x 6 patches. LLaVA-NeXT: these and 10 rows of 12 patches from 4 crops, with a
# newline behind each row; 2 rows are padding. Qwen: 4 x 5 cells of 8 x 8 pixels. InternVL: one tile
# of 4 x 4 cells. Idefics3 and SmolVLM: two columns and two rows of such tiles, and the whole image
# in small. LLaVA-OneVision: 8 x 8 patches, and 8 rows of 10 patches with a newline. Mistral 3:
# 4 x 5 cells; Pixtral: 8 x 10 patches.
SLOTS = {
    "gemma3": 16, "llava": 36, "llava_next": 36 + 10 * (12 + 1), "paligemma": 36,
    "qwen2_5_vl": 20, "qwen3_vl": 20, "video_llava": 36, "internvl": 16, "idefics3": 5 * 16,
    "smolvlm": 5 * 16, "onevision": 64 + 8 * (10 + 1), "mistral3": 20, "pixtral": 80,
}  # fmt: skip
SLOW = ("gemma3", "paligemma", "qwen3_vl", *TWINS)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(family, marks=pytest.mark.slow if family in SLOW else ())
        for family in FAMILIES
    ],
)
def loaded(request, tmp_path_factory):
    folder = save(request.param, tmp_path_factory.mktemp(request.param))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return request.param, model.eval(), load_processor(folder, model.config)


def picture(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def chat(question, *images):
    content = [
        *({"type": "image", "url": image} for image in images),
        {"type": "text", "text": question},
    ]
    return read_chat("t", 0, [{"role": "user", "content": content}])


def slots(model, inputs):
    return (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist()


def encoder_images_of(model, inputs):
    """What the encoder gets of all images of a batch, in the order of the prompts."""
    shown = adapter_for(model).visual_inputs(inputs)[model.config.image_token_id]
    return [pixels for image in shown for pixels in image.pixels]


CHATS = (
    chat("What?", picture(40, 30)),
    chat("Nothing to see."),
    chat("Which?", picture(24, 60, 1), picture(50, 20, 2)),
)


def shown_to(family):
    """Conversations for a family; PaliGemma reads no text without an image."""
    return CHATS if family != "paligemma" else (CHATS[0], CHATS[2])


def test_every_prompt_has_its_own_images_in_a_batch(loaded):
    family, model, processor = loaded
    chats = shown_to(family)
    together = prompt_inputs(model, processor, chats)
    alone = [prompt_inputs(model, processor, [entry]) for entry in chats]
    assert slots(model, together) == [slots(model, inputs)[0] for inputs in alone]
    assert slots(model, together)[:-1] == [SLOTS[family], 0][: len(chats) - 1]
    for row, mask, inputs in zip(
        together["input_ids"], together["attention_mask"], alone, strict=True
    ):
        assert torch.equal(row[mask.bool()], inputs["input_ids"][0])
    if family in TILED_CHECKPOINTS:
        made, *parts = (encoder_images_of(model, inputs) for inputs in (together, *alone))
        apart = [pixels for part in parts for pixels in part]
        assert len(made) == len(apart) and all(map(torch.equal, made, apart))
        return
    name = "pixel_values_images" if family == "video_llava" else "pixel_values"
    values = [inputs[name] for inputs in alone if name in inputs]
    if family == "llava_next":  # padded to the largest number of crops
        most = max(value.shape[1] for value in values)
        values = [
            torch.nn.functional.pad(value, (0,) * 7 + (most - value.shape[1],)) for value in values
        ]
    assert torch.equal(together[name], torch.cat(values))


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_a_prompt_begins_once_and_brings_no_labels(family, tmp_path):
    """Gemma 3's template begins as its tokenizer does; PaliGemma's processor makes labels."""
    folder = save(family, tmp_path)
    processor = load_processor(folder, AutoConfig.from_pretrained(folder))
    inputs = processor_inputs(processor, CHATS[:1])
    begins = inputs["input_ids"][0] == processor.tokenizer.bos_token_id
    assert int(begins.sum()) == 1 and "labels" not in inputs


def test_prompts_without_images_have_no_pixels(loaded):
    family, model, processor = loaded
    if family == "paligemma":
        with pytest.raises(ValueError, match="prompt 0: PaliGemmaProcessor makes prompts with"):
            prompt_inputs(model, processor, CHATS[1:2])
        return
    inputs = prompt_inputs(model, processor, CHATS[1:2] * 2)
    assert not any(name.startswith("pixel") for name in inputs) and slots(model, inputs) == [0, 0]


def test_images_of_a_prompt_stay_together():
    """LLaVA-OneVision crops a single image of a prompt, and not those of a prompt with several."""
    processor = without_video(LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(
            size={"height": 24, "width": 24}, image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]]
        ),
        tokenizer("llava"), num_image_tokens=36, vision_feature_select_strategy="full",
        chat_template="{% for part in messages[0].content if part.type == 'image' %}<image>"
        "{% endfor %}?",
    )  # fmt: skip
    inputs = prompt_inputs(random_model("llava", processor.tokenizer), processor, CHATS)
    assert inputs["batch_num_images"].tolist() == [1, 2]


def test_the_likeliest_token_is_taken_whatever_the_checkpoint_sets(loaded):
    """Qwen2.5-VL's files ask for sampling and for a penalty on repeated tokens."""
    _, model, processor = loaded
    inputs = prompt_inputs(model, processor, CHATS[:1])
    options = generate_options({}, 24, processor.tokenizer.pad_token_id)
    with torch.inference_mode():
        made = model.generate(
            **inputs, **options, output_logits=True, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    new = made.sequences[0, inputs["input_ids"].shape[1] :]
    assert new.tolist() == [int(logits[0].argmax()) for logits in made.logits]
    for logits, scores in zip(made.logits, made.scores, strict=True):
        assert torch.equal(logits, scores)


@pytest.mark.parametrize("name", ["all_stages", "fastv", "divprune"])
def test_dropping_equals_masking_behind_a_real_processor(loaded, name):
    family, model, processor = loaded
    chats = shown_to(family)
    inputs = prompt_inputs(model, processor, chats)
    with FITTING_OF.get(family, FITTING)[name].attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=4)
    counts = [(ledger.counts().resident, int(ledger.vision.sum())) for ledger in run.ledgers]
    assert any(left < entered for left, entered in counts)
    for number in range(len(chats)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


@pytest.mark.parametrize(
    "control",
    [WrongImage("wrong"), BlankImage("blank", (123, 117, 104)), ResizedImage("resized", 0.25)],
)
def test_a_replaced_image_has_as_many_vision_tokens(loaded, control):
    family, model, processor = loaded
    chats = shown_to(family)
    others = [picture(30, 60, 3)], [picture(64, 16, 4), picture(16, 16, 5)]
    before = slots(model, prompt_inputs(model, processor, chats))
    shown = [showing(entry, control, processor, lambda: iter(others)) for entry in chats]
    assert slots(model, prompt_inputs(model, processor, shown)) == before
    for entry, own in zip(shown, chats, strict=True):
        for replacement, image in zip(pictures(entry), pictures(own), strict=True):
            assert replacement.tobytes() != image.tobytes()


def test_a_run_shows_the_authors_prompt_and_records_it(tmp_path, monkeypatch):
    folder, prompts = save("llava", tmp_path / "tiny"), []
    data = write_benchmark("gqa", tmp_path, "testdev_balanced_instructions", "testdev")

    def spied(processor, *rest):
        inputs = processor_inputs(processor, *rest)
        prompts.extend(processor.tokenizer.batch_decode(inputs["input_ids"]))
        return inputs

    monkeypatch.setattr("mustdrop.evaluation.batches.processor_inputs", spied)
    record = run(
        composed(
            "experiment=table1", "method=vanilla", "budget=none", f"model.pretrained={folder}",
            "model.layers=6", "model.vision_tokens=36", "model.merging_blocks=3",
            "model.dtype=float32", "benchmark=gqa", f"benchmark.data={data}", "benchmark.limit=2",
            f"output_root={tmp_path}", "workers=0",
        )
    )  # fmt: skip
    model = record["config"]["model"]
    assert (record["config"]["inputs"], model["resize"]) == ("authors", "pad")
    assert record["generation"] == {"repetition_penalty": 1.0}
    assert len(prompts) == 2
    for prompt in prompts:
        start, image, question = prompt.replace("<pad>", "").partition("<image>" * 36)
        assert start == f"<s>{model['system']} USER: " and image
        assert question.startswith("\n") and question.endswith(" single word or phrase. ASSISTANT:")


def test_the_encoders_images_are_read_back_from_the_inputs(loaded):
    """Sides that no family resizes: those of an image, a tile or a crop, or those of cells."""
    family, model, processor = loaded
    sizes = {
        **{name: [(32, 32)] * 2 for name in ("gemma3", "internvl", "onevision")},
        **{name: [(64, 64)] * 2 for name in ("idefics3", "smolvlm")},
        **{name: [(24, 24), (32, 48)] for name in ("mistral3", "pixtral")},
        **{name: [(24, 24), (32, 48)] for name in ("qwen2_5_vl", "qwen3_vl")},
    }.get(family, [(24, 24)] * 2)
    shown = [picture(*size, seed) for seed, size in enumerate(sizes)]
    inputs = prompt_inputs(model, processor, [chat("Which?", *shown)])
    made = encoder_images(adapter_for(model), inputs)
    if family == "llava_next":  # the whole image, then two crops
        made = made[::3]
    if family in ("idefics3", "smolvlm"):  # two rows of tiles, then the small copy
        tiles = [torch.stack(made[first : first + 4]) for first in (0, 5)]
        made = [rearrange(part, "(r n) c h w -> c (r h) (n w)", r=2) for part in tiles]
    images = processor.image_processor
    mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
    for pixels, image in zip(made, shown, strict=True):
        expected = (torch.from_numpy(np.asarray(image) / 255) - mean) / std
        assert torch.allclose(pixels.permute(1, 2, 0).double(), expected, atol=1e-5)


def test_crops_lie_where_the_picture_has_them(tmp_path):
    """40 x 30 pixels become 48 x 36 in 2 x 2 crops, between two rows of cells with padding."""
    folder = save("llava_next", tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = load_processor(folder, model.config)
    x, y = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 30))
    image = Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))
    inputs = prompt_inputs(model, processor, [chat("What?", image)])
    with FITTING["fastv"].attach(model) as run:
        greedy(model, inputs)
    (ledger,) = run.ledgers
    trace = Trace(ledger, pictures=trace_pictures(adapter_for(model), processor, inputs))
    (mosaic,) = crop_mosaics(ledger)
    fates = mosaic.fates(trace)
    assert fates.grid == (10, 12)
    slots = ledger.vision.nonzero().flatten()[36:].view(10, 13)[:, :-1]  # without newlines
    kept = torch.isin(slots, ledger.alive[ledger.depth - 1]).flatten().numpy()
    assert 0 < kept.sum() < 120
    assert ((fates.left == fates.depth) == kept).all()
    shown = np.asarray(mosaic.picture(trace), dtype=float)[2:-2]  # two rows of pixels are padding
    expected = np.asarray(image.resize((48, 36), Image.Resampling.BICUBIC), dtype=float)
    assert shown.shape == expected.shape
    assert abs(shown - expected).mean() < 6  # WebP is lossy; two swapped crops differ by over 60


SHAPES = {
    "gemma3": ["model=gemma3_4b", "model.merging_blocks=4", "model.vision_tokens=16"],
    "paligemma": ["model=paligemma_3b_224", "model.merging_blocks=4", "model.vision_tokens=36"],
    "llava_next": ["model=llava_next_7b", "model.merging_blocks=3"],
    "qwen2_5_vl": [
        "model=qwen2_5_vl_7b", "model.merging_blocks=4", "model.min_pixels=256",
        "model.max_pixels=4096",
    ],
    "qwen3_vl": [
        "model=qwen3_vl_8b", "model.merging_blocks=4", "model.min_pixels=256",
        "model.max_pixels=4096",
    ],
    "onevision": ["model=llava_onevision_7b"],
    "mistral3": ["model=mistral_small_3_1_24b", "model.max_pixels=4096"],
    "pixtral": ["model=pixtral_12b", "model.max_pixels=4096"],
    "idefics3": ["model=smolvlm_2b", "model.merging_blocks=4", "model.max_pixels=4096"],
    "smolvlm": ["model=smolvlm2_2b", "model.merging_blocks=4", "model.max_pixels=4096"],
    "internvl": [
        "model=internvl3_8b", "model.merging_blocks=4", "model.min_pixels=1024",
        "model.max_pixels=4096",
    ],
}  # fmt: skip


LATE = (*SLOW, "mistral3", "onevision", "smolvlm")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if name in LATE else ()) for name in SHAPES],
)
def test_a_family_runs_from_its_folder_to_its_page(family, tmp_path):
    """A run, its traces and the page, for images of several grids."""
    folder = save(family, tmp_path / "tiny")
    data = write_benchmark("gqa", tmp_path, "testdev_balanced_instructions", "testdev")
    given = [
        *SHAPES[family], f"model.pretrained={folder}", "model.layers=6", "model.dtype=float32",
        "benchmark=gqa", f"benchmark.data={data}", "benchmark.limit=3", "budget=none",
        f"output_root={tmp_path}",
    ]  # fmt: skip
    for method in (["method=vanilla"], ["method=fastv", "prefill.keep=8"]):
        record = run(composed(*method, *given))
        assert record["n"] == 3 and record["vision_tokens"][0] >= 16
    assert record["vision_tokens"][1:] == [8] * 5 and record["flops_ratio"] < 1
    trace_runs([str(tmp_path / "run"), "--samples", "0-1"])
    (trace, *_) = sorted((tmp_path / "run").rglob("traces/*.npz"))
    found = Trace.load(trace)
    assert len(found.pictures) == len(found.ledger.grids) >= 1
    for number, (rows, columns) in enumerate(found.ledger.grids):
        width, height = found.picture(number).size
        assert width * rows == height * columns
    shown = Traces().add(trace.parents[1], int(trace.stem))
    assert shown is not None and shown["slots"] == int(found.ledger.vision.sum())
    labels = ["whole image", "crops in place"] if family == "llava_next" else None
    labels = labels or [""] * len(found.pictures)
    assert [image["label"] for image in shown["images"]] == labels
    page = tmp_path / "page.html"
    assert not report([str(tmp_path / "run"), "--out", str(page)])
    assert page.stat().st_size > 50_000
