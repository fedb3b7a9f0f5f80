"""The built wheel, in a fresh environment and an empty folder, does what the documentation says."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import lmms_eval.tasks
import pytest
from standins import write_benchmark

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1200)]

(LIBRARY,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
CHECK = """
import mustdrop
from mustdrop.prefill import FastV

assert fastv.prefill == FastV(98, 1)
print(mustdrop.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of an environment that has the wheel; the tests' environment lends it the rest."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    # only modules are found on this path: the editable install's own .pth file is not read
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    # the editable install, which is visible too, must not count as installed
    subprocess.run([sys.executable, *install, "--ignore-installed", str(wheel)], check=True)
    return environment


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def call(installed, empty):
    """Runs a command of the environment in the empty folder."""

    def run(*arguments, code=0, **environment):
        done = subprocess.run(
            [installed / "bin" / arguments[0], *arguments[1:]], cwd=empty, capture_output=True,
            text=True, env={**clean(), "HF_HUB_OFFLINE": "1", **environment},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    return run


def clean():
    """The environment of this process without what would find the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_library_and_presets(call, installed):
    out, _ = call("python", "-c", LIBRARY + CHECK)
    assert "executed_average" in out
    assert Path(out.splitlines()[-1]).is_relative_to(installed)


def test_the_command_and_its_lists(call):
    out, _ = call("mustdrop", "--help")
    assert len(out.splitlines()) <= 40 and "mustdrop run" in out
    out, _ = call("mustdrop", "list", "methods")
    assert {line.split()[0] for line in out.splitlines()} >= {"mustdrop", "fastv", "tome"}
    _, err = call("mustdrop", "run", "method=mustdorp", code=2)
    assert (
        err.strip()
        .splitlines()[-1]
        .startswith("error: no method 'mustdorp'; did you mean mustdrop?")
    )


def test_a_run_a_sweep_tables_figures_and_a_page(call, empty):
    out, _ = call("mustdrop", "run", "benchmark.limit=4")
    assert "done: pocket x pocket_vqa x mustdrop at t192" in out
    call("mustdrop", "run", "-m", "method=vanilla,fastv", "budget=t128", "benchmark.limit=4",
         "traces=2", "output_root=outputs")  # fmt: skip
    records = [json.loads(path.read_text()) for path in empty.rglob("record.json")]
    assert {record["method"] for record in records} == {"mustdrop", "vanilla", "fastv"}
    out, _ = call("mustdrop", "tables", "summary", "--runs", "outputs/run")
    assert "fastv" in out
    call("mustdrop", "figures", "layers", "tradeoff", "--runs", "outputs/run", "--out", "figures")
    assert list((empty / "figures").glob("layers.*"))
    call("mustdrop", "report", "outputs/run")
    assert "<html" in (empty / "outputs" / "run" / "report.html").read_text()[:500]
    call("mustdrop", "claims", "--runs", "outputs/run")
    call("mustdrop", "sweep", "status", "outputs/run", "--once")


def test_what_a_user_calibrates_lies_in_the_users_folder_and_is_found_again(call, empty, installed):
    arguments = ("method=mustdrop_global", "budget=150")
    _, err = call("mustdrop", "run", *arguments, "benchmark.limit=2", code=2)
    assert "mustdrop calibrate" in err
    before = sorted(installed.rglob("*.yaml"))
    call("mustdrop", "calibrate", *arguments, "calibration.n=16")
    assert sorted(installed.rglob("*.yaml")) == before
    (table,) = (empty / "conf" / "tuned").iterdir()
    assert table.name == "pocket.yaml" and "budget: t150" in table.read_text()
    out, _ = call("mustdrop", "run", *arguments, "benchmark.limit=2")
    assert "at t150" in out


def test_lmms_evals_command_line(call, empty, tmp_path):
    (rows,) = write_benchmark("pope", tmp_path, None, "test").rglob("*.parquet")
    stock = Path(lmms_eval.tasks.__file__).parent / "pope" / "pope.yaml"
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "pairs.yaml").write_text(
        f"task: pairs\ninclude: {stock}\ndataset_path: parquet\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
    )
    folder, _ = call("mustdrop", "list", "lmms-eval")
    common = (
        "python", "-m", "lmms_eval", "--model", "mustdrop", "--batch_size", "2", "--limit", "2",
        "--process_docs_parallel", "1", "--output_path", "logs", "--model_args",
    )  # fmt: skip
    model = "pretrained=packaged,method=fastv,budget=t64"
    settings = {"ACCELERATE_USE_CPU": "true", "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    for task, where in (("pairs", tasks), ("pocket_vqa", folder.strip())):
        call(*common, model, "--tasks", task, "--include_path", str(where), **settings)
        assert list((empty / "logs").rglob("*results.json"))
        shutil.rmtree(empty / "logs")
    wrong = model.replace("fastv", "fastw")
    _, error = call(*common, wrong, "--tasks", "pocket_vqa", "--include_path", folder.strip(),
                    code=2, **settings)  # fmt: skip
    assert "no method 'fastw'; did you mean fastv?" in error


def test_what_the_wheel_holds(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "mustdrop", "experiments", "analysis", "hydra_plugins",
    }  # fmt: skip
    assert {"mustdrop/conf/run.yaml", "mustdrop/slurm/array.sbatch", "mustdrop/py.typed"} <= {
        *names
    }
    assert not [name for name in names if "records/" in name and name.startswith("experiments")]
