"""MVBench and Video-MME on generated twins of their folders: rows, prompts, scores, whole runs."""

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

import datasets
import pytest
from hub_checkpoints import save
from hydra.utils import instantiate
from lmms_eval import evaluator, tasks
from lmms_eval.tasks import TaskManager
from omegaconf import OmegaConf
from PIL import Image
from scripted import ScriptedModel
from video_files import levels, write_video
from video_twins import PARTS, TWINS, asked, mvbench, write_frames

from experiments.checks.run_checks import require_folders
from experiments.run import run
from mustdrop.evaluation.chat import UnreadableDocument, read_document
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.tasks.mvbench import MVBench
from mustdrop.evaluation.videos import FOLDER_RATE, UnreadableVideo, read_frame_folder
from mustdrop.presets.compose import composed
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.provenance.media_files import videos_mark
from mustdrop.runs.folder import read_samples, read_status, run_folder

STOCK = Path(tasks.__file__).parent
ANSWERS = ("B", "C", "A", "A", "B")  # of MVBench's documents, in their order


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save("video_llava", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in TWINS.items()}


def config(name, root, *overrides):
    parts = ("benchmark.task.sub_tasks=[" + ",".join(PARTS) + "]",) if name == "mvbench" else ()
    chosen = (f"benchmark={name}", f"benchmark.data={root}", "method=vanilla", "budget=none")
    return composed(*chosen, *parts, *overrides)


def task(name, root):
    return instantiate(config(name, root).benchmark.task)


def lmms_eval_code(name):
    """lmms-eval's own module of a benchmark; OpenCV, which it reads subtitles with, stands in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cv2", ModuleType("cv2"))
        module = __import__(f"lmms_eval.tasks.{name}.utils", fromlist=["utils"])
    return module


def stock_prompt(name, doc):
    """Prompt by lmms-eval's own function and yaml."""
    file = {"mvbench": "mvbench_action_antonym.yaml", "videomme": "videomme.yaml"}[name]
    text = (STOCK / name / file).read_text().replace("!function", "")
    words = OmegaConf.create(text).lmms_eval_specific_kwargs.default
    return getattr(lmms_eval_code(name), f"{name}_doc_to_text")(doc, words)


@pytest.mark.parametrize("name", TWINS)
def test_prompts_are_lmms_evals_own(name, twins):
    made = task(name, twins[name])
    for doc in made.eval_docs:
        (turn,) = made.doc_to_messages(doc)
        video, text = turn["content"]
        assert video["type"] == "video" and text["text"] == stock_prompt(name, doc)
    assert "(B) down\nOnly give" in stock_prompt(
        "mvbench", task("mvbench", twins["mvbench"]).eval_docs[0]
    )


def test_sub_tasks_take_turns_and_their_videos_are_found(twins):
    made = task("mvbench", twins["mvbench"])
    assert [doc["sub_task"] for doc in made.eval_docs] == [*PARTS, *PARTS[:2]]
    names = [made.video(doc).relative_to(twins["mvbench"] / "video") for doc in made.eval_docs]
    assert [name.as_posix() for name in names] == [
        "ssv2_video_mp4/1.mp4", "tvqa/video_fps3_hq_segment/clip_a",
        "data0613/star/Charades_segment/3.mp4", "ssv2_video_mp4/2.mp4",
        "tvqa/video_fps3_hq_segment/clip_b",
    ]  # fmt: skip


def test_all_sub_tasks_are_those_of_lmms_eval():
    names = composed("benchmark=mvbench", "method=vanilla").benchmark.task.sub_tasks
    group = OmegaConf.load(STOCK / "mvbench" / "mvbench.yaml")
    assert [f"mvbench_{name}" for name in names] == list(group.task)


