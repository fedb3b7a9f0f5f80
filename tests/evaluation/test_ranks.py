"""Several processes on one cell: what one process would have written, whatever is killed between.

Most of it with ranks that take their turns in this process; at the end with torchrun itself.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import HashStore
from untimed import untimed

from experiments import run as script
from experiments.run import run
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.ranks import SINGLE, RankGroup, next_rank_group, without_launcher
from mustdrop.presets.compose import composed, resolved
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.folder import read_samples, run_folder, trace_path
from mustdrop.runs.shards import shards_folder

ROOT = Path(__file__).parents[2]
ARM = ("method=fastv", "budget=t128", "batch_size=1")
FEW = 5
TIMED = ("started", "finished", "config", "hardware", "timing")


def config(root, *more):
    return composed(f"output_root={root}", *ARM, f"benchmark.limit={FEW}", *more)


def folder_of(cfg):
    return run_folder(resolved(cfg))


def parts_of(cfg):
    return shards_folder(folder_of(cfg), run_fingerprint(resolved(cfg)).id)


def told(folder):
    """Samples and record of a run, but for times and places."""
    record = json.loads((folder / "record.json").read_text())
    samples = read_samples(folder)
    return [
        {key: value for key, value in untimed(one).items() if key not in TIMED}
        for one in [*samples, record]
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By one process."""
    cfg = config(tmp_path_factory.mktemp("whole"))
    run(cfg)
    return told(folder_of(cfg))


@pytest.fixture
def asked(monkeypatch):
    """The documents that the model was asked, in order; ``asked.stop`` ends the process there."""
    ask, seen = DroppedVLM._ask, Asked()

    def spied(adapter, batch):
        for request in batch.requests:
            if request.doc_id == seen.stop:
                raise MemoryError("out of memory, say")
            seen.append(request.doc_id)
        return ask(adapter, batch)

    monkeypatch.setattr(DroppedVLM, "_ask", spied)
    return seen


class Asked(list):
    stop = None


def ranks(cfg, world, monkeypatch):
    """A cell by ``world`` ranks, the first one last: it waits for the others."""
    store = HashStore()
    turns = [RankGroup("cell", rank, world, store) for rank in range(world)]
    for turn in turns[1:]:
        with turn.publishing(f"share {turn.rank}"):
            cell = script.built(cfg, resolved(cfg))
            cell.share(folder_of(cfg), run_fingerprint(resolved(cfg)).id, turn)
    monkeypatch.setattr(script, "next_rank_group", lambda name: turns[0])
    return run(cfg)


@pytest.mark.parametrize("world", [2, 6])
def test_ranks_write_what_one_process_writes(world, whole, tmp_path, monkeypatch, asked):
    """Bit for bit; five documents divide by neither, and of six ranks one has none."""
    cfg = config(tmp_path)
    ranks(cfg, world, monkeypatch)
    assert told(folder_of(cfg)) == whole
    assert sorted(asked) == list(range(FEW)), "each document once, and none as padding"
    assert not parts_of(cfg).exists()


@pytest.mark.parametrize("world", [1, 3])
def test_what_a_lost_rank_had_answered_is_not_asked_again(
    world, whole, tmp_path, monkeypatch, asked
):
    cfg, asked.stop = config(tmp_path), 3
    with pytest.raises(MemoryError):
        ranks(cfg, 2, monkeypatch)
    assert asked == [1]
    torn = parts_of(cfg) / "1.jsonl"
    with torn.open("a") as lines:
        lines.write('{"doc_id": 3, "answ')
    assert not read_samples(folder_of(cfg))
    asked.stop = None
    ranks(cfg, world, monkeypatch)
    assert sorted(asked) == list(range(FEW))
    assert told(folder_of(cfg)) == whole
    assert not parts_of(cfg).exists()


def test_the_first_rank_hears_of_anothers_error_and_scores_nothing(tmp_path, monkeypatch):
    store = HashStore()
    with pytest.raises(MemoryError), RankGroup("cell", 1, 2, store).publishing("share 1"):
        raise MemoryError("out of memory, say")
    monkeypatch.setattr(script, "next_rank_group", lambda name: RankGroup("cell", 0, 2, store))
    cfg = config(tmp_path)
    with pytest.raises(RuntimeError, match="rank 1: MemoryError: out of memory, say"):
        run(cfg)
    assert not (folder_of(cfg) / "record.json").exists()
    assert RankGroup("cell", 1, 2, store).wait_for("end")[1].startswith("RuntimeError: rank 1")
    assert parts_of(cfg).exists(), "the first rank's own answers are kept"


def test_another_rank_follows_the_first_to_its_record_or_its_end(tmp_path, monkeypatch):
    cfg, store = config(tmp_path), HashStore()
    run(cfg)
    monkeypatch.setattr(script, "next_rank_group", lambda name: RankGroup("cell", 1, 2, store))
    RankGroup("cell", 0, 2, store).publish("end")  # done before: nobody was told to start
    assert run(cfg)["n"] == FEW
    RankGroup("cell", 0, 2, store).publish("end", "ValueError: no such thing")
    with pytest.raises(ValueError, match="rank 0 ended without a record: ValueError: no such"):
        run(cfg)


