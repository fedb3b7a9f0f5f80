"""A run's key stands for all that decides its results, and a run is finished when all is there."""

import json
from copy import deepcopy

import numpy as np
import pytest

from mustdrop.runs.folder import finished, trace_path
from mustdrop.runs.key import run_key

CONFIG = {
    "experiment": "run", "output_root": "outputs", "seed": 0, "batch_size": 16, "batch_window": 2,
    "device": "auto", "threads": None, "workers": None, "force": False, "traces": 0,
    "launcher": {"name": "basic"}, "tracker": None,
    "model": {"name": "pocket", "layers": 12}, "method": {"name": "vanilla"}, "budget": None,
    "benchmark": {"name": "pocket_vqa", "limit": None, "metric": "exact_match"},
    "vision": None, "key_tokens": None, "prefill": {"keep": 3}, "decode": None, "image": None,
    "controls": None, "dropper": {"positions": "original"},
}  # fmt: skip

# where a run goes and how it is made
DECIDES_NOTHING = {
    "output_root", "force", "experiment", "launcher", "tracker", "device", "threads", "workers",
    "traces",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG)
def test_every_field_enters_the_key_but_those_that_decide_nothing(name):
    changed = deepcopy(CONFIG)
    changed[name] = {**changed[name], "more": 1} if isinstance(changed[name], dict) else "another"
    assert (run_key(changed) == run_key(CONFIG)) == (name in DECIDES_NOTHING)
    changed = deepcopy(CONFIG)
    changed["benchmark"]["limit"] = 7
    assert run_key(changed) == run_key(CONFIG)


def test_a_run_is_finished_when_its_samples_and_their_traces_are_there(tmp_path):
    assert finished(tmp_path, 4) is None
    record = {"floor": None, "n": 4, "available": 10}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert finished(tmp_path, 4) is None, "samples that are not there are work"
    (tmp_path / "samples.jsonl").write_text('{"doc_id": 0}\n' * 10)
    assert finished(tmp_path, 4) == finished(tmp_path, 3) == record
    assert finished(tmp_path, 5) is None
    assert finished(tmp_path, None) is None
    assert finished(tmp_path, 4, traces=[3]) is None
    trace_path(tmp_path, 3).parent.mkdir()
    trace_path(tmp_path, 3).touch()
    assert finished(tmp_path, 4, traces=[3]) is None, "a trace that is cut short is none"
    np.savez(trace_path(tmp_path, 3), alive=np.arange(3))
    assert finished(tmp_path, 4, traces=[3]) == record
    # samples 4 and 9 are not asked for, so that nobody lacks their traces
    assert finished(tmp_path, 4, traces=[3, 4, 9]) == record
    (tmp_path / "record.json").write_text(json.dumps({**record, "n": 10}))
    assert finished(tmp_path, None) == finished(tmp_path, 10) == finished(tmp_path, 99)
    assert finished(tmp_path, None, traces=[3, 9]) is None


def test_a_budget_out_of_reach_is_finished_at_once(tmp_path):
    record = {"floor": 54.0, "n": 0, "available": None}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert finished(tmp_path, None, traces=[0]) == record
