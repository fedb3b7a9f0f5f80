"""``--model mustdrop`` in lmms-eval's own command line: found from any folder, the same answers."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import datasets
import lmms_eval.tasks
import pytest
from hydra.utils import instantiate
from lmms_eval import evaluator
from lmms_eval.models.registry_v2 import ModelRegistryV2
from lmms_eval.tasks import TaskManager
from standins import write_benchmark

from mustdrop.cli.lmms_eval_model import MustDropVLM, overrides
from mustdrop.evaluation import plugin
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.presets.compose import composed

ROOT = Path(__file__).parents[2]
GROUP = "lmms_eval.models"
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
ARGS = "pretrained=packaged,method=fastv,budget=t64,prefill.layer=0"


def test_an_installed_entry_point_is_found_and_answers(elsewhere, monkeypatch):
    """In this process; the slow tests do it by the command line."""
    assert dict(DECLARED) == {plugin.MODEL: f"{plugin.__name__}:{plugin.manifests.__name__}"}
    monkeypatch.syspath_prepend(elsewhere / "site")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", elsewhere / "hf")
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests(overwrite=True)
    made = registry.get_model_class("mustdrop")
    assert made is MustDropVLM
    manager = TaskManager("ERROR", include_path=str(elsewhere / "tasks"), include_defaults=False)
    results = evaluator.simple_evaluate(
        model=made.create_from_arg_string(ARGS, {"batch_size": 2, "device": None}),
        tasks=["pairs"], task_manager=manager, bootstrap_iters=0, process_docs_parallel=1,
    )  # fmt: skip
    answers(results["samples"]["pairs"], 4)


def answers(samples, documents):
    """Of all documents, scored as said, with the tokens that were asked for."""
    assert sorted(one["doc_id"] for one in samples) == list(range(documents))
    for one in samples:
        assert one["token_counts"][0]["vision_tokens"] == [576] + [17] * 11
        right = one["filtered_resps"][0] == ("yes", "no")[one["doc_id"] % 2]
        assert one["pope_accuracy"]["score"] == right


@pytest.mark.parametrize(
    ("args", "same"),
    [
        (
            {"pretrained": "packaged", "method": "fastv", "budget": "t128"},
            ("method=fastv", "budget=t128"),
        ),
        (
            {"model": "llava15_7b", "method": "mustdrop", "budget": "t192", "benchmark": "textvqa",
             "prefill.gamma": 0.001, "prefill.alpha": "1e-3", "prefill.layers": "[2,6]"},
            ("model=llava15_7b", "benchmark=textvqa", "prefill.gamma=1e-3", "prefill.alpha=1e-3",
             "prefill.layers=[2,6]"),
        ),
        (
            {"pretrained": "llava-hf/llava-1.5-13b-hf", "method": "vanilla"},
            ("model=llava15_13b", "method=vanilla"),
        ),
        (
            {"model": "llava15_7b", "inputs": "authors", "method": "vanilla"},
            ("model=llava15_7b", "inputs=authors", "method=vanilla"),
        ),
        (
            {"pretrained": "/my models/it's", "model": "pocket", "method": "random"},
            ("model.pretrained=\"/my models/it's\"", "method=random"),
        ),
    ],
)  # fmt: skip
def test_model_args_mean_what_they_mean_to_run(args, same):
    ours, theirs = composed(*overrides(args)), composed(*same)
    assert instantiate(ours.dropper) == instantiate(theirs.dropper)
    assert (ours.model, ours.budget) == (theirs.model, theirs.budget)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"metod": "fastv"}, "got 'metod'"),
        ({"prefill": "fastv", "output_root": "x"}, "got 'output_root'"),
        ({"pretrained": "some/model"}, "no preset has the weights some/model; set model to one of"),
        ({"method": "fastw"}, "no method 'fastw'; did you mean fastv?"),
        ({"method": "fastv", "prefill.kep": 3}, "no field prefill.kep; did you mean prefill.keep?"),
        ({"method": "fastv", "prefill.layer": 11}, "layer must be in [-1, 10]"),
        (
            {"method": "fastv", "budget": "t64", "prefill.layer": 4},
            "the least executed average is 240",
        ),
        ({"method": "mustdrop", "budget": "none"}, "prefill.gamma has no value"),
    ],
)  # fmt: skip
def test_bad_model_args_end_the_process_without_a_traceback(args, told, capsys):
    with pytest.raises(SystemExit) as left:
        MustDropVLM(**{"pretrained": "packaged", **args})
    assert left.value.code == 2
    line, *hints = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and told in line
    assert not any("Traceback" in hint for hint in hints)


@pytest.mark.parametrize("late", [True, False])
def test_torch_that_was_imported_first_is_a_note(late, capsys, monkeypatch):
    monkeypatch.setattr("mustdrop.openmp.TOO_LATE", late)
    adapter = MustDropVLM(pretrained="packaged", method="vanilla", budget="none", workers=0)
    assert ("OMP_WAIT_POLICY=PASSIVE python -m lmms_eval" in capsys.readouterr().err) == late
    assert adapter.workers == 0


def test_an_error_while_answering_ends_the_process_too(capsys, monkeypatch):
    """lmms-eval's command line would print it, and report success."""

    def broken(self, requests):
        raise MemoryError("out of memory")

    monkeypatch.setattr(DroppedVLM, "generate_until", broken)
    adapter = MustDropVLM(pretrained="packaged", method="vanilla")
    with pytest.raises(SystemExit) as left:
        adapter.generate_until([])
    assert left.value.code == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder with a task of a user's own, and the entry point as an installation has it."""
    root = tmp_path_factory.mktemp("elsewhere")
    (rows,) = write_benchmark("pope", root, None, "test").rglob("*.parquet")
    stock = Path(lmms_eval.tasks.__file__).parent / "pope" / "pope.yaml"
    (root / "tasks").mkdir()
    (root / "tasks" / "pairs.yaml").write_text(
        f"task: pairs\ninclude: {stock}\ndataset_path: parquet\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
    )
    installed = root / "site" / "mustdrop_entry-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mustdrop-entry\nVersion: 0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in DECLARED.items())
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    return root


