"""Open questions about videos: rows, targets and scores, and what is refused."""

import json

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.checks.run_checks import require_folders
from mustdrop.evaluation.chat import UnreadableDocument, read_document
from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.evaluation.tasks.video_qa import VideoQA, plain_words, score
from mustdrop.presets.compose import composed
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.provenance.media_files import video_file

BENCHMARKS = ("msvd_qa", "msrvtt_qa", "tgif_qa", "activitynet_qa")
QUESTIONS = [
    {"question_id": "a_0", "question": "what is cut?", "video_name": "clip.one"},
    {"question_id": "a_1", "question": "who sings?", "video_name": "second", "type": 3},
]
ANSWERS = [{"question_id": "a_0", "answer": "onion"}, {"question_id": "a_1", "answer": "man"}]


def folder(root, videos="videos", questions=QUESTIONS, answers=ANSWERS, split="test", prefix=""):
    """A benchmark's folder; its videos are bytes that nothing decodes here."""
    (root / videos).mkdir(parents=True, exist_ok=True)
    (root / videos / f"{prefix}clip.one.mp4").write_bytes(b"first")
    (root / videos / f"{prefix}second.gif").write_bytes(b"second")
    (root / f"{split}_q.json").write_text(json.dumps(questions))
    (root / f"{split}_a.json").write_text(json.dumps(answers))
    return root


def task(root, **fields):
    given = {"name": "msvd_qa", "split": "test", "videos": "videos", "prefix": ""}
    return VideoQA(data=str(root), **{**given, "max_new_tokens": 8, **fields})


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_preset_reads_its_folder(name, tmp_path):
    cfg = composed(f"benchmark={name}", f"benchmark.data={tmp_path}", "method=vanilla")
    for node, split in ((cfg.benchmark.task, "test"), (cfg.benchmark.calibration, "train")):
        folder(tmp_path, node.videos, split=split, prefix=node.prefix)
        made = instantiate(node)
        assert isinstance(made, ConfigurableMessagesTask) and len(made.eval_docs) == 2
        (turn,) = made.doc_to_messages(made.eval_docs[1])
        video, text = turn["content"]
        url = str(tmp_path / node.videos / f"{node.prefix}second.gif")
        assert video == {"type": "video", "url": url}  # whatever its ending
        assert text["text"] == "who sings?" and made.doc_to_target(made.eval_docs[1]) == "man"
    assert cfg.benchmark.metric in score({"answer": "x"}, ["x"])


@pytest.mark.parametrize(
    ("answer", "target", "exact", "contains"),
    [
        ("Onion.", "onion", 1, 1),
        ("The man is cutting an onion", "onion", 0, 1),
        ("onions", "onion", 0, 0),  # words, not letters
        ("a hot-dog!", "hot dog", 1, 1),
        ("dog hot", "hot dog", 0, 0),
        ("a hot potato", "hot dog", 0, 0),
        ("", "man", 0, 0),
        ("anything", "the", 0, 0),  # a target without words is found nowhere
    ],
)
def test_scores_by_hand(answer, target, exact, contains):
    assert score({"answer": target}, [answer]) == {"exact_match": exact, "contains": contains}


def test_plain_words():
    assert plain_words("It's a  Cat, the CAT.") == ["it", "s", "cat", "cat"]


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        (QUESTIONS, ANSWERS[:1], "must have the same number of rows, got 2 and 1"),
        (QUESTIONS, ANSWERS[::-1], "got question a_0 and the answer of a_1"),
        ([QUESTIONS[0], {"question": "?"}], ANSWERS, "row 1 of test_q.json lacks question_id"),
        (QUESTIONS, [{"question_id": "a_0"}, ANSWERS[1]], "row 0 of test_a.json lacks answer"),
        ([], [], "test_q.json must be a list of rows with one row or more"),
        ({"rows": []}, ANSWERS, "test_q.json must be a list of rows"),
    ],
)
def test_rows_that_are_not_as_described_are_refused(questions, answers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        task(folder(tmp_path, questions=questions, answers=answers))


def test_missing_folders_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"benchmark\.data=/path/to/folder, see docs/video\.md"):
        task(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"there is no file .*test_q\.json"):
        task(tmp_path)
    folder(tmp_path)
    (tmp_path / "test_a.json").write_text("{")
    with pytest.raises(ValueError, match=r"test_a\.json must be JSON"):
        task(tmp_path)
    with pytest.raises(ValueError, match="max_new_tokens must be a count of 1 or more, got 0"):
        task(folder(tmp_path), max_new_tokens=0)


@pytest.mark.parametrize("missing", ["test_q.json", "test_a.json", "videos"])
def test_a_folder_without_a_part_is_refused_before_work(missing, tmp_path):
    folder(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    cfg = composed("benchmark=msvd_qa", f"benchmark.data={tmp_path}", "method=vanilla")
    with pytest.raises(FileNotFoundError, match=rf"has no {missing}; docs/video\.md"):
        require_folders(OmegaConf.to_container(cfg, resolve=True))


def test_a_missing_video_is_an_error_of_its_question(tmp_path):
    made = task(folder(tmp_path))
    (tmp_path / "videos" / "second.gif").unlink()
    made.doc_to_messages(made.eval_docs[0])
    # the kind of error that leaves out one question and does not end the run
    with pytest.raises(UnreadableDocument, match=r"document 1 of msvd_qa: .*no video second in"):
        read_document("msvd_qa", made.eval_docs, 1, made.doc_to_messages, None)


def test_a_video_is_found_by_its_name_with_and_without_ending(tmp_path):
    videos = folder(tmp_path) / "videos"
    assert video_file(videos, "clip.one") == video_file(videos, "clip.one.mp4")
    (videos / "notes.txt").write_text("")
    assert video_file(videos, "notes") is None and video_file(videos, "notes.txt") is None


def test_the_run_depends_on_rows_and_videos(tmp_path):
    cfg = composed("benchmark=msvd_qa", f"benchmark.data={tmp_path}", "method=vanilla")
    found = [run_fingerprint(folder(tmp_path) and cfg).inputs]
    (tmp_path / "videos" / "second.gif").write_bytes(b"Second")
    found.append(run_fingerprint(cfg).inputs)
    (tmp_path / "test_a.json").write_text(json.dumps([{"answer": "onion"}, {"answer": "woman"}]))
    found.append(run_fingerprint(cfg).inputs)
    assert len({json.dumps(inputs) for inputs in found}) == 3
    names = {"benchmark.data/test_q.json", "benchmark.data/test_a.json", "benchmark.data/videos"}
    assert names <= set(found[0])
