"""The doctor: it names the cause of broken set-ups, and is quiet about sound ones."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from experiments.doctor.answers import accuracy, context, sound_answers, table_runs
from experiments.doctor.command import examine, program
from experiments.doctor.findings import Broken, Examination, Finding, finding_lines
from experiments.doctor.images import blank, image_handling, probe
from experiments.doctor.prompts import template
from experiments.doctor.rows import scorable
from experiments.doctor.weights import end_token, weights
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.tasks.stock import StockTask
from mustdrop.models import adapter_for
from mustdrop.pocket import load, sample
from mustdrop.presets.compose import composed

SMALL = ("samples=24", "few=4", "workers=0")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """PocketLLaVA as a folder in the hub's layout."""
    folder = tmp_path_factory.mktemp("doctor") / "pocket"
    model, processor = load()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def examined(tmp_path, *overrides):
    given = [*SMALL, f"output_root={tmp_path}/out", *overrides]
    cfg = composed(*given, name="doctor")
    return examine(cfg, given, Console(quiet=True))


def of(doctor, check):
    """Level and text of the worst finding of a check."""
    order = ["wrong", "warning", "note", "ok", "left out"]
    found = [finding for finding in doctor.findings if finding.check == check]
    worst = min(found, key=lambda finding: order.index(finding.level))
    return worst.level, worst.text


def questions(root, size=(96, 48), count=24, answers=None):
    """Own questions on drawn scenes, with images of another shape."""
    root.mkdir(exist_ok=True)
    lines = []
    for index in range(count):
        item = sample("crowded_test", index)
        item.image.resize(size).save(root / f"{index}.png")
        answer = item.answer if answers is None else answers
        row = {"image": f"{index}.png", "question": item.question, "answer": answer}
        lines.append(json.dumps(row))
    (root / "questions.jsonl").write_text("\n".join(lines))
    return ("benchmark=custom", f"benchmark.data={root}", "benchmark.task.suffix=''")


def test_a_sound_set_up_is_healthy_and_its_page_says_what_was_looked_at(folder, tmp_path):
    doctor = examined(tmp_path, f"model.pretrained={folder}")
    assert doctor.healthy and doctor.counts == {"wrong": 0, "warning": 0}
    checks = {finding.check for finding in doctor.findings}
    assert checks == {
        "machine", "rows", "targets", "calibration", "model", "template", "images", "pictures",
        "attention", "exactness", "answers", "accuracy", "methods", "cost",
    }  # fmt: skip
    home = tmp_path / "out/doctor/pocket/pocket_vqa"
    page = (home / "doctor.txt").read_text()
    for words in (
        "97.4",
        "dropping equals masking on 3 questions",
        "USER: <image>",
        "nothing wrong",
    ):
        assert words in page
    record = json.loads((home / "doctor.json").read_text())
    assert record["healthy"] and len(record["findings"]) == len(doctor.findings)
    assert Image.open(home / "probe.png").size == (480 + 8 + 192, 320)
    assert Image.open(home / "first_image.png").height == 192


@pytest.mark.slow
def test_the_embedded_set_ups_are_healthy(tmp_path):
    for benchmark in ("pocket_vqa", "pocket_vqa_easy"):
        doctor = examined(tmp_path, f"benchmark={benchmark}", "samples=100")
        assert doctor.counts == {"wrong": 0, "warning": 0}, doctor.page()


CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("chat_template", "words"),
    [
        (CHATML, "writes <|im_start|>, which is"),
        ("{{ 'USER: <image> ' + messages[0].content[1].text + ' ' }}", "nothing that opens the"),
        (
            "{{ 'USER: <image> ' + messages[0].content[1].text * 2 }}"
            "{% if add_generation_prompt %} ASSISTANT:{% endif %}",
            "the question is in the prompt 2 times, not once",
        ),
        (
            "{{ 'Question: <image> ' + messages[0].content[1].text }}"
            "{% if add_generation_prompt %} Answer:{% endif %}",
            "tokens are unknown to the tokenizer",
        ),
    ],
)
def test_a_wrong_template_is_named(chat_template, words):
    doctor = Examination("x")
    model, processor = load()
    processor.chat_template = chat_template
    item = sample("crowded_test", 0)
    parts = [{"type": "image", "url": item.image}, {"type": "text", "text": item.question}]
    chat = ChatMessages(messages=[{"role": "user", "content": parts}])
    doctor.run(
        "template", lambda: template(processor, chat, prompt_inputs(model, processor, [chat]))
    )
    level, text = of(doctor, "template")
    assert level == "wrong" and words in text


