"""Every stock image benchmark reads, asks and scores rows with all oddities of the real ones."""

import pandas as pd
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from odd_pictures import KINDS
from row_twins import COUNT, TWINS, save, write_twin
from scripted import ScriptedModel
from twin_tasks import benchmark, twins_of

from experiments.run import run
from mustdrop.evaluation.answers import scores
from mustdrop.evaluation.chat import UnreadableDocument, pictures, read_document
from mustdrop.evaluation.tasks.mmbench import score
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples

NAMES = sorted(TWINS)
SOFT = ("textvqa", "vizwiz", "vqav2")  # scores over ten answers
ANSWERS = ("", "A", "B. ", "yes", "No.", "nan", "The answer is (B).", "x " * 300, "1,000\n\t2")
LETTERS = "ABCDE"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("twins")


@pytest.fixture(scope="module")
def twins(root):
    return twins_of(NAMES, root, write_twin)


def right(name, row):
    """The answer that must get full marks."""
    if name == "scienceqa":
        return LETTERS[row["answer"]]
    if name in SOFT:
        answers = [item["answer"] if name == "vqav2" else item for item in row["answers"]]
        return max(answers, key=answers.count)
    return row["answer"]


def reached(name, rows):
    """Score of the right answers of all rows: 1, or the soft score, worked out here."""
    if name not in SOFT:
        return 1.0
    # "two" counts as 2, case and a full stop do not count, nor do separators of thousands
    same = {"A Box.": "box", "two": "2", "Yes.": "yes", "YES": "yes", "yes ": "yes"}
    total = 0.0
    for row in rows:
        answers = [item["answer"] if name == "vqav2" else item for item in row["answers"]]
        plain = [same.get(text, text.replace(",", "")) for text in answers]
        count = plain.count(same.get(right(name, row), right(name, row).replace(",", "")))
        one_out = [min(1, (count - (text == max(plain, key=plain.count))) / 3) for text in plain]
        total += sum(one_out) / len(one_out)
    return total / len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_read(twins, name):
    rows, task = twins[name]
    assert len(task.eval_docs) == len(rows) >= COUNT
    sizes = set()
    for doc_id, row in enumerate(rows):
        doc, chat = read_document(task.config.task, task.eval_docs, doc_id, task.doc_to_messages)
        (image,) = pictures(chat)
        assert image.mode == "RGB"
        sizes.add(image.size)
        text = chat.messages[0].content[1].text
        # TextVQA and VizWiz change the case of the question, MME replaces its last sentence
        wanted = row["question"].removesuffix(" Please answer yes or no.").strip()
        assert wanted.lower() in text.lower()
        assert task.doc_to_target(doc) is not None
    # photographs on their side are turned: 32 x 48; also one pixel and very long images
    assert {(48, 32), (32, 48), (1, 1), (150, 3), (5, 140)} <= sizes
    assert len(KINDS) <= COUNT / 4


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_gets_a_score(twins, name):
    _, task = twins[name]
    task.build_all_requests(rank=0, world_size=1)
    metric = composed(f"benchmark={name}").benchmark.metric
    for instance in task.instances[:28]:
        doc = task.dataset_no_image[task.split][instance.doc_id]
        for answer in ANSWERS:
            assert 0 <= scores(task, instance, doc, answer)[metric] <= 1


def test_right_answers_of_every_row_get_full_marks(twins, tmp_path, monkeypatch):
    """Through lmms-eval, all benchmarks at once."""
    monkeypatch.chdir(tmp_path)  # submissions go to the working directory
    answers = {name: [right(name, row) for row in rows] for name, (rows, _) in twins.items()}
    results = evaluator.simple_evaluate(
        model=ScriptedModel(answers), tasks=[task for _, task in twins.values()],
        bootstrap_iters=0, process_docs_parallel=1,
        task_manager=TaskManager("ERROR", include_defaults=False),
    )["results"]  # fmt: skip
    for name, (rows, _) in twins.items():
        metric = composed(f"benchmark={name}").benchmark.metric
        expected = reached(name, rows)
        assert results[name][f"{metric},none"] == pytest.approx(expected), name
    assert results["mmbench"]["gpt_eval_score,none"] == 100
    assert results["mme"]["mme_total,none"] == 2800
    assert results["pope"]["pope_f1_score,none"] == 1


