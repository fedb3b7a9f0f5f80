"""Worker processes compute items ahead, in order; nothing of them outlives the caller."""

import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mustdrop.evaluation import ahead as module
from mustdrop.evaluation.ahead import WorkerEnded, ahead, chosen_workers

ROOT = Path(__file__).parents[2]
NAMES = [f"item {index}" for index in range(7)]


def process_of(index, sleeps=()):
    if index in sleeps:
        time.sleep(0.05)
    return pickle.dumps((index, os.getpid()))


def alive(process):
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("workers", [0, 1, 3, 50])
def test_items_come_in_order_and_the_workers_end(workers):
    items = [
        pickle.loads(item) for item in ahead(partial(process_of, sleeps=(0, 4)), NAMES, workers)
    ]
    assert [index for index, _ in items] == [*range(7)]
    processes = {process for _, process in items}
    assert len(processes) == max(1, min(workers, 6))
    assert (os.getpid() in processes) == (workers == 0)
    assert not any(alive(process) for process in processes - {os.getpid()})


def test_the_next_item_is_computed_while_the_caller_works(tmp_path):
    def marked(index):
        (tmp_path / str(index)).touch()
        return bytes(2 * module.PIPE_BYTES)

    with closing(ahead(marked, NAMES, 1)) as items:
        next(items)
        assert until((tmp_path / "1").exists)
        time.sleep(0.2)
        assert not (tmp_path / "2").exists()  # it waits until the caller takes item 1


def test_one_item_needs_no_worker():
    ((index, process),) = map(pickle.loads, ahead(process_of, NAMES[:1], 4))
    assert (index, process) == (0, os.getpid())
    assert list(ahead(process_of, [], 4)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_when_its_item_is_due(workers):
    def failing(index):
        if index == 3:
            raise ValueError("no item")
        return bytes([index])

    items = ahead(failing, NAMES, workers)
    assert [next(items) for _ in range(3)] == [b"\0", b"\1", b"\2"]
    with pytest.raises(ValueError) as refused:
        next(items)
    assert str(refused.value) == "no item"
    lines = "".join(traceback.format_exception(refused.value))
    assert 'raise ValueError("no item")' in lines, "where it happened stays known"


def test_a_worker_that_is_killed_is_an_error_that_names_its_item():
    def killed(index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    items = ahead(killed, NAMES, 1)
    next(items), next(items)
    with pytest.raises(WorkerEnded, match=r"^item 2: .* ended with exit code -9; workers=0"):
        next(items)


def test_an_error_of_the_caller_ends_the_workers():
    slow = partial(process_of, sleeps=range(1, 7))
    with pytest.raises(KeyboardInterrupt), closing(ahead(slow, NAMES, 2)) as items:
        _, process = pickle.loads(next(items))
        assert alive(process)
        raise KeyboardInterrupt
    assert not alive(process)


def test_signals_to_all_processes_of_a_run_are_left_to_the_parent():
    def signalled(index):
        for number in module.PARENTS:
            os.kill(os.getpid(), number)
        return process_of(index)

    assert [pickle.loads(item)[0] for item in ahead(signalled, NAMES, 1)] == [*range(7)]


HANDLED = """
import os, signal, sys, time
from pathlib import Path
from mustdrop.evaluation.ahead import ahead

folder = Path(sys.argv[1])

def handle(number, frame):
    (folder / f"{signal.Signals(number).name} {os.getpid()}").touch()

for number in (signal.SIGURG, signal.SIGCONT):
    signal.signal(number, handle)
if "early" in sys.argv:  # before a worker runs its first line
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGURG))

def compute(index):
    (folder / "started").touch()
    if index:
        time.sleep(0.2)
    return str(os.getpid()).encode()

items = list(ahead(compute, ["a", "b", "c", "d", "e", "f"], 1))
assert len(items) == 6 and str(os.getpid()).encode() not in items
(folder / f"run {os.getpid()}").touch()
"""


@pytest.mark.parametrize("when", ["early", "later"])
def test_a_handler_of_the_parent_runs_in_the_parent_alone(tmp_path, when):
    """SLURM sends the warning of a preemption, SIGURG of submitit's tasks, to all processes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANDLED, str(tmp_path), when], start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if when == "later":
        assert until((tmp_path / "started").exists, 120)
        for number in (signal.SIGURG, signal.SIGCONT):
            os.killpg(process.pid, number)
    assert process.wait(120) == 0
    handled = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("SIG"))
    expected = [f"{name} {process.pid}" for name in ("SIGCONT", "SIGURG")]
    assert handled == ([] if when == "early" else expected)
    assert (tmp_path / f"run {process.pid}").exists()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Their copies of its open files would keep the run's folder locked."""
    script = f"""
import os, time
from pathlib import Path
from mustdrop.evaluation.ahead import ahead

def compute(index):
    Path({str(tmp_path)!r}, str(os.getpid())).touch()
    if index:
        time.sleep(600)
    return b""

items = ahead(compute, ["a", "b", "c", "d"], 2)
next(items)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert until(lambda: len([*tmp_path.iterdir()]) == 2, 120)
    finally:
        process.kill()
        process.wait()
    workers = [path.name for path in tmp_path.iterdir()]
    assert until(lambda: not any(map(alive, workers)), 5)


def test_a_number_of_workers_that_cannot_work_is_refused(monkeypatch):
    assert [chosen_workers(number) for number in (None, 0, 3)] == [1, 0, 3]
    for wrong in (-1, True, 1.5, "2"):
        with pytest.raises(ValueError, match="workers must be a count of 0 or more, got "):
            chosen_workers(wrong)
    monkeypatch.setattr(module, "CAN_FORK", False)
    assert [chosen_workers(number) for number in (None, 0)] == [0, 0]
    with pytest.raises(ValueError, match=r"workers must be 0 on .*: they need Linux; got 2"):
        chosen_workers(2)