@pytest.mark.parametrize(
    ("name", "answers", "expected"),
    [
        ("mvbench", ANSWERS, {"mvbench_accuracy": 1, "mvbench_average": 100}),
        # a letter in brackets; a word "a" that is read as A; a letter too many; no letter; right
        ("mvbench", ("(B) down", "a man", "B", "open", "B. she"),
         {"mvbench_accuracy": 2 / 5, "mvbench_average": (50 + 50 + 0) / 3,
          "mvbench_action_antonym": 50, "mvbench_episodic_reasoning": 50,
          "mvbench_object_interaction": 0}),
        # lmms-eval's score of a sub-task leaves out empty answers
        ("mvbench", ("B", "", "A", "", "B"),
         {"mvbench_accuracy": 3 / 5, "mvbench_action_antonym": 100, "mvbench_average": 100}),
        ("videomme", ("A", "C", "B"), {"videomme_accuracy": 1}),
        ("videomme", ("The answer is (A).", "a.", "B. blue."),
         {"videomme_accuracy": 2 / 3, "videomme_short": 1 / 2, "videomme_long": 1}),
    ],
)  # fmt: skip
def test_known_answers_score_what_they_must(name, answers, expected, twins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = task(name, twins[name])
    results = evaluator.simple_evaluate(
        model=ScriptedModel({name: answers}), tasks=[made], bootstrap_iters=0,
        process_docs_parallel=1, task_manager=TaskManager("ERROR", include_defaults=False),
    )["results"][name]  # fmt: skip
    for metric, value in expected.items():
        assert results[f"{metric},none"] == pytest.approx(value), metric


@pytest.mark.parametrize(
    "answer", ["A", "(c)", "The best answer is: D", "B. blue.", "", "I see a dog", "C) a", "None"]
)
def test_a_letter_of_videomme_is_read_as_lmms_eval_reads_it(answer, twins):
    made, module = task("videomme", twins["videomme"]), lmms_eval_code("videomme")
    for doc, full in zip(made.eval_docs, full_rows(twins["videomme"]), strict=True):
        (theirs,) = module.videomme_process_results(full, [answer]).values()
        assert made.config.process_results(doc, [answer])["videomme_accuracy"] == theirs["score"]


def full_rows(root):
    return list(datasets.Dataset.from_parquet(str(root / "videomme/test-00000-of-00001.parquet")))


def test_lmms_evals_module_of_videomme_still_needs_opencv():
    """The reason why the task holds the text of the prompt itself."""
    code = (STOCK / "videomme" / "utils.py").read_text(encoding="utf-8")
    names = {
        alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import)
        for alias in node.names
    }  # fmt: skip
    assert "cv2" in names


@pytest.mark.parametrize(("name", "count"), [("mvbench", 5), ("videomme", 3)])
def test_a_benchmark_runs_end_to_end_and_goes_on_without_a_missing_video(
    name, count, checkpoint, tmp_path
):
    root = TWINS[name](tmp_path / "data")
    cfg = config(
        name, root, "model=video_llava_7b", f"model.pretrained={checkpoint}", "model.layers=6",
        "model.merging_blocks=3", "model.dtype=float32", "model.frames=4", "controls=none",
        "method=uniform_frames", "budget=50%", "batch_size=2", f"output_root={tmp_path}",
    )  # fmt: skip
    next(root.rglob("2.mp4" if name == "mvbench" else "two.mkv")).unlink()
    record = run(cfg)
    where = run_folder(record["config"])
    samples = read_samples(where)
    assert record["n"] == len(samples) == count - 1 and record["available"] == count
    (left_out,) = read_status(where)["unreadable"]
    assert "there is no video" in left_out["reason"] and name in left_out["reason"]
    assert record["config"]["benchmark"]["metric"] in record["metrics"]
    assert all(line["vision_tokens"][0] == 72 for line in samples)