def test_a_shorter_run_takes_its_own_and_leaves_the_rest_for_a_longer_one(
    whole, tmp_path, monkeypatch, asked
):
    cfg, asked.stop = config(tmp_path), 0
    with pytest.raises(MemoryError):  # rank 1 is done, rank 0 has nothing
        ranks(cfg, 2, monkeypatch)
    asked.stop = None
    assert ranks(config(tmp_path, "benchmark.limit=2"), 1, monkeypatch)["n"] == 2
    assert [line["doc_id"] for line in read_samples(folder_of(cfg))] == [0, 1]
    assert ranks(cfg, 2, monkeypatch)["n"] == FEW
    assert sorted(asked) == list(range(FEW))
    assert [{**one, "limit": 0} for one in told(folder_of(cfg))[:-1]] == [
        {**one, "limit": 0} for one in whole[:-1]
    ]


def test_answers_of_other_code_are_not_taken(whole, tmp_path, monkeypatch, asked):
    cfg = config(tmp_path)
    other = shards_folder(folder_of(cfg), "0123456789abcdef")
    other.mkdir(parents=True)
    lines = [json.dumps({**line, "answer": "nonsense"}) + "\n" for line in whole[:FEW]]
    (other / "1.jsonl").write_text("".join(lines))
    ranks(cfg, 2, monkeypatch)
    assert sorted(asked) == list(range(FEW))
    assert told(folder_of(cfg)) == whole
    assert other.exists()


def test_force_sets_parts_aside(whole, tmp_path, monkeypatch, asked):
    cfg, asked.stop = config(tmp_path), 3
    with pytest.raises(MemoryError):
        ranks(cfg, 2, monkeypatch)
    asked.stop = None
    asked.clear()
    run(config(tmp_path, "force=true"))
    assert asked == list(range(FEW))
    assert not parts_of(cfg).exists()
    assert parts_of(cfg).with_name(f"{parts_of(cfg).name}.1").exists()


def test_each_rank_keeps_the_ledgers_of_its_documents(tmp_path, monkeypatch, asked):
    cfg = config(tmp_path, "traces=3")
    ranks(cfg, 2, monkeypatch)
    assert sorted(asked) == list(range(FEW))
    assert [trace_path(folder_of(cfg), doc).exists() for doc in range(4)] == [True] * 3 + [False]


def test_one_process_has_no_launcher_and_lmms_eval_sees_none(monkeypatch):
    assert next_rank_group("cell") is SINGLE
    assert SINGLE.wait_for("anything") == ("anything", "ok")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    with without_launcher():
        assert "RANK" not in os.environ and next_rank_group("cell") is SINGLE
    assert os.environ["RANK"] == "3"


def torchrun(world, *command, **more):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [*launch, f"--nproc_per_node={world}", *map(str, command)],
        cwd=ROOT, env=environment, text=True, **more,
    )  # fmt: skip


@pytest.mark.slow
def test_torchrun_writes_what_one_process_writes(whole, tmp_path):
    cfg = config(tmp_path)
    told_by = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ("experiments/run.py", f"output_root={tmp_path}", *ARM, f"benchmark.limit={FEW}")
    process = torchrun(2, *command, **told_by)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert told(folder_of(cfg)) == whole
    assert out.count("done: pocket x pocket_vqa") == 1, "one rank tells"


@pytest.mark.slow
@pytest.mark.parametrize("later", [1, 3])
def test_a_rank_killed_outright_costs_no_sample(later, whole, tmp_path):
    """kill -9 of one of two, held up at its second document; then another number of ranks."""
    (tmp_path / "sitecustomize.py").write_text(HELD)
    command = ("experiments/run.py", f"output_root={tmp_path}", *ARM, f"benchmark.limit={FEW}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        process = torchrun(2, *command, stderr=subprocess.DEVNULL)
    cfg = config(tmp_path)
    part, deadline = parts_of(cfg) / "1.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (
        part.exists() and part.read_text().count("\n") == 1 and (tmp_path / "pid").exists()
    ):
        time.sleep(0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert process.wait(timeout=100) != 0
    assert not (folder_of(cfg) / "record.json").exists()
    kept = part.read_text()
    assert kept.count("\n") == 1
    process = torchrun(later, *command, stderr=subprocess.DEVNULL)
    assert process.wait(timeout=200) == 0
    samples = read_samples(folder_of(cfg))
    assert [line["doc_id"] for line in samples] == list(range(FEW))
    lines = [json.loads(line) for line in kept.splitlines()]
    assert lines == [samples[1]], "this was not asked again: its seconds are those of then"
    answers = [(line["answer"], line["scores"], line["counts"]) for line in samples]
    assert answers == [(line["answer"], line["scores"], line["counts"]) for line in whole[:FEW]]


HELD = """
import json, os, pathlib, time
dumps = json.dumps
def held(value, *args, **kwargs):
    if os.environ.get("RANK") == "1" and isinstance(value, dict) and value.get("doc_id") == 3:
        (pathlib.Path(__file__).parent / "pid").write_text(str(os.getpid()))
        time.sleep(600)
    return dumps(value, *args, **kwargs)
json.dumps = held
"""
