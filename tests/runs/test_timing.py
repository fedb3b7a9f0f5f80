"""Seconds are never shown without what shared the machine while they were measured."""

import json
import os
import subprocess
import sys
import time

import pytest

from analysis.tables.notes import timings
from analysis.tables.sheets import seconds
from experiments.cli.run_summary import machine
from mustdrop.runs import timing
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import cpu_share, read_status, shared_machine
from mustdrop.runs.timing import KEPT, Watch, sum_timings
from mustdrop.runs.writer import RunWriter

ALONE = {
    "wall_seconds": 10.0, "cpu_seconds": 9.9, "waited_seconds": 0.1, "load_start": 0.5,
    "load_end": 1.0, "cpus": 2, "overlapped": False, "ranks": 1, "samples": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    """Notes of this test alone: other tests run beside it."""
    folder = tmp_path / "notes"
    monkeypatch.setattr(timing, "notes_folder", lambda: folder)
    return folder


def test_runs_side_by_side_see_each_other_and_runs_in_turn_do_not(notes):
    first = Watch()
    assert first.so_far(0)["overlapped"] is False
    second = Watch()
    assert first.so_far(0)["overlapped"] is second.so_far(0)["overlapped"] is True
    first.close()
    third = Watch()
    assert third.so_far(0)["overlapped"] is True  # the second is still at work
    second.close()
    third.close()
    assert all(json.loads(path.read_text())["ended"] for path in notes.glob("*.json"))
    # what ended while this one ran overlapped, what ended before did not
    assert third.so_far(0)["overlapped"] is True
    fourth = Watch()
    assert fourth.so_far(0)["overlapped"] is False
    fourth.close()


def test_a_run_of_another_process_is_seen_too_and_a_killed_one_is_gone(notes):
    code = (
        "import sys, time; from pathlib import Path; from mustdrop.runs import timing\n"
        "timing.notes_folder = lambda: Path(sys.argv[1])\n"
        "watch = timing.Watch(); print('at work', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(notes)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "at work\n"
    ours = Watch()
    assert ours.so_far(0)["overlapped"] is True
    other.kill()
    other.wait()
    time.sleep(0.01)
    later = Watch()
    ours.close()
    (killed,) = (path for path in notes.iterdir() if path.name.startswith(f"{other.pid}-"))
    assert json.loads(killed.read_text())["ended"] is None
    killed.write_text("")  # in the middle of a write
    os.utime(killed, (1, 1))
    assert later.so_far(0)["overlapped"] is True  # by the one of this process
    assert not killed.exists()  # it is older than notes are kept
    assert KEPT > 3600


def test_where_no_note_can_be_left_it_is_not_known(notes):
    notes.write_text("a file is in the way")
    watch = Watch()
    assert watch.so_far(1)["overlapped"] is None
    watch.close()


def test_a_watch_counts_the_cpu_that_its_threads_had_and_wanted():
    watch, end = Watch(ranks=2), time.process_time() + 0.05
    while time.process_time() < end:
        pass
    told = watch.so_far(7)
    watch.close()
    assert told["wall_seconds"] >= 0.04 and told["cpu_seconds"] >= 0.05
    assert (told["samples"], told["ranks"], told["cpus"] >= 1) == (7, 2, True)
    assert told["waited_seconds"] is None or told["waited_seconds"] >= 0
    json.dumps(told)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"overlapped": True}, True),
        ({"overlapped": None}, None),
        ({"ranks": 2}, True),
        ({"cpu_seconds": 8.0, "waited_seconds": 2.0}, True),
        ({"cpu_seconds": 9.0, "waited_seconds": 1.0}, False),  # the least share that is enough
        ({"overlapped": None, "cpu_seconds": 1.0, "waited_seconds": 2.0}, True),
        ({"samples": 3}, None),  # of four
        ({"samples": 5}, False),
        ({"waited_seconds": None}, False),
        ({"waited_seconds": None, "load_end": 2.5}, True),
        ({"waited_seconds": None, "load_start": 2.5}, True),
        ({"waited_seconds": None, "load_end": None}, None),
        ({"cpu_seconds": 0.0, "waited_seconds": 0.0}, False),
    ],
)
def test_a_run_that_shared_its_machine_is_known_by_its_record(changes, expected):
    assert shared_machine({"n": 4, "timing": {**ALONE, **changes}}) is expected