@pytest.mark.slow
def test_a_template_without_a_mark_of_the_image_is_named(folder, tmp_path):
    whole = (folder / "chat_template.jinja").read_text()
    assert "<image>" in whole
    (folder / "chat_template.jinja").write_text(whole.replace("<image>", ""))
    doctor = examined(tmp_path, f"model.pretrained={folder}")
    level, text = of(doctor, "model")
    assert level == "wrong" and "chat_template: the prompt must contain one <image>" in text


@pytest.mark.slow
def test_cropped_images_are_named(folder, tmp_path):
    level, text = of(examined(tmp_path, f"model.pretrained={folder}", *questions(tmp_path / "q")),
                     "images")  # fmt: skip
    assert level == "warning" and "cuts off the left and the right" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "check", "words"),
    [
        ({"do_rescale": False}, "images", "colours lie in"),
        ({"image_mean": [0.5] * 3}, "colours", "image_mean is [0.5, 0.5, 0.5], not [0.481"),
        ({"crop_size": {"height": 96, "width": 96}, "size": {"shortest_edge": 96}}, "model",
         "makes images of 96 x 96 pixels, but the encoder needs 192 x 192"),
    ],
)  # fmt: skip
def test_a_wrong_processor_is_named(settings, check, words, folder, tmp_path):
    (path,) = [p for p in folder.glob("*processor_config.json") if "image_mean" in p.read_text()]
    whole = json.loads(path.read_text())
    part = whole.get("image_processor", whole)
    part.update(settings)
    path.write_text(json.dumps(whole))
    doctor = examined(tmp_path, f"model.pretrained={folder}")
    level, text = of(doctor, check)
    assert level in ("wrong", "warning") and words in text


@pytest.mark.slow
def test_an_overflow_in_float16_is_named(folder, tmp_path):
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    name = next(n for n in weights if n.endswith("layers.3.mlp.down_proj.weight"))
    weights[name] = weights[name] * 1e6
    save_file(weights, path, metadata={"format": "pt"})
    doctor = examined(tmp_path, f"model.pretrained={folder}", "model.dtype=float16")
    level, text = of(doctor, "exactness")
    assert level == "wrong" and "float16" in text and "model.dtype=bfloat16" in text


@pytest.mark.slow
def test_other_weights_are_seen_by_their_answers(folder, tmp_path):
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    draws = torch.Generator().manual_seed(0)
    for name in weights:
        if ".layers." in name and "vision" not in name and name.endswith("proj.weight"):
            weights[name] = weights[name][torch.randperm(len(weights[name]), generator=draws)]
    save_file(weights, path, metadata={"format": "pt"})
    doctor = examined(tmp_path, f"model.pretrained={folder}")
    level, text = of(doctor, "accuracy")
    assert level == "wrong" and "far below 97.4" in text and "usual reasons" in text
    assert of(doctor, "exactness")[0] == "ok"


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "1 matrices of the checkpoint hold numbers that are not finite"),
     (0.0, "1 matrices of the checkpoint hold a single value (model.language_model.layers.3.mlp")],
)  # fmt: skip
def test_weights_that_were_lost_are_named(value, words):
    model, _ = load()
    assert weights(model) == []
    name = "model.language_model.layers.3.mlp.down_proj.weight"
    with torch.no_grad():
        dict(model.named_parameters())[name].fill_(value)
    (finding,) = weights(model)
    assert finding.level == "wrong" and finding.text.startswith(words)
    assert name in finding.text


def test_an_end_token_of_another_model_is_named():
    model, processor = load()
    assert end_token(model, processor.tokenizer) == []
    for end, words in ((40, "answers end at "), (None, "answers end at no token")):
        model.generation_config.eos_token_id = end
        (finding,) = end_token(model, processor.tokenizer)
        assert finding.level == "wrong" and finding.text.startswith(words)
        assert "is no special token of the tokenizer; its end token is '</s>' (2)" in finding.text


def test_images_without_content_and_exchanged_channels_are_named():
    drawn, plain = sample("crowded_test", 0).image, Image.new("RGB", (20, 20), (9, 9, 9))
    assert blank([plain, drawn]) == [] and blank([]) == []
    (finding,) = blank([plain, plain])
    assert finding.level == "wrong" and "have a single colour each" in finding.text
    model, _ = load()
    values = torch.from_numpy(np.asarray(probe()).copy()).permute(2, 0, 1) / 255
    cases = (
        (values, "the whole image reaches"), (values.flip(0), "the red and the blue of images are"),
        (values.flip(2), "the image is mirrored or turned"),
    )  # fmt: skip
    for shown, words in cases:
        assert words in image_handling(adapter_for(model), shown, []).text


def test_prompts_beyond_the_context_are_named():
    counts = {"positions": 60, "beyond": 2, "first": [0, 3]}
    assert context({**counts, "beyond": 0}, "gqa") == []
    (finding,) = context(counts, "gqa")
    assert finding.level == "wrong" and finding.text.startswith("2 prompts of gqa are longer")


