"""Sample logs that lmms-eval's own code writes, read back as scores that pair."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.claims.compare import main
from analysis.claims.pairing import pair
from analysis.records.logs import read_log

POPE = [{"question_id": str(i), "question": f"is there a thing {i}?",
         "answer": ("yes", "no")[i % 2], "image_source": f"COCO_{i // 3}"}
        for i in range(60)]  # fmt: skip
MME = [{"question_id": f"{kind}/{i // 2}.jpg", "question": f"{kind} {i}?", "category": kind,
        "answer": ("Yes", "No")[i % 2]} for kind in ("OCR", "code_reasoning")
       for i in range(10)]  # fmt: skip


def log(folder, name, docs, answers, task):
    """What ``--log_samples`` leaves of these answers: scored and written by lmms-eval 0.7.3."""
    from lmms_eval.evaluator import _process_document_results
    from lmms_eval.loggers import EvaluationTracker

    task = SimpleNamespace(
        process_results=task, doc_to_target=lambda doc: doc["answer"], config=SimpleNamespace()
    )
    samples = []
    for number, (doc, answer) in enumerate(zip(docs, answers, strict=True)):
        request = SimpleNamespace(
            args=(doc["question"], number), filtered_resps={"none": answer}, resps=[answer],
            raw_filtered_resps={"none": answer}, token_counts=None, doc=doc,
        )  # fmt: skip
        done = _process_document_results(
            (number, doc, [request]), task=task, filter_key="none", reasoning_tags=None,
            log_samples=True,
        )  # fmt: skip
        samples.append(done.logged_sample)
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = name
    tracker.date_id = "20260101_120000"
    tracker.save_results_samples("pope" if docs[0] in POPE else "mme", samples)
    return next((folder / name).glob("*_samples_*.jsonl"))


def answers(docs, seed, right):
    rng = np.random.default_rng(seed)
    other = {"yes": "no", "no": "yes"}
    truths = [doc["answer"].lower() for doc in docs]
    return [truth if rng.random() < right else other[truth] for truth in truths]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    from lmms_eval.tasks.mme.utils import mme_process_results
    from lmms_eval.tasks.pope.utils import pope_process_results

    folder = tmp_path_factory.mktemp("logs")
    return {
        name: log(folder, name, docs, answers(docs, seed, right), scored)
        for name, docs, seed, right, scored in (
            ("good", POPE, 0, 0.95, pope_process_results),
            ("bad", POPE, 1, 0.55, pope_process_results),
            ("mme", MME, 2, 0.7, mme_process_results),
        )
    }


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "pope.jsonl"
    path.write_text("".join(json.dumps(doc) + "\n" for doc in POPE))
    return path


def test_scores_are_what_lmms_eval_averages(logs):
    from lmms_eval.tasks.pope.utils import pope_aggregate_accuracy

    frame = read_log(logs["good"])
    told = [json.loads(line)["pope_accuracy"] for line in logs["good"].read_text().splitlines()]
    assert frame["score"].mean() == pytest.approx(pope_aggregate_accuracy(told))
    assert frame.index[0] == ("pope", 0) and len(frame) == 60
    assert frame.loc[("pope", 3), "prompt"] == POPE[3]["question"]
    assert frame.loc[("pope", 3), "target"] == "no" and frame["image"].isna().all()


def test_what_is_no_mean_over_documents_is_refused(logs):
    with pytest.raises(ValueError, match=r"not a mean over documents.*pope_accuracy"):
        read_log(logs["good"], "pope_f1_score")
    with pytest.raises(ValueError, match=r"expected a metric of \['pope_accuracy'\], got 'anls'"):
        read_log(logs["good"], "anls")


def test_a_metric_of_some_documents_is_read_from_those(logs):
    with pytest.raises(ValueError, match=r"expected a metric, one of.*perception.*cognition"):
        read_log(logs["mme"])
    half = read_log(logs["mme"], "mme_cognition_score", cluster="question_id")
    assert len(half) == 10 and half["image"].nunique() == 5  # two questions a picture
    assert list(half["image"])[:2] == ["code_reasoning/0.jpg"] * 2


def test_an_image_is_named_by_the_document_the_metric_or_a_table(logs, documents, tmp_path):
    by_table = read_log(logs["good"], cluster="image_source", documents=documents)
    assert list(by_table["image"]) == [doc["image_source"] for doc in POPE]
    turned = tmp_path / "x_samples_pope.jsonl"  # as ranks interleave them, and some not asked
    turned.write_text("\n".join(logs["good"].read_text().splitlines()[:4:-1]))
    some = read_log(turned, cluster="image_source", documents=documents)
    assert len(some) == 55 and list(some["image"]) == list(by_table["image"])[5:]
    # lmms-eval 0.7 leaves the document out of its logs
    with pytest.raises(ValueError, match=r"expected a field 'image_source'.*--documents"):
        read_log(logs["good"], cluster="image_source")
    lines = [json.loads(line) for line in logs["good"].read_text().splitlines()]
    old = tmp_path / "pope_samples_pope.jsonl"  # as before 0.7
    told = [{**line, "doc": doc} for line, doc in zip(lines, POPE, strict=True)]
    old.write_text("".join(json.dumps(line) + "\n" for line in told))
    assert list(read_log(old, cluster="image_source")["image"]) == list(by_table["image"])
    with pytest.raises(ValueError, match="column"):
        read_log(logs["good"], cluster="picture", documents=documents)
    documents.write_text(documents.read_text().split("\n")[0] + "\n")
    with pytest.raises(ValueError, match="has 1 rows"):
        read_log(logs["good"], cluster="image_source", documents=documents)


def test_only_a_line_feed_ends_a_line_of_a_log(tmp_path):
    """lmms-eval writes other separators as they are, and Windows adds a carriage return."""
    path = tmp_path / "x_samples_gqa.jsonl"
    said = [f"a{mark}b" for mark in "\u2028\u2029\u0085\u000b\u000c\u001c\u001d\u001e"]
    lines = [
        json.dumps(
            {"doc_id": number, "filtered_resps": [text], "exact_match": 1.0}, ensure_ascii=False
        )
        for number, text in enumerate(said)
    ]
    for end in ("\n", "\r\n", "\n\n"):
        for start in (b"", b"\xef\xbb\xbf"):
            path.write_bytes(start + (end.join(lines) + end).encode())
            assert [each for (each,) in read_log(path)["answer"]] == said
    path.write_bytes("\n".join([lines[0], lines[1][:-9], lines[2]]).encode())
    with pytest.raises(ValueError, match=r"x_samples_gqa\.jsonl, line 2: expected JSON lines"):
        read_log(path)
    path.write_bytes(lines[0].encode() + b'\n\n{"doc_id": "\xff"}\n')
    with pytest.raises(ValueError, match="line 3: expected JSON lines"):
        read_log(path)


def test_what_is_no_log_is_told_apart(logs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no sample log"):
        read_log(tmp_path / "none.jsonl")
    for text, said in (("{", "expected JSON lines"), ("", "doc_id"), ('{"a": 1}\n', "doc_id")):
        path = tmp_path / "x_samples_y.jsonl"
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_log(path)
    path.write_text(logs["good"].read_text() * 2)
    with pytest.raises(ValueError, match="occurs twice"):
        read_log(path)
    path.write_text('{"doc_id": 0, "acc": NaN}\n')
    with pytest.raises(ValueError, match="expected a finite acc for document 0"):
        read_log(path)


def test_two_logs_pair_by_document_in_any_order_and_other_documents_do_not(logs, tmp_path):
    good, bad = read_log(logs["good"]), read_log(logs["bad"])
    found = pair([good], [bad.sample(frac=1, random_state=0)])
    assert found.n == 60 and found.value == pytest.approx(
        good["score"].mean() - bad["score"].mean()
    )
    assert pair([good.iloc[:40]], [bad.iloc[20:]]).n == 20
    with pytest.raises(ValueError, match="no document in common"):
        pair([good.iloc[:10]], [bad.iloc[20:]])
    other = bad.assign(target="maybe")
    with pytest.raises(ValueError, match="not the same documents: the target of 0 is 'yes' and"):
        pair([good], [other])


def test_logs_of_two_tasks_do_not_pair_though_their_answers_are_all_yes_and_no(logs, capsys):
    assert main([str(logs["good"]), str(logs["mme"]), "--metric", "pope_accuracy"]) == 1
    capsys.readouterr()
    renamed = logs["bad"].parent / "20260101_120000_samples_pope_adversarial.jsonl"
    renamed.write_bytes(logs["bad"].read_bytes())
    assert main([str(logs["good"]), str(renamed)]) == 1
    assert "different tasks: ['pope'] and ['pope_adversarial']" in capsys.readouterr().err
    renamed.unlink()


def test_the_command_compares_two_logs_by_image(logs, documents, capsys):
    good, bad = str(logs["good"]), str(logs["bad"].parent)  # a folder with one log will do
    assert main([good, bad, "--margin", "1"]) == 0
    plain = capsys.readouterr().out
    assert "of 60" in plain and "McNemar" in plain and "bootstrap of samples" in plain
    assert "no worse than B by 1? yes" in plain and "samples like these detect" in plain
    assert "every sample counts as a separate image" in plain
    by_image = ["--cluster", "image_source", "--documents", str(documents)]
    assert main([good, bad, *by_image]) == 0
    clustered = capsys.readouterr().out
    assert "images  20, with all their questions" in clustered
    assert "sign flips by image" in clustered and "margin" not in clustered
    first = plain.split("A - B")[1].split("[")[0]
    assert first == clustered.split("A - B")[1].split("[")[0]  # the estimate is the same


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--margin", "0"], "above 0"),
        (["--margin=-1"], "above 0"),
        (["--metric", "pope_recall"], "not a mean"),
        (["--documents", "x.csv"], "--cluster"),
    ],
)
def test_the_command_says_what_it_cannot_do(logs, more, said, capsys):
    assert main([str(logs["good"]), str(logs["bad"]), *more]) == 1
    assert said in capsys.readouterr().err


def test_a_folder_of_several_logs_is_not_guessed_from(logs, capsys):
    assert main([str(logs["good"].parent.parent), str(logs["bad"])]) == 1
    assert "expected one run or sample log" in capsys.readouterr().err
