"""A user's own questions: what is read, how it is scored, what is refused, and a whole run."""

import json
import math

import pandas as pd
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from experiments.checks.run_checks import require_folders
from experiments.run import run
from mustdrop.evaluation.tasks.custom import CustomData
from mustdrop.evaluation.tasks.custom_scores import chosen, people_agree, score
from mustdrop.presets.compose import composed
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.folder import read_samples

ROWS = [
    {"image": "pictures/a.png", "question": "What is it?", "answer": "a cat", "type": "what"},
    {"image": ["pictures/a.png", "b.jpg"], "question": "How many?", "answers": [2, "two"]},
    {"video": "c.mp4", "question": "Who?", "choices": ["man", "dog"], "answer": "dog", "id": 7},
]


def folder(root, rows=ROWS, name="questions.jsonl"):
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(root / "pictures/a.png")
    Image.new("L", (20, 20), 9).save(root / "b.jpg")
    (root / "c.mp4").write_bytes(b"nothing decodes it here")
    (root / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return root


def task(root, **fields):
    given = {
        "name": "mine", "split": "questions", "media": ".", "metric": "exact_match",
        "max_new_tokens": 8, "suffix": " Be short.", "choice_suffix": " Choose.",
    }  # fmt: skip
    return CustomData(data=str(root), **{**given, **fields})


def test_rows_become_conversations(tmp_path):
    made = task(folder(tmp_path))
    first, second, third = (made.doc_to_messages(doc)[0]["content"] for doc in made.eval_docs)
    assert [part["type"] for part in first] == ["image", "text"]
    assert first[0]["url"].size == (40, 30) and first[1]["text"] == "What is it? Be short."
    assert [part["url"].size for part in second[:2]] == [(40, 30), (20, 20)]
    assert third[0] == {"type": "video", "url": str(tmp_path / "c.mp4")}
    assert third[1]["text"] == "Who?\nA. man\nB. dog Choose."
    assert [made.doc_to_target(doc) for doc in made.eval_docs] == ["a cat", "2", "B"]
    assert made.eval_docs[0]["type"] == "what"


def test_parquet_holds_paths_or_the_images_themselves(tmp_path):
    folder(tmp_path)
    (tmp_path / "questions.jsonl").unlink()
    rows = [
        {"image": "b.jpg", "question": "One?", "answer": "x"},
        {"image": {"bytes": (tmp_path / "pictures/a.png").read_bytes(), "path": None},
         "question": "Two?", "answers": ["y", "z"]},
    ]  # fmt: skip
    for number, row in enumerate(rows):
        pd.DataFrame([row]).to_parquet(tmp_path / f"part{number}.parquet")
        doc = task(tmp_path, split=f"part{number}").eval_docs[0]
        (shown,) = task(tmp_path, split=f"part{number}").config.doc_to_visual(doc)
        assert shown.size == ((20, 20), (40, 30))[number]


def line(**fields):
    return {**{k: v for k, v in ROWS[0].items() if k not in fields.get("without", ())},
            **{k: v for k, v in fields.items() if k != "without"}}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a"], "must be an object with fields, got list"),
        (line(anwser="x"), "fields must be among image, video, .* got anwser"),
        (line(question=" "), "question must be a text, got ' '"),
        (line(without=["question"]), "question must be a text, got None"),
        (line(without=["image"]), "must have one of image and video, got neither"),
        (line(video="c.mp4"), "must have one of image and video, got image and video"),
        (line(image=[]), "image must be a path or a list of paths, got an empty list"),
        (line(image=3), "image must be a path, got 3"),
        (line(image="pictures/z.png"), "there is no image pictures/z.png in "),
        (line(without=["image"], video="z.mp4"), "there is no video z.mp4 in "),
        (line(without=["answer"]), "must have one of answer and answers, got neither"),
        (line(answers=["x"]), "must have one of answer and answers, got answer and answers"),
        (line(without=["answer"], answers=[]), "answers must be a list of one text or more"),
        (line(answer=True), "an answer must be a text or a number, got True"),
        (line(choices="AB"), "choices must be a list of 2 to 26 texts, got 'AB'"),
        (line(choices=["x", "x"]), "choices must differ"),
        (line(choices=["x", "y"]), "answer must be one of them or one of A to B, got 'a cat'"),
        (line(type=2), "type must be a text, got 2"),
    ],
)
def test_a_row_that_is_not_as_described_is_refused_with_its_line(row, message, tmp_path):
    folder(tmp_path, [ROWS[0], row])
    with pytest.raises(ValueError, match=rf"questions\.jsonl, line 2.*{message}"):
        task(tmp_path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"benchmark\.data=/path/to/folder, see docs/own_data\.md"):
        task(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"questions\.jsonl and questions\.parquet, neither is"):
        task(tmp_path)
    folder(tmp_path)
    for text, message in (("{", "line 1 must be JSON"), ("\n", "has no rows")):
        (tmp_path / "questions.jsonl").write_text(text)
        with pytest.raises(ValueError, match=message):
            task(tmp_path)
    (tmp_path / "questions.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        task(tmp_path)
    (tmp_path / "questions.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="both are there"):
        task(tmp_path)
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(ValueError, match="must be a parquet file"):
        task(tmp_path)


def test_a_metric_needs_its_fields_in_every_row(tmp_path):
    folder(tmp_path)
    for metric, message in (
        ("multiple_choice", "every row must have choices"),
        ("vqa_accuracy", "every row must have 10 answers or more"),
        ("rouge", r"benchmark\.metric must be one of exact_match, contains, anls, "),
    ):
        with pytest.raises(ValueError, match=message):
            task(tmp_path, metric=metric)
    folder(tmp_path, [line(without=["answer"], answers=["x"] * 10, choices=["x", "y"])])
    with pytest.raises(ValueError, match="answer must be one of them"):  # one answer, not ten
        task(tmp_path)
    folder(tmp_path, [line(without=["answer"], answers=["x"] * 10)])
    assert task(tmp_path, metric="vqa_accuracy").scores[-1] == "vqa_accuracy"


NAMES = ["exact_match", "contains", "anls"]


@pytest.mark.parametrize(
    ("answers", "answer", "exact", "contains", "anls"),
    [
        (["a cat"], "Cat.", 1, 1, 0),  # three of five letters differ
        (["a cat"], "it is a cat", 0, 1, 0),
        (["2", "two"], "Two", 1, 1, 1),
        (["color"], "colour", 0, 0, 5 / 6),
        (["?"], "?", 1, 0, 1),
        (["?"], "!", 0, 0, 0),
        (["x"], "", 0, 0, 0),
    ],
)
def test_scores_by_hand(answers, answer, exact, contains, anls):
    scores = score({"answers": answers}, answer, NAMES)
    assert scores == pytest.approx({"exact_match": exact, "contains": contains, "anls": anls})


@pytest.mark.parametrize(
    ("given", "same"), [("yes", 10), ("no", 0), ("Yes.", 10), ("the yes", 10), ("maybe", 0)]
)
def test_accuracy_among_people_when_all_agree(given, same):
    assert people_agree(given, ["yes"] * 10) == same / 10


def test_accuracy_among_people_leaves_one_of_them_out():
    # three of ten: each of the three sees two others, each of the seven sees three
    assert math.isclose(people_agree("a cat", ["cat"] * 3 + ["dog"] * 7), (3 * 2 / 3 + 7) / 10)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(b)", "B"), ("B.", "B"), ("B) red", "B"), ("B: red", "B"), ("Red", "B"),
        ("The answer is B.", "B"), ("Answer: (B)", "B"), ("Option B", "B"), ("B\nbecause", "B"),
        ("A dog", None), ("a", "A"), ("I think so", None), ("C", None), ("", None),
        ("green", None), ("blue or red", None), ("Because", None), ("the red", "B"),
    ],
)  # fmt: skip
def test_the_letter_that_an_answer_chooses(answer, letter):
    assert chosen(answer, ["blue", "red"]) == letter


