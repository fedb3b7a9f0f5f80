"""RefCOCO, DocVQA, ChartQA, OCRBench and MMMU on made-up rows in their real layout.

Scores of known answers are worked out by hand, from what each benchmark says of itself.
"""

import ast
import random

import datasets
import pytest
from datasets import Image
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from lmms_eval.tasks.refcoco.utils_rec import (
    refcoco_bbox_rec_doc_to_text,
    refcoco_bbox_rec_preprocess_dataset,
)
from odd_pictures import odd_picture
from other_row_twins import OTHER_TWINS, write_other
from row_twins import COUNT
from scripted import ScriptedModel
from twin_tasks import benchmark, twins_of

from experiments.run import run
from mustdrop.evaluation.answers import scores
from mustdrop.evaluation.chat import UnreadableDocument, pictures, read_document
from mustdrop.evaluation.tasks.mmmu import drawing
from mustdrop.evaluation.tasks.rows import load_rows, picture_columns
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples

NAMES = sorted(OTHER_TWINS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("twins")


@pytest.fixture(scope="module")
def twins(root):
    return twins_of(NAMES, root, write_other)


def right(name, task):
    """The answers that must get full marks."""
    docs = [task.dataset_no_image[task.split][index] for index in range(len(task.eval_docs))]
    if name == "refcoco":
        return [f"It is [{', '.join(f'{x:.6f}' for x in doc['bbox'])}]." for doc in docs]
    if name == "docvqa":
        return [doc["answers"][-1].upper() for doc in docs]
    if name == "ocrbench":
        return [f"The text is {doc['answer'][0]}." for doc in docs]
    return [doc["answer"] for doc in docs]


def score_of(task, doc_id, answer):
    task.build_all_requests(rank=0, world_size=1)
    (instance,) = [item for item in task.instances if item.doc_id == doc_id]
    return scores(task, instance, task.dataset_no_image[task.split][doc_id], answer)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_read(twins, name):
    _, task = twins[name]
    assert len(task.eval_docs) >= COUNT
    for doc_id in range(len(task.eval_docs)):
        doc, chat = read_document(name, task.eval_docs, doc_id, task.doc_to_messages)
        assert all(image.mode == "RGB" for image in pictures(chat))
        assert len(pictures(chat)) == 1 or name == "mmmu"
        assert task.doc_to_target(doc)


def test_right_answers_of_every_row_get_full_marks(twins, tmp_path, monkeypatch):
    """Through lmms-eval; but for the boxes without an area, which nothing can overlap."""
    monkeypatch.chdir(tmp_path)
    answers = {name: right(name, task) for name, (_, task) in twins.items()}
    for _ in range(2):  # lmms-eval's OCRBench counts on from run to run
        results = evaluator.simple_evaluate(
            model=ScriptedModel(answers), tasks=[task for _, task in twins.values()],
            bootstrap_iters=0, process_docs_parallel=1,
            task_manager=TaskManager("ERROR", include_defaults=False),
        )["results"]  # fmt: skip
    docs = twins["refcoco"][1].dataset_no_image["val"]
    share = sum(doc["bbox"][0] < doc["bbox"][2] for doc in docs) / len(docs)
    assert results["refcoco"]["refcoco_accuracy,none"] == pytest.approx(share)
    assert results["refcoco"]["refcoco_ACC@0.5,none"] == pytest.approx(share)
    assert 0.6 < share < 0.8
    assert results["docvqa"]["anls,none"] == 1
    for half in ("overall", "human_split", "augmented_split"):
        assert results["chartqa"][f"relaxed_{half},none"] == 1
    assert results["ocrbench"]["ocrbench_accuracy,none"] == 1
    assert results["mmmu"]["mmmu_acc,none"] == results["mmmu"]["mmmu_accuracy,none"] == 1


@pytest.mark.parametrize(
    ("name", "doc_id", "answer", "expected"),
    [
        ("docvqa", 1, "University of Californa", {"anls": 1 - 1 / 25}),  # of 25
        ("docvqa", 1, "Univ", {"anls": 0}),
        ("chartqa", 0, "14.7", {"relaxed_overall": 1, "relaxed_human_split": 1}),  # 5 % of 14
        ("chartqa", 0, "14.8", {"relaxed_overall": 0, "relaxed_human_split": 0}),
        ("chartqa", 8, "0.23", {"relaxed_overall": 1, "relaxed_human_split": 1}),
        ("chartqa", 2, "yes.", {"relaxed_overall": 0, "relaxed_human_split": 0}),
        ("ocrbench", 1, "it says abc123", {"ocrbench_accuracy": 1}),  # full-width letters
        ("ocrbench", 9, r"\frac{1}{X}+y", {"ocrbench_accuracy": 1}),
        ("ocrbench", 9, r"\frac{1}{x}+y", {"ocrbench_accuracy": 0}),
        ("mmmu", 0, "The answer is (B) $7,000.", {"mmmu_accuracy": 1}),
        ("mmmu", 3, "So the result is 2.50", {"mmmu_accuracy": 1}),
        ("mmmu", 4, "It is new york city.", {"mmmu_accuracy": 1}),
        ("mmmu", 4, "Boston", {"mmmu_accuracy": 0}),
    ],
)  # fmt: skip
def test_known_answers_score_what_they_must(twins, name, doc_id, answer, expected):
    assert score_of(twins[name][1], doc_id, answer) == pytest.approx(expected)


def test_sentences_are_those_of_lmms_evals_own_preparation(twins, root):
    """Boxes, sentences and prompts, against the function that holds all images in memory."""
    _, task = twins["refcoco"]
    table = datasets.Dataset.from_parquet(str(next((root / "refcoco").rglob("*.parquet"))))
    theirs = refcoco_bbox_rec_preprocess_dataset(table)
    assert len(theirs) == len(task.eval_docs)
    for other, doc in zip(theirs, task.eval_docs, strict=True):
        assert doc["answer"] == other["answer"] and doc["question_id"] == other["question_id"]
        assert doc["bbox"] == pytest.approx(other["bbox"], rel=1e-6)
        ((message,),) = [task.doc_to_messages(doc)]
        assert message["content"][1]["text"] == refcoco_bbox_rec_doc_to_text(other)


@pytest.mark.parametrize(
    ("box", "accuracy"),
    [
        ("[0.260417, 0.125, 0.682292, 0.625]", 1),  # the target
        ("[0.260417, 0.125, 0.682292, 0.376]", 1),  # a little more than its upper half
        ("[0.260417, 0.125, 0.682292, 0.374]", 0),
        ("[0.682292, 0.125, 0.260417, 0.625]", 0),  # turned round: lmms-eval divides by zero
        ("no box", 0),
        ("[12, 4, 32, 20]", 0),  # pixels
    ],
)
def test_overlap_of_boxes(twins, box, accuracy):
    _, task = twins["refcoco"]
    assert score_of(task, 0, box) == {"refcoco_accuracy": accuracy}
    result = task.config.process_results(task.dataset_no_image["val"][0], [box])
    aggregate = task.aggregation()
    assert aggregate["refcoco_ACC@0.5"]([result["refcoco_ACC@0.5"]]) == accuracy
    assert 0 <= aggregate["refcoco_IoU"]([result["refcoco_IoU"]]) <= 1


def test_images_of_mmmu_stand_where_the_text_names_them(twins):
    rows, task = twins["mmmu"]

    def shape(doc_id):
        (message,) = task.doc_to_messages(task.eval_docs[doc_id])
        return [part.get("text", "IMAGE") for part in message["content"]]

    end = "Answer with the option's letter from the given choices directly."
    assert shape(1) == ["IMAGE", "follows", "IMAGE", f", why?\nA. a\nB. b\n\n{end}"]
    second, first = (task.eval_docs[1][f"image_{place}"].convert("RGB") for place in (2, 1))
    (message,) = task.doc_to_messages(task.eval_docs[1])
    urls = [part["url"] for part in message["content"] if part["type"] == "image"]
    assert [url.tobytes() for url in urls] == [second.tobytes(), first.tobytes()]
    # named twice: shown once, and no text is lost
    assert shape(2) == [
        "IMAGE", "Look at <image 1> again.\nWhich?\nA.", "IMAGE", "B.", "IMAGE", end,
    ]  # fmt: skip
    assert shape(5).count("IMAGE") == 7 and len(ast.literal_eval(rows[5]["options"])) == 5


def test_an_answer_without_a_letter_scores_the_same_each_time(twins):
    _, task = twins["mmmu"]
    docs = [task.dataset_no_image["validation"][index] for index in range(0, COUNT, 6)]
    first = [task.config.process_results(doc, ["none"])["mmmu_accuracy"] for doc in docs]
    random.seed(7)
    again = [task.config.process_results(doc, ["none"])["mmmu_accuracy"] for doc in docs]
    assert first == again and 0 < sum(first) < len(first)  # each question has its own draw
    random.seed(7)
    with drawing("any"):
        random.random()
    assert random.random() == random.Random(7).random()  # the process's own numbers go on


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_an_image_is_left_out_of_a_run(name, tmp_path):
    node = benchmark(name, tmp_path).task
    rows, features = OTHER_TWINS[name](node.split)
    rows[1]["image_1" if name == "mmmu" else "image"] = None
    (tmp_path / name).mkdir()
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(tmp_path / name / f"{node.split}.parquet")
    task = instantiate(node)
    with pytest.raises(UnreadableDocument, match=f"document 1 of {name}: the row has no image"):
        read_document(name, task.eval_docs, 1, task.doc_to_messages)
    assert len(list(task.eval_docs_no_media)) == len(task.eval_docs)


@pytest.mark.parametrize("name", NAMES)
def test_a_split_without_answers_serves_to_choose_thresholds(name, tmp_path):
    node = benchmark(name, tmp_path).calibration
    if node is None:
        return
    write_other(name, tmp_path / name, node.subset, node.split)
    task = instantiate(node)
    read_document(node.name, task.eval_docs, 5, task.doc_to_messages)


def test_a_column_image_beside_images_is_a_name(tmp_path):
    """As in MathVista, whose images are in decoded_image."""
    features = datasets.Features({"image": datasets.Value("string"), "decoded_image": Image()})
    rows = [{"image": f"images/{n}.jpg", "decoded_image": odd_picture(n)} for n in range(3)]
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(tmp_path / "testmini.parquet")
    read = load_rows(str(tmp_path), None, "testmini")
    assert read[1]["image"] == "images/1.jpg" and read[1]["decoded_image"].size == (48, 32)
    assert picture_columns(read) == ["decoded_image"]
    # alone it is the path of an image
    rows = [{"image": str(tmp_path / "one.png")}]
    (tmp_path / "one.png").write_bytes(odd_picture(4)["bytes"])
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "paths.parquet")
    assert load_rows(str(tmp_path), None, "paths")[0]["image"].size == (48, 32)


