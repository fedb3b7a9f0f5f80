"""Controls on the image show what they say, for any task, alike in every batch."""

import numpy as np
import pytest
import torch
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from PIL import Image
from standins import write_benchmark
from untimed import untimed

from experiments.run import run
from mustdrop import TokenDropper
from mustdrop.checkpoint import Checkpoint
from mustdrop.evaluation.chat import pictures, read_chat, replaced
from mustdrop.evaluation.image_controls import (
    BlankImage,
    ImageContext,
    NoImage,
    ResizedImage,
    WrongImage,
    showing,
)
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.pocket_pope import PocketPOPE
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.pocket.dataset import pope, sample
from mustdrop.pocket.evaluation import prompt
from mustdrop.prefill.fastv import FastV
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_samples, run_folder
from mustdrop.vision.known_patches import KnownPatches

SPLIT = "crowded_test"
BLANK = BlankImage("blank", (123, 117, 104))
FASTV = TokenDropper(prefill=FastV(keep=64, layer=0))


@pytest.fixture(scope="module")
def pocket():
    return Checkpoint("pocket", "packaged", layers=12, vision_tokens=576, merging_blocks=3).load(
        "cpu"
    )


def evaluated(pocket, task, limit, image, dropper=None, batch_size=4):
    """The samples, in the order in which they came."""
    samples = []
    adapter = DroppedVLM(
        *pocket, dropper, batch_size=batch_size, on_sample=samples.append, image=image
    )
    evaluator.simple_evaluate(
        model=adapter, tasks=[task], task_manager=TaskManager("ERROR", include_defaults=False),
        limit=limit, bootstrap_iters=0, process_docs_parallel=1,
    )  # fmt: skip
    return samples