def test_a_letter_counts_as_its_text():
    doc = {"answers": ["B"], "choices": ["blue", "red"]}
    right = {"exact_match": 1, "contains": 1, "anls": 1, "multiple_choice": 1}
    assert score(doc, "B", list(right)) == score(doc, "red", list(right)) == right
    assert score(doc, "A", list(right)) == dict.fromkeys(right, 0)
    assert score(doc, "it is red", list(right))["contains"] == 1
    assert score(doc, "it is red", list(right))["multiple_choice"] == 0


def config(root, *more):
    return composed(
        "benchmark=custom", f"benchmark.data={root}", "method=random", "budget=t64", *more
    )


def test_wrong_rows_are_refused_before_work(tmp_path):
    folder(tmp_path, [ROWS[0], line(image="z.png")])
    with pytest.raises(ValueError, match=r"line 2: there is no image z\.png"):
        require_folders(OmegaConf.to_container(config(tmp_path), resolve=True))


def test_a_changed_file_is_another_run(tmp_path):
    folder(tmp_path)

    def mark():
        return run_fingerprint(OmegaConf.to_container(config(tmp_path), resolve=True))

    before = mark()
    (tmp_path / ".hidden").write_text("x")
    assert mark() == before
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "pictures/a.png")
    changed = mark()
    assert changed != before
    folder(tmp_path, ROWS[:2])
    assert mark() not in (before, changed)


