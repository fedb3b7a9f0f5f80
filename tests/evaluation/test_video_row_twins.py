"""The benchmarks of videos read, ask and score rows with the oddities of the real ones."""

import pytest
from hub_checkpoints import save
from hydra.utils import instantiate
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from scripted import ScriptedModel
from video_row_twins import COUNT, NAMES, mvbench, open_questions, videomme

from experiments.run import run
from mustdrop.evaluation.chat import UnreadableDocument, read_document, videos_of
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples

OPEN = ("msvd_qa", "msrvtt_qa", "tgif_qa", "activitynet_qa")
CHOICES = ("mvbench", "videomme")


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Name -> folder, task and right answers."""
    made = {}
    for name in (*OPEN, *CHOICES):
        root = tmp_path_factory.mktemp(name)
        node = composed(f"benchmark={name}", f"benchmark.data={root}").benchmark.task
        if name in OPEN:
            answers = open_questions(root, node.videos, node.prefix)
        elif name == "videomme":
            answers = videomme(root)
        else:  # the sub-tasks take turns
            letters = mvbench(root)
            answers = [letters[task][turn] for turn in range(3) for task in node.sub_tasks]
        made[name] = root, instantiate(node), answers
    return made


@pytest.mark.parametrize("name", (*OPEN, *CHOICES))
def test_every_row_has_its_question_and_its_video(twins, name):
    _, task, answers = twins[name]
    assert len(task.eval_docs) == len(answers) >= COUNT
    reader = VideoReader(2, None)
    for doc_id in range(len(answers)):
        doc, chat = read_document(name, task.eval_docs, doc_id, task.doc_to_messages, reader)
        (video,) = videos_of(chat)
        assert len(video.frames) == 2
        assert doc["question"] in chat.messages[0].content[1].text
        assert task.doc_to_target(doc)


def test_right_answers_of_every_row_get_full_marks(twins):
    answers = {name: right for name, (_, _, right) in twins.items()}
    results = evaluator.simple_evaluate(
        model=ScriptedModel(answers), tasks=[task for _, task, _ in twins.values()],
        bootstrap_iters=0, process_docs_parallel=1,
        task_manager=TaskManager("ERROR", include_defaults=False),
    )["results"]  # fmt: skip
    for name in OPEN:
        assert results[name]["exact_match,none"] == results[name]["contains,none"] == 1
    assert results["mvbench"]["mvbench_average,none"] == 100
    assert results["videomme"]["videomme_accuracy,none"] == 1
    assert results["videomme"]["videomme_long,none"] == 1


def test_activitynet_names_its_files_with_a_prefix(tmp_path):
    """``v_<video_name>.mp4``, as in the authors' run_inference_video_qa_act.py."""
    node = composed("benchmark=activitynet_qa", f"benchmark.data={tmp_path}").benchmark.task
    open_questions(tmp_path, node.videos, prefix="")
    task = instantiate(node)
    files = tmp_path / node.videos
    with pytest.raises(UnreadableDocument, match=f"there is no video v_{NAMES[1]} in"):
        read_document("activitynet_qa", task.eval_docs, 1, task.doc_to_messages)
    (files / f"{NAMES[1]}.avi").rename(files / f"v_{NAMES[1]}.avi")
    assert task.doc_to_messages(task.eval_docs[1])[0]["content"][0]["url"].endswith(".avi")
    calibration = composed("benchmark=activitynet_qa").benchmark.calibration
    assert calibration.prefix == node.prefix == "v_"


@pytest.mark.slow
@pytest.mark.parametrize("name", (*OPEN, *CHOICES))
def test_a_whole_run_of_a_twin(twins, name, tmp_path):
    root, _, answers = twins[name]
    checkpoint = save("video_llava", tmp_path / "tiny")
    record = run(
        composed(
            f"benchmark={name}", f"benchmark.data={root}", "model=video_llava_7b",
            "model.merging_blocks=3", f"model.pretrained={checkpoint}", "model.layers=6",
            "model.dtype=float32", "model.frames=4", "method=vanilla", "controls=none",
            "benchmark.task.max_new_tokens=4", "batch_size=4", f"output_root={tmp_path}",
        )
    )  # fmt: skip
    (folder,) = {path.parent for path in tmp_path.rglob("record.json")}
    assert record["n"] == record["available"] == len(answers) == len(read_samples(folder))
