"""A run whose files are torn is mended where nothing is guessed, else refused by file and line."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from untimed import untimed

from experiments.run import run, run_cell
from experiments.sweeps import launch
from experiments.sweeps.cells import SweepCell, cells_under
from experiments.sweeps.forecast import Forecast
from experiments.sweeps.ready import unready
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import (
    TornFile,
    finished,
    has_trace,
    read_record,
    read_records,
    read_samples,
    read_status,
    run_folder,
    trace_path,
    whole_lines,
)
from mustdrop.runs.repair import code_of, cut_torn_line, damage, read_config
from mustdrop.runs.shards import read_shards
from mustdrop.runs.status import run_status
from mustdrop.runs.writer import RunWriter, note_failure

ROOT = Path(__file__).parents[2]
MARK = Fingerprint({}, {})
TINY = ("method=fastv", "budget=t64", "benchmark.limit=3", "batch_size=3", "controls=none")
LINES = b'{"doc_id": 0, "a": 1}\n{"doc_id": 1, "a": 2}\n{"doc_id": 2, "a": 3}\n'


def config(root, *overrides):
    return composed(*TINY, f"output_root={root}", *overrides)


def folder_of(cfg):
    return run_folder(resolved(cfg))


def answers(folder):
    return [(line["doc_id"], line["answer"], line["scores"]) for line in read_samples(folder)]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    cfg = config(tmp_path_factory.mktemp("outputs"), "traces=[1]")
    return run(cfg), folder_of(cfg)


@pytest.fixture
def done(finished_run, tmp_path):
    """A copy of a finished run, the command that made it, and its record."""
    record, folder = finished_run
    cfg = config(tmp_path, "traces=[1]")
    shutil.copytree(folder, folder_of(cfg))
    return cfg, folder_of(cfg), record


def same(first, second):
    """Whether two records tell the same, but for when and how long."""
    left_out = ("finished", "timing", "started", "config")
    return all(first[name] == second[name] for name in untimed(first) if name not in left_out)


@pytest.mark.parametrize(
    ("spoilt", "line"),
    [
        (LINES.replace(b'"a": 2}', b'"a": '), 2),
        (LINES.replace(b'{"doc_id": 1', b"\x00\x00\x00\x00"), 2),
        (b"garbage\n" + LINES, 1),
        (LINES.replace(b'{"doc_id": 1, "a": 2}', b"[1, 2]"), 2),
        (LINES.replace(b'"doc_id": 1', b'"doc": 1'), 2),
        (LINES.replace(b'"a": 2', b'"a": "\xff"'), 2),
        (LINES.replace(b"\n", b"", 1), 1),
    ],
)
def test_a_broken_sample_is_named_by_file_and_line(tmp_path, spoilt, line):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(spoilt)
    with pytest.raises(TornFile, match="torn: not a sample") as error:
        read_samples(tmp_path)
    assert (error.value.path, error.value.line) == (path, line)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert [each.path for each in damage(tmp_path)] == [path]
    # the same in the files of several processes
    (tmp_path / "parts").mkdir()
    path.rename(tmp_path / "parts" / "0.jsonl")
    with pytest.raises(TornFile, match=f"0.jsonl, line {line}: "):
        read_shards(tmp_path / "parts")


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        (LINES, None), (b"", None), (LINES + b'{"doc_id": 3, "a', len(LINES)), (b'{"do', 0),
        (LINES[:-4] + b"\n", LINES.rindex(b"{")), (LINES + b"\n", len(LINES)), (b"x\n", 0),
        # a broken line in the middle is nobody's to cut
        (LINES[:30] + b"\n" + LINES, None),
    ],
)  # fmt: skip
def test_what_a_kill_left_behind_the_last_sample_is_cut_and_no_more(tmp_path, text, stays):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(text)
    assert cut_torn_line(tmp_path) == stays
    assert path.read_bytes() == (text if stays is None else text[:stays])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (LINES, 3), (b"", 0), (LINES + b'{"doc_id": 3, "a', 3), (LINES[:-4] + b"\n", 0),
        (LINES + b"\n", 0), (LINES.replace(b"\n", b"", 1), 2), (LINES.replace(b"{", b"", 1), 0),
    ],
)  # fmt: skip
def test_a_glance_at_samples_counts_whole_ones(tmp_path, text, lines):
    path = tmp_path / "samples.jsonl"
    assert whole_lines(path) == 0
    path.write_bytes(text)
    assert whole_lines(path) == lines


def test_a_torn_file_names_itself_and_stops_no_other(tmp_path):
    for name, read in (("record.json", read_record), ("status.json", read_status)):
        for text in (b'{"n": 1, "a', b"[]", b"", b"\xff\xfe"):
            (tmp_path / name).write_bytes(text)
            with pytest.raises(TornFile, match=f"{name}: torn"):
                read(tmp_path)
        assert finished(tmp_path, None) is None
    assert run_status(tmp_path, 3).state == "failed"
    assert "status.json: torn" in run_status(tmp_path, 3).error
    with pytest.raises(TornFile, match=r"record\.json: torn"):
        read_records(tmp_path)
    assert Forecast.of(tmp_path).seconds == {}
    (tmp_path / "config.yaml").write_text("benchmark: {name: a}\nmodel: {name: [b\n")
    with pytest.raises(TornFile, match=r"config\.yaml, line \d: torn: not valid YAML"):
        read_config(tmp_path)
    assert {each.path.name for each in damage(tmp_path)} == {
        "record.json", "status.json", "config.yaml",
    }  # fmt: skip
    (cell,) = cells_under(tmp_path)
    assert cell.config is None and "config.yaml, line" in cell.error
    for text in ("ben", "model: {name: a}\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(TornFile, match="torn: it has no benchmark"):
            read_config(tmp_path)


def test_a_torn_status_is_vouched_for_by_the_record_or_refused(tmp_path):
    (tmp_path / "status.json").write_text("{")
    assert code_of(tmp_path) == {}
    note_failure(tmp_path, ValueError("why"), "why")
    assert read_status(tmp_path)["error"] == "why"
    (tmp_path / "status.json").write_text("{")
    (tmp_path / "samples.jsonl").write_bytes(LINES)
    for record in (None, "{"):
        if record:
            (tmp_path / "record.json").write_text(record)
        with pytest.raises(TornFile, match=r"status\.json: torn"):
            RunWriter(tmp_path, MARK, "")
    known = {"fingerprint": MARK.id, "started": "then", "timing": None}
    (tmp_path / "record.json").write_text(json.dumps(known))
    with RunWriter(tmp_path, MARK, "") as ours:
        assert (len(ours.samples), ours.started) == (3, "then")
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(ValueError, match="3 samples of other code"):
        RunWriter(tmp_path, Fingerprint({"a.py": "0"}, {}), "")


def test_a_finished_run_is_answered_again_where_its_last_line_is_torn(done, capsys):
    cfg, folder, record = done
    before = answers(folder)
    samples = folder / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-40])
    (folder / "record.json").write_text((folder / "record.json").read_text()[:77])
    assert run_cell(cfg) == 0
    told = capsys.readouterr()
    assert f"damaged: {folder / 'record.json'}: torn" in told.err and "\ndone: " in f"\n{told.out}"
    assert answers(folder) == before
    assert same(record, read_record(folder))
    assert "cut a torn line" in (folder / "run.log").read_text()
    assert run_cell(cfg) == 0 and "done before" in capsys.readouterr().out


def test_a_finished_run_makes_anew_whatever_follows_from_its_samples(done, capsys):
    cfg, folder, record = done
    before = (folder / "samples.jsonl").read_bytes()
    trace = trace_path(folder, 1)
    trace.write_bytes(trace.read_bytes()[:-100])
    assert not has_trace(folder, 1)
    (folder / "status.json").write_text("{")
    (folder / "config.yaml").write_text("a: [")
    assert run_cell(cfg) == 0
    told = capsys.readouterr().err
    assert [name in told for name in ("status.json", "config.yaml", "1.npz")] == [True] * 3
    assert has_trace(folder, 1) and not damage(folder, [1])
    assert (folder / "samples.jsonl").read_bytes() == before
    assert same(record, read_record(folder))


def test_a_broken_line_in_the_middle_of_a_finished_run_is_refused_with_the_way_out(
    done, capsys, monkeypatch
):
    cfg, folder, _ = done
    samples = folder / "samples.jsonl"
    spoilt = samples.read_bytes().replace(b'\n{"doc_id": 1,', b'\n{"doc_id": 1', 1)
    samples.write_bytes(spoilt)
    assert run_cell(cfg) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"error: {samples}, line 2: torn: not a sample")
    assert told.endswith("the same command force=true starts again and keeps the old files aside")
    assert samples.read_bytes() == spoilt
    # a sweep refuses it before it starts, and calls it done by no means
    overrides = (*TINY, f"output_root={cfg.output_root}", "traces=[1]")
    cell = SweepCell.of(overrides, lambda chosen: composed(*chosen))
    assert cell.folder == folder and cell.unfinished
    told = {cell: f"{samples}, line 2: torn" in reason for cell, reason in unready([cell]).items()}
    assert told == {cell: True}
    monkeypatch.setattr(launch, "failures", [])
    for left_out, tried in (({cell: "why"}, []), ({}, [cell])):
        launch.account([cell], Console(), left_out, tried)
    assert len(launch.failures) == 2
    forced = SweepCell.of((*overrides, "force=true"), lambda chosen: composed(*chosen))
    assert not unready([forced])
