"""Threads that wait sleep, in every program of ours; what the user's environment says wins."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mustdrop.openmp as waiting

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


def test_it_imports_nothing_and_the_jobs_of_a_cluster_say_it_too():
    code = f"import sys, {NAME}; print('torch' in sys.modules, 'hydra' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert "OMP_WAIT_POLICY:-PASSIVE" in (ROOT / "slurm" / "array.sbatch").read_text()
