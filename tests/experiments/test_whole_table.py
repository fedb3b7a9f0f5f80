"""A whole table from one command, on a tiny checkpoint in the hub's layout and twins of data."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from image_twins import save_llava, write_twins
from untimed import untimed

from mustdrop.runs.folder import read_records, read_samples

ROOT = Path(__file__).parents[2]
BENCHMARKS = ["gqa", "textvqa", "mme"]
METHODS = ("vanilla", "mustdrop", "fastv", "sparsevlm", "random")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_benchmarks_and_five_methods_are_a_table_a_page_and_no_failure(tmp_path):
    """MME has no calibration split: it takes the thresholds of GQA, which the table notes."""
    given = [
        "experiment=table1", *save_llava(tmp_path / "llava", layers=8, side=48),
        write_twins(tmp_path / "data", BENCHMARKS, times=3), "budget=t72",
        f"method={','.join(METHODS)}", f"benchmark={','.join(BENCHMARKS)}", "benchmark.limit=4",
        "calibration.n=4", "calibration.held_out=4", "calibrate_with=gqa", "workers=0",
        "batch_size=2", "--probe", "4",
    ]  # fmt: skip
    text = completed(tmp_path, given)
    assert "15 cells: 9 pending, 6 needs calibration" in text
    assert "calibration 4/4" in text and "calibration 5" not in text
    assert "15 cells: 0 done, 15 to run" in text and "the runs took" in text
    home = tmp_path / "outputs/table1"
    records = read_records(home)
    assert len(records) == 15
    borrowed = {
        record["method"]: record["thresholds"][0]
        for record in records
        if record.get("calibrated_on") == ["gqa"]
    }
    assert set(borrowed) == {"mustdrop", "sparsevlm"}
    assert borrowed["sparsevlm"] == (
        "prefill.scale and prefill.bias were searched on the prompts of gqa, because mme has no "
        "split for it"
    )
    assert not any(record["floor"] for record in records)
    note = "mme: the thresholds of mustdrop, sparsevlm were searched on the prompts of gqa"
    for name in ("table1", "summary"):
        table = " ".join((home / f"{name}.txt").read_text().split())
        assert note in table, table
    assert (home / "claims.txt").stat().st_size and (home / "report.html").stat().st_size > 1e4
    assert list((home / "figures").glob("*.png"))


POCKET = (
    "method=mustdrop,random", "budget=t150,t100", "benchmark.limit=24", "workers=0", "batch_size=4",
    "calibration.n=64", "calibration.held_out=64", "--probe", "8",
)  # fmt: skip
# Files that show how far a sweep is: it is killed when each of them is there.
MOMENTS = (
    "calibrating", "outputs/probe/*/*/*/*/samples.jsonl", "outputs/run/*/random/*/*/samples.jsonl",
    "outputs/run/claims.txt",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_step_the_same_command_comes_to_the_same_end(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    text = completed(whole, POCKET)
    assert "calibration 1/1" in text and "4 cells: 0 done, 4 to run" in text
    kills = 0
    for moment in MOMENTS:
        process = started(killed, POCKET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not reached(killed, moment):
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            kills += 1
        assert process.wait() == -signal.SIGKILL
        wait_until_no_process_is_left(killed)
    assert kills == len(MOMENTS)
    completed(killed, POCKET)
    assert samples(killed) == samples(whole) and len(samples(whole)) == 5
    rows = [
        yaml.safe_load((root / "conf/tuned/pocket.yaml").read_text()) for root in (whole, killed)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    for name in ("summary.txt", "claims.txt", "figures.txt", "report.html"):
        assert (killed / "outputs/run" / name).stat().st_size
    again = completed(killed, [*POCKET, "--dry-run"])
    assert "4 cells: 4 done, 0 to run" in again and "calibration" not in again


def reached(folder, moment):
    if moment == "calibrating":
        return any("experiments.sweeps.calibrating" in line for line in processes(folder))
    return any(path.stat().st_size for path in folder.glob(moment))


def processes(folder):
    """Command lines of the processes that work in a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (path / "cwd").readlink() == folder:
                lines.append((path / "cmdline").read_text().replace("\0", " "))
    return lines


def wait_until_no_process_is_left(folder):
    """What the killed process started ends with it, but for an analysis, which only reads runs."""
    deadline = time.monotonic() + 120
    while processes(folder):
        assert time.monotonic() < deadline, processes(folder)
        time.sleep(0.1)


def samples(root):
    """All that must not depend on a stop."""
    return {
        path.parent.relative_to(root).as_posix(): [
            untimed(line) for line in read_samples(path.parent)
        ]
        for path in sorted(root.rglob("samples.jsonl"))
    }


def started(folder, given, **pipes):
    """A mustdrop sweep in a copy without pyproject.toml, whose thresholds stay in its folder."""
    tree = folder / "tree"
    for name in ("mustdrop", "conf", "experiments", "analysis", "hydra_plugins"):
        if not (tree / name).exists():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    environment = {
        **os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }  # fmt: skip
    command = [sys.executable, "-m", "mustdrop.cli", "sweep", *given]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def completed(folder, given):
    """Output of a mustdrop sweep that must succeed."""
    process = started(folder, given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text, _ = process.communicate()
    assert process.returncode == 0 and "failed" not in text, text
    return text