def test_frames_of_a_folder_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = write_frames(tmp_path / "a", 12)
    (folder / "00012.png").rename(folder / "100000.png")  # a longer number comes later
    (folder / "notes.txt").write_text("")
    made = read_frame_folder(folder, 4)
    assert levels(made.frames) == [0, 3, 7, 11] and made.total == 12
    assert made.seconds == [index / FOLDER_RATE for index in (0, 3, 7, 11)]
    assert VideoReader(4).read(folder).seconds == made.seconds
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="empty cannot be read: it is a folder without"):
        read_frame_folder(tmp_path / "empty", 4)
    (folder / "00001.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableVideo, match=r"the video .*a cannot be read: cannot identify"):
        read_frame_folder(folder, 4)


@pytest.mark.parametrize("name", TWINS)
def test_the_run_depends_on_questions_and_videos(name, tmp_path):
    root = TWINS[name](tmp_path / "data")
    cfg = config(name, root)
    before = run_fingerprint(cfg).inputs
    assert any(key.endswith(("json/action_antonym.json", ".parquet")) for key in before)
    write_video(next(root.rglob("*.mp4")), first=70)
    assert run_fingerprint(cfg).inputs != before


def test_a_changed_frame_changes_the_mark_of_its_folder(tmp_path):
    folder = write_frames(tmp_path / "a", 3)
    before = videos_mark(tmp_path)
    Image.new("RGB", (60, 60)).save(folder / "00002.png")
    assert videos_mark(tmp_path) != before


@pytest.mark.parametrize(
    ("name", "gone"),
    [("mvbench", "json/episodic_reasoning.json"), ("mvbench", "video"), ("videomme", "data")],
)
def test_a_folder_without_a_part_is_refused_before_work(name, gone, tmp_path):
    root = TWINS[name](tmp_path / "data")
    (root / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"has no {gone}; docs/video.md describes"):
        require_folders(OmegaConf.to_container(config(name, root), resolve=True))


def test_the_videos_may_lie_in_another_folder(tmp_path):
    """Such as lmms-eval's own cache, which has no questions."""
    root = mvbench(tmp_path / "data")
    (root / "video").rename(tmp_path / "mvbench_video")
    cfg = config("mvbench", root, f"benchmark.task.videos={tmp_path / 'mvbench_video'}")
    made = instantiate(cfg.benchmark.task)
    assert all(made.video(doc).exists() for doc in made.eval_docs)
    require_folders(OmegaConf.to_container(cfg, resolve=True))
    cfg.benchmark.task.videos = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no .*nowhere; docs"):
        require_folders(OmegaConf.to_container(cfg, resolve=True))


def test_wrong_rows_and_names_are_refused(tmp_path):
    root = mvbench(tmp_path / "data")
    given = {"name": "mvbench", "data": str(root), "split": "train", "videos": "video",
             "max_new_tokens": 4, "post_prompt": ""}  # fmt: skip
    with pytest.raises(ValueError, match=r"sub_tasks must be some of .*, got \['antonym'\]"):
        MVBench(sub_tasks=["antonym"], **given)
    file = root / "json/action_antonym.json"
    file.write_text(json.dumps([asked("1.mp4", "?", ["up", "down"], "left")]))
    with pytest.raises(ValueError, match=r"row 0 of json/action_antonym.json: answer must be one"):
        MVBench(sub_tasks=["action_antonym"], **given)
    file.write_text(json.dumps([{"video": "1.mp4", "question": "?"}]))
    with pytest.raises(ValueError, match=r"row 0 of json/action_antonym.json lacks candidates"):
        MVBench(sub_tasks=["action_antonym"], **given)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; set benchmark\.data"):
        MVBench(sub_tasks=PARTS, **{**given, "data": str(tmp_path / "nowhere")})


def test_a_missing_video_is_an_error_of_its_question(twins):
    made = task("videomme", twins["videomme"])
    doc = {**made.eval_docs[0], "videoID": "three"}
    with pytest.raises(
        UnreadableDocument, match=r"document 0 of videomme: there is no video .*three"
    ):
        read_document("videomme", [doc], 0, made.doc_to_messages, VideoReader(4))
