"""The paper's benchmarks on stand-in rows: whole runs, and lmms-eval's own scores of known answers.

What known answers score is worked out by hand, from what each benchmark says of itself.
"""

import json
import sys
import time
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as parquet
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lmms_eval import evaluator, tasks
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from other_row_twins import OTHER_TWINS
from scripted import ScriptedModel
from standins import PEOPLE, ROWS, picture, write, write_benchmark

from experiments.calibrate import calibrate
from experiments.run import main, run
from mustdrop.evaluation.answers import scores
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.runs.folder import read_samples

NAMES = sorted(ROWS)
# Answers of which every one is right, and answers of which some are; what each set scores.
SOFT = (8 * 2 / 3 + 2 * 1 / 3) / 10  # two of ten said it: each is left out once
VQA = {
    "right": (["unanswerable", "box", "2", "milk"], {"exact_match": 1}),
    "partly": (["Unanswerable.", "a box!", "3", "tea"], {"exact_match": (2 + SOFT) / 4}),
}
KNOWN = {
    "gqa": {
        "right": (["no", "left", "a man", "grass"], {"exact_match": 1}),
        "partly": (["No.", "Left", "man", "trees"], {"exact_match": 0.5}),
    },
    # the third and fourth row are the questions of the second and first with their options turned
    "mmbench": {
        "right": (["A", "B", "A", "C"], {"gpt_eval_score": 100, "mmbench_accuracy": 1}),
        "partly": (
            ["A.", "The answer is B!", "A", "B"],
            {"gpt_eval_score": 50, "mmbench_accuracy": 0.75},
        ),
    },
    # a category: 100 for the questions right, and 100 for the images with both right
    "mme": {
        "right": (
            ["yes", "no"] * 3,
            {"mme_perception_score": 400, "mme_cognition_score": 200, "mme_total": 600,
             "mme_accuracy": 1},
        ),
        "partly": (
            ["Yes", "no", "Yes, it is", "yes", "perhaps", "nope"],
            {"mme_perception_score": 200 + 50, "mme_cognition_score": 50, "mme_total": 300,
             "mme_accuracy": 4 / 6},
        ),
    },
    "pope": {
        "right": (["yes", "no"] * 2, {"pope_accuracy": 1, "pope_f1_score": 1}),
        "partly": (
            ["Yes", "no", "no", "No."],  # the last is right but for its full stop
            {"pope_accuracy": 0.5, "pope_precision": 1, "pope_recall": 0.5, "pope_f1_score": 2 / 3},
        ),
    },
    "scienceqa": {
        "right": (["A", "B"] * 2, {"exact_match": 1}),
        "partly": (["A. one", "b", "(A)", "It is B"], {"exact_match": 0.5}),
    },
    "textvqa": VQA, "vizwiz": VQA, "vqav2": VQA,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where each benchmark's stand-in rows lie, those to calibrate on too."""
    root, found = tmp_path_factory.mktemp("data"), {}
    for name in NAMES:
        asked = composed(f"benchmark={name}", "method=vanilla").benchmark
        for node in (asked.task, asked.calibration):
            if node is not None:
                found[name] = write_benchmark(name, root, node.subset, node.split)
    return found


def config(name, data, *overrides):
    return composed(
        f"benchmark={name}", f"benchmark.data={data[name]}", "method=vanilla", *overrides
    )


@pytest.fixture(scope="module")
def made(data):
    return {name: instantiate(config(name, data).benchmark.task) for name in NAMES}


@pytest.mark.parametrize("kind", ["right", "partly"])
def test_known_answers_score_what_they_must(made, kind, tmp_path, monkeypatch):
    """Through lmms-eval, all benchmarks at once; each sample's own score as well."""
    monkeypatch.chdir(tmp_path)  # submissions go to the working directory
    said = {name: KNOWN[name][kind][0] for name in NAMES}
    results = evaluator.simple_evaluate(
        model=ScriptedModel(said), tasks=list(made.values()), bootstrap_iters=0,
        process_docs_parallel=1, task_manager=TaskManager("ERROR", include_defaults=False),
    )  # fmt: skip
    for name in NAMES:
        found, expected = results["results"][name], KNOWN[name][kind][1]
        for metric, value in expected.items():
            assert found[f"{metric},none"] == pytest.approx(value), (name, metric)
        task, metric = made[name], composed(f"benchmark={name}", "method=vanilla").benchmark.metric
        assert metric in expected
        own = [
            scores(task, instance, task.eval_docs[instance.doc_id], said[name][instance.doc_id])
            for instance in task.instances
        ]
        assert fmean(one[metric] for one in own) == pytest.approx(expected[metric]), name


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_lmms_evals_own(made, data, name):
    """Against the task that lmms-eval builds from the same yaml and rows, pictures included."""
    node = config(name, data).benchmark.task
    yaml = load_yaml_config(str(Path(tasks.__file__).parent / node.stock))
    files = {
        node.split: [
            str(path)
            for path in data[name].rglob(f"{node.split}-*.parquet")
            if not path.parent.name.endswith("_images")
        ]
    }
    yaml |= {
        "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files},
        "process_docs": None,
    }  # fmt: skip
    theirs, ours = ConfigurableMessagesTask(config=yaml), made[name]
    assert len(theirs.eval_docs) == len(ours.eval_docs) >= 4
    ocr = 0
    for doc, own in zip(theirs.eval_docs, ours.eval_docs, strict=True):
        told = theirs.doc_to_text(doc)
        if name == "textvqa":
            head, _, tail = told.partition("\n")
            told = f"{head}\nReference OCR token: {', '.join(doc['ocr_tokens'])}\n{tail}"
            ocr += 1
        ((message,),) = [ours.doc_to_messages(own)]
        picture, text = message["content"]
        assert text == {"type": "text", "text": told}
        assert picture["url"].mode == "RGB"
        if name != "gqa":
            assert picture["url"].tobytes() == theirs.doc_to_visual(doc)[0].tobytes()
    assert bool(ocr) == (name == "textvqa")


def test_the_ocr_prompt_can_be_switched_off(data):
    plain = instantiate(config("textvqa", data, "benchmark.task.prompt.ocr=false").benchmark.task)
    assert "OCR" not in plain.doc_to_text(plain.eval_docs[0])


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_greedy_and_of_a_pinned_length(made, data, name):
    options = made[name].config.generation_kwargs
    assert options["max_new_tokens"] == config(name, data).benchmark.task.max_new_tokens
    assert options["do_sample"] is False


@pytest.mark.parametrize("name", NAMES)
def test_a_run_from_a_local_folder(data, name, tmp_path):
    """Every benchmark through run(), on the packaged model: offline, scored, with a number each."""
    cfg = config(
        name, data, f"output_root={tmp_path}", "method=fastv", "budget=t64", "batch_size=3"
    )
    record = run(cfg)
    (folder,) = {path.parent for path in tmp_path.rglob("record.json")}
    samples = read_samples(folder)
    if name == "pope":
        assert {line["type"] for line in samples} == {"popular"}, "the split of the question"
    metric = cfg.benchmark.metric
    assert record["n"] == record["available"] == len(samples) == len(KNOWN[name]["right"][0])
    assert record["metrics"][metric] == pytest.approx(fmean(s["scores"][metric] for s in samples))
    assert set(KNOWN[name]["right"][1]) <= set(record["metrics"])
    assert all(line["vision_tokens"] == [576] + [17] * 11 for line in samples)
    told = [line["target"] for line in samples]
    if name in ("textvqa", "vizwiz", "vqav2"):
        assert told == [said[0] for said in PEOPLE]
    else:
        assert "answer" not in told and len(set(told)) > 1


def test_gqa_pairs_questions_with_their_own_pictures(made, tmp_path):
    def colours(task):
        return [task.doc_to_visual(doc)[0].getpixel((0, 0)) for doc in task.eval_docs]

    theirs = [picture(number).convert("RGB").getpixel((0, 0)) for number in (0, 1, 0, 1)]
    assert colours(made["gqa"]) == theirs
    rows = [{**row, "image": picture(n)} for n, row in enumerate(ROWS["gqa"]("questions"))]
    write(rows, tmp_path / "testdev.parquet")
    own = instantiate(config("gqa", {"gqa": tmp_path}).benchmark.task)
    assert colours(own) == [picture(n).convert("RGB").getpixel((0, 0)) for n in range(4)] != theirs


def test_rows_whose_images_are_plain_bytes_are_read_too(data, tmp_path):
    """As other tools write parquet: a struct of bytes and path, nothing that says image."""
    file = next(data["pope"].rglob("*.parquet"))

    parquet.write_table(
        parquet.read_table(file).replace_schema_metadata({}), tmp_path / "test.parquet"
    )
    task = instantiate(config("pope", {"pope": tmp_path}).benchmark.task)
    assert task.doc_to_visual(task.eval_docs[1])[0].size == (48, 32)


@pytest.mark.parametrize("name", NAMES)
def test_thresholds_are_chosen_on_other_rows_or_not_here(data, name):
    asked = config(name, data).benchmark
    if asked.calibration is None:
        cfg = composed(f"benchmark={name}", "budget=t128", "prefill.alpha=1e-2", name="calibrate")
        with pytest.raises(ValueError, match=f"{name} has no split to choose thresholds on"):
            calibrate(cfg, None)
        return
    assert asked.calibration.split != asked.task.split
    task = instantiate(asked.calibration)
    assert task.split == asked.calibration.split
    assert task.doc_to_messages(task.eval_docs[3])
    chosen = ("budget=t128", "prefill.alpha=1e-2", f"benchmark.data={data[name]}")
    cfg = composed(f"benchmark={name}", *chosen, name="calibrate")
    total = len(task.eval_docs)
    few = f"at most {total} together, the questions of {name}_calibration, got 320 and 320"
    with pytest.raises(ValueError, match=few):
        calibrate(cfg, None)


def test_a_file_for_a_server_is_written_with_the_run(data, tmp_path, capsys):
    chosen = ("stock=vizwiz_vqa/vizwiz_vqa_test.yaml", "split=test")
    cfg = config(
        "vizwiz", data, *(f"benchmark.task.{one}" for one in chosen), "benchmark.metric=submission",
        f"output_root={tmp_path}",
    )  # fmt: skip
    assert run(cfg)["metrics"] == {}
    assert "submission - of 4" in capsys.readouterr().out
    (path,) = tmp_path.rglob("submissions/*.json")
    assert [line["image"] for line in json.loads(path.read_text())] == [
        f"VizWiz_val_{n}.jpg" for n in range(4)
    ]


@pytest.mark.parametrize(("limit", "told"), [(3, "both of b.png .count."), (1, "both of a.png")])
def test_mme_needs_whole_pairs_and_says_so_before_it_asks(data, tmp_path, limit, told):
    with pytest.raises(ValueError, match=f"first {limit} documents do not hold {told}"):
        run(config("mme", data, f"output_root={tmp_path}", f"benchmark.limit={limit}"))
    assert not any(path.stat().st_size for path in tmp_path.rglob("samples.jsonl"))
    record = run(config("mme", data, f"output_root={tmp_path}", "benchmark.limit=4"))
    assert record["n"] == 4
    assert record["metrics"]["mme_total"] == record["metrics"]["mme_perception_score"]


@pytest.mark.parametrize(
    ("name", "place", "told"),
    [
        ("gqa", "lmms-lab-encoder/GQA", "lmms-lab-encoder/GQA is no folder, and HF_HUB_OFFLINE is"),
        ("mme", "/no/such", "there is no folder /no/such"),
        ("pope", "{root}", "{root} holds no parquet file of split test"),
    ],
)
def test_data_that_is_not_there_is_told_in_one_line_without_delay(
    name, place, told, tmp_path, monkeypatch, capsys
):
    """Before the model is loaded; and nothing is retried."""
    place, told = place.format(root=tmp_path), told.format(root=tmp_path)
    given = ("method=vanilla", f"output_root={tmp_path / 'out'}")
    command = ["run.py", f"benchmark={name}", f"benchmark.data={place}", *given]
    monkeypatch.setattr(sys, "argv", command)
    start = time.monotonic()
    with pytest.raises(SystemExit) as left:
        main()
    assert time.monotonic() - start < 10
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: benchmark.data: {told}")


def test_rows_that_lack_a_column_are_told_by_its_name(data, tmp_path):
    rows = [
        {key: value for key, value in row.items() if key != "hint"} for row in ROWS["scienceqa"]("")
    ]
    write(rows, tmp_path / "test.parquet")
    with pytest.raises(InstantiationException, match=r"rows of .* lack the column 'hint'"):
        instantiate(config("scienceqa", {"scienceqa": tmp_path}).benchmark.task)


def test_every_yaml_of_a_stock_benchmark_is_tested_here():
    stock = {
        path.stem
        for path in (conf_dir() / "benchmark").glob("*.yaml")
        if "stock:" in path.read_text() and path.stem != "custom_task"
    }
    assert stock == {*NAMES, *OTHER_TWINS}  # the latter in test_other_benchmarks.py