def command(root, *launch, out="out", args=ARGS):
    """lmms-eval's own command line, and what it wrote: metrics and answers by document."""
    environment = {
        **os.environ, "PYTHONPATH": f"{root / 'site'}:{ROOT}", "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(root / "hf"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *launch, "-m", "lmms_eval", "--model", "mustdrop", "--model_args", args,
         "--tasks", "pairs", "--include_path", "tasks", "--batch_size", "2", "--limit", "3",
         "--log_samples", "--output_path", out, "--process_docs_parallel", "1"],
        cwd=root, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    results = [json.loads(path.read_text()) for path in (root / out).rglob("*results.json")]
    samples = [
        json.loads(line)
        for path in (root / out).rglob("*_samples_pairs.jsonl")
        for line in path.read_text().splitlines()
    ]
    return done, [one["results"]["pairs"] for one in results], samples


@pytest.fixture(scope="module")
def one_process(elsewhere):
    return command(elsewhere, out="one")


@pytest.mark.slow
def test_lmms_evals_command_line_finds_it_from_any_folder(one_process):
    done, (metrics,), samples = one_process
    assert done.returncode == 0, done.stderr
    answers(samples, 3)
    right = sum(one["pope_accuracy"]["score"] for one in samples)
    assert metrics["pope_accuracy,none"] == pytest.approx(right / 3)


@pytest.mark.slow
def test_two_ranks_of_torchrun_are_one_process(elsewhere, one_process):
    """Three documents on two ranks: the padding is neither scored nor logged."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done, metrics, samples = command(elsewhere, *launch, out="two")
    assert done.returncode == 0, done.stderr
    assert metrics == one_process[1]
    answers(samples, 3)
    said = {one["doc_id"]: one["filtered_resps"] for one in samples}
    assert said == {one["doc_id"]: one["filtered_resps"] for one in one_process[2]}


@pytest.mark.slow
def test_a_failure_is_an_exit_code_from_lmms_evals_command_line_too(elsewhere):
    done, metrics, _ = command(elsewhere, out="none", args=f"{ARGS},prefill.keep=none")
    assert done.returncode == 2 and not metrics
    assert "error: " in done.stderr