def test_the_prompt_of_mmbench_as_in_llavas_own_script(twins, root):
    """By hand; thresholds are chosen with the same prompt."""
    cfg = composed("benchmark=mmbench", f"benchmark.data={root / 'mmbench'}", "inputs=authors")
    task = instantiate(cfg.benchmark.task)
    end = "\nAnswer with the option's letter from the given choices directly."
    rows, _ = twins["mmbench"]
    texts = [task.doc_to_text(task.eval_docs[number]) for number in range(4)]
    hint = "Look at the picture.\nThen answer."
    assert rows[0]["hint"] == rows[3]["hint"] == "nan" and rows[1]["hint"] == hint
    assert texts[0] == "what is this?\nA. banana\nB. apple\nC. pear\nD. plum" + end
    # an option None counts as missing, and ends the list, as in the authors' script
    assert texts[1] == f"{hint}\nIs the man,who wears a hat, to the left?\n" + end
    assert texts[3] == f"{rows[3]['question']}\nA. Figure A.\nB. Figure B." + end
    assert cfg.benchmark.calibration.prompt.form == "authors"
    with pytest.raises(InstantiationException, match=r"prompt\.form must be one of hub, authors"):
        instantiate(cfg.benchmark.task, prompt={"form": "gpt"})


@pytest.mark.parametrize("name", NAMES)
def test_a_split_without_answers_serves_to_choose_thresholds(name, tmp_path):
    """As the hub has it: empty, null, or without the columns at all."""
    node = benchmark(name, tmp_path).calibration
    if node is None:
        return
    rows = write_twin(name, tmp_path / name, node.subset, node.split)
    task = instantiate(node)
    assert len(task.eval_docs) == len(rows)
    for doc_id in range(0, len(rows), 5):
        doc, _ = read_document(node.name, task.eval_docs, doc_id, task.doc_to_messages)
        task.doc_to_target(doc)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_an_image_is_left_out_of_a_run(name, tmp_path):
    node = benchmark(name, tmp_path).task
    write_twin(name, tmp_path / name, node.subset, node.split)
    subset = node.subset or "data"
    if name == "gqa":
        subset = subset.replace("_instructions", "_images")
    rows, features = TWINS[name](subset, node.split)
    rows[-2 if name == "gqa" else 1]["image"] = None  # GQA's images have the opposite order
    save(rows, features, tmp_path / name / subset / f"{node.split}-00000-of-00001.parquet")
    task = instantiate(node)
    if name == "scienceqa":  # lmms-eval asks such a question without an image
        _, chat = read_document(name, task.eval_docs, 1, task.doc_to_messages)
        assert pictures(chat) == []
        return
    with pytest.raises(UnreadableDocument, match=f"document 1 of {name}: the row has no image"):
        read_document(name, task.eval_docs, 1, task.doc_to_messages)


def test_an_index_of_mmbench_that_is_no_number_is_refused(tmp_path):
    node = benchmark("mmbench", tmp_path).task
    rows, features = TWINS["mmbench"](node.subset, node.split)
    rows[3]["index"] = "a3"
    save(rows, features, tmp_path / "mmbench" / "dev.parquet")
    with pytest.raises(InstantiationException, match=r"index .* must be whole numbers"):
        instantiate(node)


def test_the_text_of_a_missing_option_is_found_inside_words():
    """lmms-eval's rule, which the yaml of MMBench names: ``nan`` is in ``banana``."""
    rows, _ = TWINS["mmbench"]("en", "dev")
    row = next(row for row in rows if row["C"] == row["D"] == "nan")
    row = {**row, "index": 3, "A": "banana", "B": "pear", "answer": "A"}
    answers = ("A", "banana", "A. banana")
    assert [score(row, [text])["mmbench_accuracy"] for text in answers] == [1, 0, 1]
    row |= {"A": "plum"}
    assert score(row, ["plum"])["mmbench_accuracy"] == 1


def test_an_answer_with_control_characters_fits_the_worksheet_of_mmbench(tmp_path):
    rows, _ = TWINS["mmbench"]("en", "dev")
    result = score(rows[0], ["A\x00\x0b\x1f\n."])
    assert result["submission"]["prediction"] == "A\n."
    with pd.ExcelWriter(tmp_path / "submission.xlsx") as writer:
        pd.DataFrame([result["submission"]]).to_excel(writer)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_of_a_twin(twins, root, name, tmp_path):
    rows, _ = twins[name]
    record = run(
        composed(
            f"benchmark={name}", f"benchmark.data={root / name}", "method=fastv", "budget=t64",
            f"output_root={tmp_path}", "batch_size=8",
        )
    )  # fmt: skip
    (folder,) = {path.parent for path in tmp_path.rglob("record.json")}
    assert record["n"] == record["available"] == len(rows) == len(read_samples(folder))