def test_targets_of_other_rows_are_seen_in_the_answers():
    config = {
        "model": {"name": "llava15_7b"},
        "benchmark": {"name": "gqa", "metric": "exact_match"},
    }
    words = [f"word {number}" for number in range(40)]
    mixed = [
        {**answer(word, target=words[number - 1], score=0.0), "image": word}
        for number, word in enumerate(words)
    ]
    found = accuracy(config, mixed, {"exact_match": 0.0})
    assert found.level == "wrong" and "40 of 40 wrong answers are the targets of" in found.text
    wrong = [{**sample, "target": "another"} for sample in mixed]
    assert "of other questions" not in accuracy(config, wrong, {"exact_match": 0.0}).text


@pytest.mark.slow
def test_an_empty_and_a_wrong_split_are_named(folder, tmp_path):
    own = questions(tmp_path / "q")
    (tmp_path / "q/questions.jsonl").write_text("\n")
    doctor = examined(tmp_path, *own)
    assert of(doctor, "rows") == (
        "wrong",
        f"benchmark.task: {tmp_path}/q/questions.jsonl has no rows",
    )
    assert of(doctor, "the rest")[0] == "left out" and not doctor.healthy
    questions(tmp_path / "q", answers="unknown")
    level, text = of(examined(tmp_path, *own), "targets")
    assert level == "wrong" and "all 24 targets are 'unknown'" in text and "hidden" in text
    level, text = of(examined(tmp_path, "benchmark.task.split=easy_test"), "split")
    assert level == "warning" and "benchmark.task.split is easy_test, not crowded_test" in text


@pytest.mark.slow
def test_the_command_says_so_by_its_exit_code(tmp_path, capsys):
    given = [*SMALL, f"output_root={tmp_path}/out"]
    assert program([*given, "samples=4", "few=2"]) == 0
    own = questions(tmp_path / "q", answers="unknown", count=3)
    assert program([*given, *own]) == 1
    assert "WRONG  targets" in capsys.readouterr().out
    for bad, words in ((["-m"], "name=value alone, got -m"), (["few=0"], "few must be a count")):
        with pytest.raises(SystemExit) as left:
            program([*given, *bad])
        assert left.value.code == 2 and words in capsys.readouterr().err


def test_an_error_in_a_check_is_a_finding_and_ends_what_needs_it():
    doctor = Examination("x")
    with pytest.raises(Broken):
        doctor.run("probe", lambda: 1 / 0)
    assert doctor.findings == [
        Finding(
            "probe", "wrong", "ZeroDivisionError: division by zero", {"error": "ZeroDivisionError"}
        )
    ]
    assert doctor.verdict().startswith("1 wrong")
    assert finding_lines(doctor.findings[0]) == [
        "   WRONG  probe        ZeroDivisionError: division by zero"
    ]


def answer(text, new=2, target="cat", score=1.0):
    return {"answer": text, "new_tokens": new, "target": target, "image": text,
            "scores": {"exact_match": score}}  # fmt: skip


def test_answers_that_are_none():
    level = sound_answers([answer("a"), answer("b")], 16).level
    assert level == "ok"
    for samples, words in (
        ([answer("")] * 3, "all answers are empty"),
        ([answer("yes", target=str(i)) for i in range(9)], "9 of 9 answers are 'yes'"),
        ([answer(str(i), new=16) for i in range(3)], "100% of the answers reach the limit of 16"),
    ):
        found = sound_answers(samples, 16)
        assert found.level == "wrong" and words in found.text


@pytest.mark.parametrize(
    ("right", "level", "words"),
    [(62, "ok", "consistent with"), (20, "wrong", "far below"), (95, "warning", "above")],
)
def test_a_sample_beside_published_numbers(right, level, words):
    samples = [answer(str(i), score=float(i < right)) for i in range(100)]
    config = {
        "model": {"name": "llava15_7b"},
        "benchmark": {"name": "gqa", "metric": "exact_match"},
    }
    found = accuracy(config, samples, {"exact_match": right / 100})
    assert found.level == level and words in found.text
    other = {**config, "model": {"name": "nobodys"}}
    assert accuracy(other, samples, {"exact_match": 0.6}).level == "note"


def test_a_sample_ends_where_its_benchmark_can_be_scored(tmp_path):
    class Pairs(StockTask):
        eval_docs = range(9)  # type: ignore[assignment]

        def __init__(self):
            pass

        def require(self, wanted):
            if wanted % 2:
                raise ValueError("a pair is torn")

    assert [scorable(Pairs(), limit) for limit in (2, 3, 8, 20)] == [2, 4, 8, 9]


def test_runs_of_the_papers_table():
    assert table_runs("gqa") == 1 + 3 * 12 and table_runs("pocket_vqa") is None