def test_images_are_not_decoded_to_score_an_answer(twins):
    for name in sorted({*NAMES} - {"refcoco"}):  # its box is a share of the image's size
        _, task = twins[name]
        assert picture_columns(task.dataset_no_image[task.split]) == []
        assert len(picture_columns(task.illustrated)) == (7 if name == "mmmu" else 1)


def test_a_task_whose_package_is_missing_is_refused_in_one_sentence(tmp_path):
    """As lmms-eval's MathVista, which needs an edit distance and a judge."""
    (tmp_path / "utils.py").write_text("import no_such_package\n")
    (tmp_path / "task.yaml").write_text("task: t\ndoc_to_text: !function utils.text\n")
    stock = f"benchmark.task.stock={tmp_path / 'task.yaml'}"
    node = composed("benchmark=custom_task", stock, f"benchmark.data={tmp_path}").benchmark.task
    message = r"task\.yaml of lmms-eval needs the package no_such_package, which is not installed"
    with pytest.raises(InstantiationException, match=message):
        instantiate(node)


def test_a_task_that_a_judge_scores_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "task: t\noutput_type: generate_until\nmetric_list: [{metric: llm_as_judge_eval}]\n"
    )
    stock = f"benchmark.task.stock={tmp_path / 'task.yaml'}"
    node = composed("benchmark=custom_task", stock, f"benchmark.data={tmp_path}").benchmark.task
    with pytest.raises(InstantiationException, match="llm_as_judge_eval asks a judge while it"):
        instantiate(node)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_of_a_twin(twins, root, name, tmp_path):
    _, task = twins[name]
    record = run(
        composed(
            f"benchmark={name}", f"benchmark.data={root / name}", "method=fastv", "budget=t64",
            f"output_root={tmp_path}", "batch_size=8", "benchmark.task.max_new_tokens=4",
        )
    )  # fmt: skip
    (folder,) = {path.parent for path in tmp_path.rglob("record.json")}
    samples = read_samples(folder)
    assert record["n"] == record["available"] == len(task.eval_docs) == len(samples)
    assert all(composed(f"benchmark={name}").benchmark.metric in line["scores"] for line in samples)