def answer(pocket, question, image):
    """By the model alone, one prompt, none of the adapter's code."""
    model, processor = pocket
    text = prompt(processor, question)
    text = text if image is not None else text.replace("<image> ", "")
    images = None if image is None else [image]
    inputs = processor(images=images, text=[text], return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    fresh = tokens[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(fresh, skip_special_tokens=True).strip()


def scale(size):
    """That of PocketLLaVA's processor: the shorter side becomes 192."""
    return min(1.0, 192 / min(size))


def beside(*others):
    return ImageContext(scale, lambda: iter(others))


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_the_model_sees_what_the_control_shows(pocket):
    """Answers equal those of plain generate on a picture changed by hand."""
    asked = [sample(SPLIT, index) for index in range(9)]
    grey = Image.new("RGB", asked[0].image.size, (123, 117, 104))
    shown = {
        WrongImage("wrong"): [one.image for one in asked[1:]],
        NoImage("none"): [None] * 8,
        BLANK: [grey] * 8,
    }
    for control, images in shown.items():
        samples = evaluated(pocket, PocketVQA("pocket_vqa", SPLIT), 8, control)
        expected = [
            answer(pocket, one.question, image)
            for one, image in zip(asked[:8], images, strict=True)
        ]
        assert [line["answer"] for line in samples] == expected
        assert [line["question"] for line in samples] == [one.question for one in asked[:8]]
        assert [line["target"] for line in samples] == [one.answer for one in asked[:8]]


@pytest.mark.parametrize(
    "control", [WrongImage("wrong"), BLANK, NoImage("none"), ResizedImage("resized", 0.25)]
)
def test_the_batch_changes_no_answer_and_no_count(pocket, control):
    told = [
        [
            untimed(line)
            for line in evaluated(pocket, PocketVQA("v", SPLIT), 6, control, FASTV, size)
        ]
        for size in (1, 5)
    ]
    assert told[0] == told[1]
    # what was known of the document's own picture is not known of another
    assert not any("target_recall" in line for line in told[0])


def test_without_an_image_every_number_is_that_of_words_alone(pocket):
    for line in evaluated(pocket, PocketVQA("v", SPLIT), 3, NoImage("none"), FASTV):
        assert line["vision_tokens"] == line["resident_tokens"] == [0] * 12
        assert line["counts"]["executed_average"] == line["counts"]["resident"] == 0
        assert line["prefill_macs"] == line["vanilla_macs"] > 0
        assert line["encoder_macs"] == line["vanilla_encoder_macs"] == 0
        assert (
            line["kv_bytes"] == line["vanilla_kv_bytes"] == 2 * 12 * 4 * 96 * line["prompt_tokens"]
        )


def test_wrong_passes_over_documents_with_the_same_picture():
    """PocketPOPE asks twice of each scene, so the next question's picture is often one's own."""
    task = PocketPOPE("pairs", SPLIT)
    docs = task.eval_docs
    for index in (0, 1, 7):
        own = docs[index]["image"]
        others = ([docs[(index + step) % len(docs)]["image"]] for step in range(1, len(docs)))
        (shown,) = WrongImage("wrong").shown(
            [own], ImageContext(scale, lambda others=others: others)
        )
        assert shown.tobytes() != own.tobytes()
        later = [index + step for step in range(1, 4)]
        found = [
            number for number in later if pope(SPLIT, number).image.tobytes() == shown.tobytes()
        ]
        assert found, "not one of the next documents"
        passed = range(index + 1, found[0])
        assert all(pope(SPLIT, number).image.tobytes() == own.tobytes() for number in passed)


def test_wrong_goes_round_and_is_never_ones_own(pocket):
    images = [noise(8, 8, seed) for seed in (1, 1, 2)]

    class Three(PocketVQA):
        def __init__(self):
            super().__init__("three", SPLIT)
            self.made[SPLIT][0].size = self.made[SPLIT][1].size = 3
            self.config.doc_to_visual = lambda doc: [images[doc["index"]]]

    seen = []

    class Spy(DroppedVLM):
        def read(self, instance):
            request = super().read(instance)
            seen.append(pictures(request.chat)[0].tobytes())
            return request

    adapter = Spy(*pocket, image=WrongImage("wrong"), batch_size=3)
    evaluator.simple_evaluate(
        model=adapter, tasks=[Three()], task_manager=TaskManager("ERROR", include_defaults=False),
        bootstrap_iters=0, process_docs_parallel=1,
    )  # fmt: skip
    own = [image.tobytes() for image in images]
    assert seen == [own[2], own[2], own[0]]


SAME = [[noise(4, 4)]]  # a document with one image


@pytest.mark.parametrize("documents", [[], [SAME], [SAME] * 5, [[], [], []]])
def test_wrong_needs_two_different_pictures(documents):
    with pytest.raises(ValueError, match="image=wrong needs two documents with different images"):
        WrongImage("wrong").check(documents)
    WrongImage("wrong").check([*documents, SAME, [], [[noise(4, 4, 1)]]])


def test_wrong_repeats_pictures_where_the_other_document_has_fewer():
    own, other = [noise(4, 4, seed) for seed in (1, 2, 3)], [noise(4, 4, seed) for seed in (4, 5)]
    shown = WrongImage("wrong").shown(own, beside([], [own[1], other[0]], other))
    assert [one.tobytes() for one in shown] == [other[n].tobytes() for n in (0, 1, 0)]
    assert WrongImage("wrong").shown([], beside(other)) == []
    with pytest.raises(ValueError, match="every other document has an image or a video of this"):
        WrongImage("wrong").shown(own, beside([own[2]], []))


@pytest.mark.parametrize("size", [(192, 192), (800, 600), (60, 90)])
@pytest.mark.parametrize("ratio", [1 / 9, 0.5])
def test_a_resized_picture_has_no_more_than_its_share_of_detail(size, ratio):
    """All that is left can be told from the small picture: as many numbers as it has pixels."""
    picture = noise(*size)
    (shown,) = ResizedImage("resized", ratio).shown([picture], beside())
    assert shown.size == picture.size
    scale = min(1.0, 192 / min(size)) * ratio**0.5
    small = [int(scale * side) for side in size]
    assert small[0] * small[1] <= ratio * min(size[0] * size[1], 192**2 * max(size) / min(size))
    # enlarging is linear, so a colour's rows span no more than the smaller side
    spectrum = np.linalg.svd(np.asarray(shown, dtype=float)[..., 0], compute_uv=False)
    assert spectrum[min(small)] < 0.05 * spectrum[1]
    whole = np.asarray(ResizedImage("resized", 1.0).shown([noise(96, 96)], beside())[0])
    assert np.array_equal(whole, np.asarray(noise(96, 96)))


def test_a_resized_picture_shrinks_by_what_the_processor_leaves(pocket):
    """Half of the pixels of 192 x 288, which the processor makes of 400 x 600."""
    request = read_chat(
        "t", 0, [{"role": "user", "content": [{"type": "image", "url": noise(400, 600)}]}]
    )
    shown = pictures(showing(request, ResizedImage("resized", 0.5), pocket[1], iter))
    small = noise(400, 600).resize((135, 203), Image.Resampling.LANCZOS)
    expected = small.resize((400, 600), Image.Resampling.BICUBIC)
    assert shown[0].tobytes() == expected.tobytes()


def test_wrong_has_the_size_of_ones_own():
    own, other = [noise(9, 5), noise(4, 4)], [noise(4, 4, 1), noise(4, 4, 2)]
    shown = WrongImage("wrong").shown(own, beside(other))
    assert [one.size for one in shown] == [(9, 5), (4, 4)]
    enlarged = other[0].resize((9, 5), Image.Resampling.BICUBIC)
    assert shown[0].tobytes() == enlarged.tobytes() and shown[1] is other[1]


def test_a_blank_picture_tells_nothing_but_its_size(pocket):
    shown = BLANK.shown([noise(30, 20), Image.new("L", (7, 9))], beside())
    assert [one.size for one in shown] == [(30, 20), (7, 9)]
    assert {colour for one in shown for _, colour in one.getcolors()} == {(123, 117, 104)}
    values = pocket[1].image_processor(shown[0], return_tensors="pt")["pixel_values"]
    assert values.abs().max() < 0.01


def test_words_and_their_order_stay_where_pictures_change():
    own = [noise(4, 4), noise(5, 5)]
    content = [
        {"type": "text", "text": "a"}, {"type": "image", "url": own[0]},
        {"type": "text", "text": "b"}, {"type": "image", "url": own[1]},
    ]  # fmt: skip
    chat = read_chat("t", 0, [{"role": "user", "content": content}])
    other = [noise(6, 6), noise(7, 7)]
    turned = replaced(chat, other)
    assert [part.type for part in turned.messages[0].content] == ["text", "image"] * 2
    assert pictures(turned) == other and pictures(chat) == own
    assert [part.type for part in replaced(chat, []).messages[0].content] == ["text", "text"]


def test_what_is_known_of_a_picture_is_not_told_of_another(pocket):
    bound = TokenDropper(vision=KnownPatches(keep=200))
    for control in (BLANK, ResizedImage("resized", 0.5), WrongImage("wrong"), NoImage("none")):
        with pytest.raises(ValueError, match=f"image must be own, got {control.name}"):
            DroppedVLM(*pocket, bound, image=control)
    DroppedVLM(*pocket, bound)


def test_controls_are_runs_of_their_own_beside_those_of_the_own_image(tmp_path):
    names = ("own", "resized", "blank", "none", "wrong")
    folders = set()
    for name in names:
        cfg = composed(
            "method=fastv", "budget=t64", f"image={name}", "controls=none", "benchmark.limit=3",
            "batch_size=3", f"output_root={tmp_path}",
        )  # fmt: skip
        record = run(cfg)
        folders.add(run_folder(resolved(cfg)))
        assert (record["target_recall"] is not None) == (name == "own")
        assert record["method"] == "fastv" and record["n"] == 3
    assert len(folders) == len(names)
    answers = {tuple(line["answer"] for line in read_samples(folder)) for folder in folders}
    assert len(answers) > 1


def test_a_stock_benchmark_takes_them_too(tmp_path, monkeypatch):
    """GQA's questions ask of few pictures, which lie in a subset of their own."""
    data = write_benchmark("gqa", tmp_path, "testdev_balanced_instructions", "testdev")
    shown = []
    read = DroppedVLM.read

    def spied(adapter, instance):
        request = read(adapter, instance)
        shown.append(pictures(request.chat)[0].convert("RGB").getpixel((0, 0)))
        return request

    monkeypatch.setattr(DroppedVLM, "read", spied)
    for name in ("own", "wrong"):
        chosen = ("benchmark=gqa", f"benchmark.data={data}", f"image={name}", "method=vanilla")
        run(composed(*chosen, "batch_size=3", "workers=0", f"output_root={tmp_path}"))
    own, wrong = shown[:4], shown[4:]
    assert own[0] != own[1] and own[:2] == own[2:]
    assert wrong == [own[1], own[0], own[1], own[0]]