def test_old_records_are_not_known():
    assert shared_machine({"n": 4}) is None
    assert shared_machine({"n": 4, "timing": None}) is None
    assert cpu_share(ALONE) == 0.99


def test_two_sittings_are_one_and_what_one_does_not_know_is_not_known():
    assert sum_timings(None, ALONE) == ALONE
    both = sum_timings({**ALONE, "load_start": 0.1}, {**ALONE, "overlapped": True, "ranks": 3})
    assert (both["wall_seconds"], both["samples"], both["load_start"]) == (20.0, 8, 0.1)
    assert (both["overlapped"], both["ranks"]) == (True, 3)
    assert sum_timings({**ALONE, "waited_seconds": None}, ALONE)["waited_seconds"] is None
    assert sum_timings({**ALONE, "overlapped": None}, ALONE)["overlapped"] is None
    assert sum_timings({**ALONE, "overlapped": True}, ALONE)["overlapped"] is True


def test_a_run_notes_its_timing_and_one_that_was_killed_does_not_know_it(tmp_path):
    mark = Fingerprint({}, {})
    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path, mark, "") as ours:
        assert ours.timing() is None
        ours.expect(4)
        assert ours.timing() is None  # no sample was timed
        for doc in range(2):
            ours.add({"doc_id": doc})
        raise KeyboardInterrupt
    stopped = read_status(tmp_path)
    assert (stopped["state"], stopped["timing"]["samples"]) == ("stopped", 2)
    with RunWriter(
        tmp_path, mark, ""
    ) as ours:  # it goes on, and is killed: its status stays as it was
        ours.expect(4)
        ours.add({"doc_id": 2})
        assert ours.timing()["samples"] == 3
    (tmp_path / "status.json").write_text(json.dumps({**stopped, "state": "running"}))
    with RunWriter(tmp_path, mark, "") as ours:
        ours.expect(4)
        ours.add({"doc_id": 3})
        record = {"n": 4, "timing": ours.timing()}
        ours.finish({**record, "floor": None})
    assert record["timing"]["samples"] == 3 and shared_machine(record) is None
    with RunWriter(tmp_path, mark, "") as ours:  # nothing new: what was measured stays
        ours.expect(4)
        assert ours.timing() == read_status(tmp_path)["timing"]
        assert ours.timing()["samples"] == 3


def test_every_table_marks_seconds_and_says_what_the_marks_mean():
    def row(shared, value=0.0151):
        return {"seconds": value, "shared_machine": shared}

    assert [seconds(row(shared)) for shared in (True, None, False)] == [
        "0.0151†", "0.0151?", "0.0151",
    ]  # fmt: skip
    assert seconds(row(None, float("nan"))) == "–"
    (alone,) = timings([row(False)])
    assert alone.startswith("s per sample: no other run overlapped")
    notes = list(timings([row(True), row(None), row(False)]))
    assert [note[:2] for note in notes] == ["†:", "?:"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"overlapped": True}, " (another run used this machine: do not compare this time)"),
        ({"ranks": 2}, " (2 processes shared the work: do not compare this time)"),
        ({"cpu_seconds": 1.0, "waited_seconds": 3.0},
         " (the run got 25% of the CPU it needed: do not compare this time)"),
        ({"waited_seconds": None, "load_end": 9.0},
         " (the machine was loaded: do not compare this time)"),
        ({"samples": 0}, " (other load on the machine is unknown)"),
    ],
)  # fmt: skip
def test_the_last_line_of_a_run_says_what_shared_its_machine(changes, expected):
    assert machine({"n": 4, "timing": {**ALONE, **changes}}) == expected
