"""Where a run stands is told by its folder; what cannot be written is told, and nothing is lost."""

import errno
import fcntl
import json
import os
import platform
import resource
from contextlib import contextmanager

import pytest

from mustdrop.runs import status as looked
from mustdrop.runs.disk import Unwritable
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import read_samples, read_status
from mustdrop.runs.status import run_status
from mustdrop.runs.writer import Busy, RunWriter, note_failure

MARK = Fingerprint({}, {})
DONE = {"floor": None, "available": 9}


def record(n):
    return {"n": n, **DONE}


def opened(folder):
    return RunWriter(folder, MARK, "a: 1\n")


def test_a_run_is_pending_then_running_then_done(tmp_path):
    assert run_status(tmp_path / "none", 3).state == "pending"
    with opened(tmp_path) as run:
        run.expect(3)
        assert run_status(tmp_path, 3) == looked.RunStatus("running", 0, 3, where=platform.node())
        for doc in range(3):
            run.add({"doc_id": doc})
        run.finish(record(3))
    now = run_status(tmp_path, 3)
    assert (now.state, now.n, now.wanted, now.left) == ("done", 3, 3, None)
    more = run_status(tmp_path, 5)  # whoever asks for more finds work left
    assert (more.state, more.n, more.wanted) == ("pending", 3, 5)
    assert run_status(tmp_path, 99).state == "pending"
    assert run_status(tmp_path, 3, traces=[1]).state == "pending"


def test_its_rate_is_that_of_the_process_at_work(tmp_path):
    with opened(tmp_path) as run:
        run.add({"doc_id": 0})
    with opened(tmp_path) as run:
        run.expect(10)
        for doc in (1, 2):
            run.add({"doc_id": doc})
        told = {**read_status(tmp_path), "resumed": "2026-01-01T00:00:00+00:00"}
        (tmp_path / "status.json").write_text(json.dumps(told))
        began = 1767225600
        for name in ("status.json", "samples.jsonl"):
            os.utime(tmp_path / name, (began + 4, began + 4))
        now = run_status(tmp_path, 10)
    assert now.rate == 0.5 and now.left == 14.0


def test_a_run_whose_process_is_gone_is_stale(tmp_path):
    run = opened(tmp_path)
    run.add({"doc_id": 0})
    assert run_status(tmp_path, 3).state == "running"
    run._log.close()  # as the system does when a process is killed: the lock is gone, no word said
    assert (run_status(tmp_path, 3).state, run_status(tmp_path, 3).n) == ("stale", 1)


def test_on_another_machine_silence_decides(tmp_path):
    run = opened(tmp_path)
    told = {**read_status(tmp_path), "host": "node7", "slurm": {"job_id": "31"}}
    run._log.close()
    (tmp_path / "status.json").write_text(json.dumps(told))
    now = run_status(tmp_path, 3)
    assert (now.state, now.where) == ("running", "node7 job 31")
    for name in ("status.json", "samples.jsonl"):
        os.utime(tmp_path / name, (0, 0))
    assert run_status(tmp_path, 3).state == "stale"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_where_there_are_no_locks_the_process_is_looked_for(tmp_path, monkeypatch, code):
    def refused(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    with opened(tmp_path):
        assert run_status(tmp_path, 3).state == "running"
        told = {**read_status(tmp_path), "pid": 2**22 + 1}
        (tmp_path / "status.json").write_text(json.dumps(told))
        assert run_status(tmp_path, 3).state == "stale"
    assert "has no locks" in (tmp_path / "run.log").read_text()


def test_a_failure_is_told_with_its_traceback_and_a_stop_is_no_failure(tmp_path):
    with pytest.raises(KeyError), opened(tmp_path / "a"):
        raise KeyError("what happened")
    now = run_status(tmp_path / "a", 3)
    assert now.state == "failed" and "what happened" in now.error
    assert "Traceback" in read_status(tmp_path / "a")["traceback"]
    with pytest.raises(SystemExit), opened(tmp_path / "b"):
        raise SystemExit(143)
    assert run_status(tmp_path / "b", 3).state == "stopped"
    assert "error" not in read_status(tmp_path / "b")


def test_what_could_not_begin_keeps_its_samples_and_their_code(tmp_path):
    with opened(tmp_path) as run:
        run.add({"doc_id": 0})
    before = read_status(tmp_path)
    note_failure(tmp_path, ValueError("limit must be 1 or more"), "limit: 1 or more")
    after = read_status(tmp_path)
    assert (after["state"], after["error"]) == ("failed", "limit: 1 or more")
    assert after["fingerprint"] == before["fingerprint"]
    assert run_status(tmp_path, 3).n == 1
    note_failure(tmp_path / "new" / "run", ValueError("no"), "no")
    assert run_status(tmp_path / "new" / "run", 3).error == "no"


def test_a_second_process_is_told_who_is_first_and_a_look_disturbs_nobody(tmp_path, monkeypatch):
    with (
        opened(tmp_path),
        pytest.raises(Busy, match=f"process {os.getpid()} on {platform.node()}"),
    ):
        opened(tmp_path)
    # somebody looks at the very moment at which a run begins: the lock is his for an instant
    taken, lock = [], fcntl.flock

    def late(file, how):
        if how & fcntl.LOCK_EX and len(taken) < 3:
            taken.append(how)
            raise BlockingIOError(errno.EAGAIN, "looked at")
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with opened(tmp_path):
        assert len(taken) == 3


@contextmanager
def room(size):
    """Files cannot grow beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_earlier_samples_are_whole_and_the_same_command_goes_on(tmp_path):
    with (
        pytest.raises(Unwritable, match=r"cannot write to .*; its \d+ samples are safe"),
        opened(tmp_path) as run,
        room(2000),
    ):
        for doc in range(100):
            run.add({"doc_id": doc, "answer": "x" * 100})
    whole = read_samples(tmp_path)
    assert 10 < len(whole) < 20
    assert (tmp_path / "samples.jsonl").read_bytes().endswith(b"}\n")
    assert run_status(tmp_path, 100).state == "failed"
    with opened(tmp_path) as run:
        assert len(run.samples) == len(whole)
        for doc in range(len(whole), 100):
            run.add({"doc_id": doc, "answer": "x" * 100})
    assert [line["doc_id"] for line in read_samples(tmp_path)] == list(range(100))


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match=r"cannot write to .*file/run"):
        opened(tmp_path / "file" / "run")
