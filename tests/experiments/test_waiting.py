"""Threads that wait sleep, in every program of ours; what the user's environment says wins."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mustdrop.openmp as waiting
from experiments.threads import rank_threads, set_threads

ROOT = Path(__file__).parents[2]
NAME = waiting.__name__


def programs():
    """Every file that somebody starts, but for those of a package that sets it for all of them.

    The GPU script is none of them: it begins without mustdrop, to say what does not fit.
    """
    files = [*ROOT.glob("experiments/**/*.py"), *ROOT.glob("notebooks/*.py")]
    started = [path for path in files if "\nif __name__ ==" in path.read_text()]
    return [path for path in started if path.parent.name != "gpu"]


def first_import(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return node
    raise AssertionError(f"{path} imports nothing")


def test_every_program_says_how_threads_wait_before_it_imports_anything_else():
    named = {path.relative_to(ROOT).as_posix() for path in programs()}
    assert {"experiments/run.py", "experiments/demo.py", "notebooks/build.py"} <= named
    files = [*programs(), ROOT / "analysis" / "__init__.py"]
    files += [ROOT / "mustdrop" / "cli" / name for name in ("main.py", "lmms_eval_model.py")]
    for path in files:
        node = first_import(path)
        assert isinstance(node, ast.Import) and node.names[0].name == NAME, path


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, ("PASSIVE", "0")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"KMP_BLOCKTIME": "7"}, ("PASSIVE", "7")),
    ],
)
def test_the_users_own_setting_wins(own, expected, monkeypatch):
    # set first, so that what the module sets is undone too
    for name in waiting.PASSIVE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    importlib.reload(waiting)
    assert tuple(os.environ.get(name) for name in waiting.PASSIVE) == expected


@pytest.mark.parametrize(
    ("own", "loaded", "late"),
    [({}, True, True), ({"OMP_WAIT_POLICY": "PASSIVE"}, True, False), ({}, False, False)],
)
def test_a_program_that_imports_torch_first_is_noticed(own, loaded, late, monkeypatch):
    for name in waiting.PASSIVE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "modules", {**sys.modules, "torch": sys})
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    importlib.reload(waiting)
    assert waiting.TOO_LATE is late


def test_whoever_imports_the_package_before_torch_has_it_too():
    code = "import mustdrop, os; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {k: v for k, v in os.environ.items() if k not in waiting.PASSIVE}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "PASSIVE"


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, None),
        ({"LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}, None),
        # torchrun's own limit, which it sets where the user has set none
        ({"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "1"}, 2),
        ({"LOCAL_WORLD_SIZE": "16", "TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "1"}, 1),
        # the user's
        ({"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x", "OMP_NUM_THREADS": "3"}, None),
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, None),
        ({"LOCAL_WORLD_SIZE": "2"}, 4),
    ],
)
def test_ranks_share_the_cpus(environment, threads, monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    assert rank_threads() == threads


def test_threads_that_are_chosen_are_set(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    set_threads(None)
    set_threads(3)
    assert chosen == [3]


@pytest.mark.slow
def test_the_processes_of_joblib_share_the_cpus():
    """joblib itself divides them, before torch is imported: nothing of ours has to."""
    code = """
import joblib
def threads(number):
    import torch
    return torch.get_num_threads()
cpus = joblib.cpu_count()
found = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(threads)(n) for n in range(2))
print(cpus, found)
assert set(found) == {max(1, cpus // 2)}, found
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_it_imports_nothing_and_the_jobs_of_a_cluster_say_it_too():
    code = f"import sys, {NAME}; print('torch' in sys.modules, 'hydra' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert "OMP_WAIT_POLICY:-PASSIVE" in (ROOT / "slurm" / "array.sbatch").read_text()