TASK = """
task: theirs
test_split: test
output_type: generate_until
doc_to_visual: !function words.shown
doc_to_text: !function words.text
doc_to_target: answer
process_results: !function words.score
metric_list: [{metric: long_enough, aggregation: mean, higher_is_better: true}]
"""
WORDS = """
def shown(doc): return [doc["image"].convert("RGB")]
def text(doc): return doc["question"] + " Say it loudly."
def score(doc, results): return {"long_enough": float(len(results[0]) >= LEAST)}
LEAST = 1
"""


def test_a_task_in_lmms_evals_form_may_lie_anywhere(tmp_path):
    folder(tmp_path / "data")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/theirs.yaml").write_text(TASK)
    (tmp_path / "tasks/words.py").write_text(WORDS)
    content = {"bytes": (tmp_path / "data/pictures/a.png").read_bytes(), "path": None}
    row = {"image": content, "question": "What?", "answer": "cat"}
    pd.DataFrame([row, row]).to_parquet(tmp_path / "data/test.parquet")
    own = [
        "benchmark=custom_task", f"benchmark.task.stock={tmp_path}/tasks/theirs.yaml",
        f"benchmark.data={tmp_path}/data", "benchmark.metric=long_enough", "method=vanilla",
        f"output_root={tmp_path}",
    ]  # fmt: skip
    cfg = composed(*own)
    record = run(cfg)
    assert record["n"] == 2 and "long_enough" in record["metrics"]
    (sample, _) = read_samples(next((tmp_path / "run").rglob("samples.jsonl")).parent)
    assert sample["question"] == "What? Say it loudly." and sample["target"] == "cat"
    before = run_fingerprint(OmegaConf.to_container(cfg, resolve=True))
    (tmp_path / "tasks/words.py").write_text(WORDS.replace("LEAST = 1", "LEAST = 2"))
    assert run_fingerprint(OmegaConf.to_container(cfg, resolve=True)) != before
    (tmp_path / "tasks/theirs.yaml").write_text(TASK.replace("generate_until", "loglikelihood"))
    with pytest.raises(InstantiationException, match="output_type must be generate_until, got log"):
        instantiate(cfg.benchmark.task)
    with pytest.raises(InstantiationException, match="or the absolute path of another one, got no"):
        instantiate(cfg.benchmark.task, stock="no.yaml")


def test_a_run_answers_own_questions(tmp_path):
    rows = [line(image="pictures/a.png"), line(question="And here?", image="b.jpg", answer="dog")]
    folder(tmp_path / "data", rows)
    cfg = config(tmp_path / "data", f"output_root={tmp_path}", "benchmark.name=mine")
    record = run(cfg)
    assert record["n"] == 2 and record["benchmark"] == "mine"
    samples = read_samples(next((tmp_path / "run").rglob("samples.jsonl")).parent)
    assert [sample["target"] for sample in samples] == ["a cat", "dog"]
    assert set(samples[0]["scores"]) == set(NAMES)
