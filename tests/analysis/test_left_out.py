"""A torn file of a run costs its own run or sample, and is named: never a whole table or page."""

import json
import re
import shutil
import warnings

import numpy as np
import pytest
from results import write, write_three
from small_traces import write_traced

from analysis.claims.__main__ import main as claims
from analysis.claims.compare import main as compare
from analysis.figures import __main__ as figures_command
from analysis.figures import pareto as front
from analysis.figures.__main__ import main as figures
from analysis.figures.traced import traced
from analysis.figures.tradeoff import tradeoff
from analysis.records.cells import load
from analysis.records.left_out import LeftOut, in_words
from analysis.report.__main__ import main as report
from analysis.report.page_data import gather
from analysis.tables import summary
from analysis.tables.__main__ import main


@pytest.fixture
def root(tmp_path):
    return write_three(tmp_path)


def break_samples(folder):
    lines = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(lines[:-20])


def break_record(folder):
    (folder / "record.json").write_text((folder / "record.json").read_text()[:50])


def change(name, value):
    def spoil(folder):
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps({**record, name: value}))

    return spoil


def say_twice(folder):
    lines = (folder / "samples.jsonl").read_text().splitlines()
    (folder / "samples.jsonl").write_text("\n".join([*lines[:-1], lines[0]]) + "\n")


def ask_another(folder):
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(text.replace('"target": "t7"', '"target": "other"'))


def line_7(change):
    """Something else in line 7 of the samples."""

    def spoil(folder):
        lines = (folder / "samples.jsonl").read_text().split("\n")
        lines[6] = change(json.loads(lines[6]))
        (folder / "samples.jsonl").write_text("\n".join(lines))

    return spoil


def without(name):
    return line_7(lambda line: json.dumps({k: v for k, v in line.items() if k != name}))


def lacking(name):
    def spoil(folder):
        record = json.loads((folder / "record.json").read_text())
        del record[name]
        (folder / "record.json").write_text(json.dumps(record))

    return spoil


def scored(value):
    return line_7(lambda line: json.dumps({**line, "scores": {"exact_match": value}}))


SPOILT = [
    (line_7(lambda line: json.dumps(line)[:30]), "samples.jsonl, line 7: "),
    (line_7(lambda line: ""), "samples.jsonl, line 7: "),
    (line_7(lambda line: "[1, 2]"), "samples.jsonl, line 7: "),
    (line_7(lambda line: "\x00" * 40), "samples.jsonl, line 7: "),
    (without("scores"), "line 7: the sample is incomplete .*scores"),
    (without("target"), "line 7: the sample is incomplete .*target"),
    (without("vision_tokens"), "line 7: the sample is incomplete .*vision_tokens"),
    (line_7(lambda line: json.dumps({**line, "vision_tokens": None})), "line 7: .*vision_tokens"),
    (line_7(lambda line: json.dumps({**line, "vision_tokens": []})), "line 7: .*vision_tokens"),
    (line_7(lambda line: json.dumps({**line, "controls": {"flat_grid": [1]}})), "line 7: "),
    (scored(float("nan")), "line 7: the score is nan"),
    (scored(float("inf")), "line 7: the score is inf"),
    (scored("1"), "line 7: .*score must be a number, got '1'"),
    (scored(None), "line 7: .*score must be a number, got None"),
    (lambda folder: (folder / "samples.jsonl").write_bytes(b"\xff\xfe\n"), "samples.jsonl, line 1"),
    (lambda folder: (folder / "record.json").write_text(""), "record.json: "),
    (lambda folder: (folder / "record.json").write_text("{}"), "record.json: .*schema 1, got None"),
    (lambda folder: (folder / "record.json").write_text("[]"), "record.json: "),
    (lambda folder: (folder / "record.json").write_text("null"), "record.json: "),
    (lacking("counts"), "record.json: the record lacks counts"),
    (lacking("config"), "record.json: the record lacks config"),
    (change("counts", None), "record.json: the record lacks counts: nominal"),
    (change("config", None), "record.json: .*config a mapping"),
    (change("n", "40"), "record.json: .*n must be a count"),
]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_samples, "the record says 40 samples, the file has 39"),
        (
            lambda folder: (folder / "samples.jsonl").unlink(),
            "the record says 40 samples, the file has 0",
        ),
        (break_record, "torn"),
        (change("schema", 0), "expected a record of schema 1, got 0"),
        (change("metric", "anls"), r"line 1: .* no score 'anls', it has \['exact_match'\]"),
        (say_twice, "line 40: sample 0 of vqa occurs twice"),
        *SPOILT,
    ],
)
def test_a_torn_run_costs_its_own_row_and_is_named(root, capsys, spoil, message):
    folder = next(root.rglob("mustdrop/**/record.json")).parent
    spoil(folder)
    with pytest.warns(LeftOut, match=message) as warned:
        frame = summary(root)
    assert set(frame["method"]) == {"vanilla", "random"} and len(warned) == 1
    assert str(folder) in str(warned[0].message)
    assert main(["summary", "--runs", str(root)]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("left out: ") and told.err.count("\n") == 1
    assert str(folder) in told.err and "vanilla" in told.out
    for method in ("vanilla", "random"):
        shutil.rmtree(root / "e" / "pocket" / method)
    with pytest.raises(ValueError, match="no run can be read, all are torn"):
        summary(root)
    assert main(["summary", "--runs", str(root)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and re.search(message, told) and str(folder) in told


def test_runs_that_were_asked_other_questions_are_one_clear_message(root, capsys):
    ask_another(next(root.rglob("mustdrop/**/record.json")).parent)
    with pytest.raises(ValueError, match="disagree about the target of sample 7"):
        summary(root)
    assert main(["summary", "--runs", str(root)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_score_that_nobody_has_is_refused_not_left_out(root, capsys):
    with pytest.raises(ValueError, match=r"sample 0 has no score 'anls', it has \['exact_match'\]"):
        summary(root, "anls")
    assert main(["summary", "--runs", str(root), "--metric", "anls"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_score_that_some_runs_lack_is_refused_too(root, capsys):
    folder = next(root.rglob("mustdrop/**/record.json")).parent
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(
        text.replace('{"exact_match"', '{"anls": 1.0, "exact_match"')
    )
    assert len(summary(root)) == 3
    assert main(["summary", "--runs", str(root), "--metric", "anls"]) == 1
    assert "has no score 'anls'" in capsys.readouterr().err


def test_a_folder_of_torn_runs_stops_no_table_of_others(root, tmp_path, capsys):
    torn = tmp_path / "torn"
    break_record(write(torn, "fastv"))
    assert main(["summary", "--runs", str(torn), str(root / "e")]) == 0
    told = capsys.readouterr()
    assert "mustdrop" in told.out and told.err.count("\n") == 1 and "record.json" in told.err
    assert main(["summary", "--runs", str(torn)]) == 1


def test_what_the_analysis_does_not_read_may_be_torn(root, capsys):
    folder = next(root.rglob("mustdrop/**/record.json")).parent
    (folder / "status.json").write_text('{"state": "do')
    (folder / "config.yaml").write_text("a: [")
    assert main(["summary", "--runs", str(root)]) == 0
    assert not capsys.readouterr().err


def half_a_line(folder):
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(text.replace('"doc_id": 7', '"doc_i', 1))


def test_every_command_goes_on_without_a_torn_run_and_names_its_line(root, tmp_path, capsys):
    write(root, "fastv", "t64", 64.0)
    half_a_line(next(root.rglob("fastv/**/record.json")).parent)
    out = str(tmp_path / "out")
    runs = ["--runs", str(root)]
    for command, arguments in (
        (main, ["summary", *runs]),
        (main, ["types", "--format", "md", *runs]),
        (main, ["table1", *runs]),
        (claims, runs),
        (figures, ["layers", *runs, "--out", out]),
        (report, [str(root), "--out", f"{out}.html"]),
    ):
        assert command(arguments) == 0, arguments
        told = capsys.readouterr().err
        named = [line for line in told.splitlines() if line.startswith("left out: ")]
        assert len(named) == 1 and "samples.jsonl, line 8: " in named[0], arguments
    with pytest.warns(LeftOut, match="line 8"):
        assert {cell["method"] for cell in load(root)} == {"vanilla", "random", "mustdrop"}
    with pytest.warns(LeftOut, match="line 8"):
        tradeoff(root, tmp_path / "tradeoff.svg")


def test_the_front_leaves_out_a_torn_trial(tmp_path):
    for number in range(3):
        write(tmp_path, "mustdrop", "none", 100.0 + number, key=f"s{number}",
              config={"prefill": {"gamma": number}})  # fmt: skip
    half_a_line(next(tmp_path.rglob("*-s1/record.json")).parent)
    with pytest.warns(LeftOut, match=r"s1/samples.jsonl, line 8"):
        assert len(front.read(tmp_path, "vqa", "mustdrop").trials) == 2


def test_two_runs_are_compared_only_if_both_can_be_read(root, capsys):
    good, torn = (
        next(root.rglob(f"{name}/**/record.json")).parent for name in ("random", "mustdrop")
    )
    assert compare([str(good), str(torn)]) == 0
    half_a_line(torn)
    capsys.readouterr()
    assert compare([str(good), str(torn)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "samples.jsonl, line 8: " in told


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def lack_an_array(path):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "protected"}
    np.savez_compressed(path, **arrays)


def blank(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, lack_an_array, blank])
def test_a_torn_trace_costs_one_sample(tmp_path, spoil):
    root = write_traced(tmp_path / "runs")
    path = next(root.rglob("mustdrop/**/traces/1.npz"))
    cell = next(cell for cell in load(root) if cell["method"] == "mustdrop")
    whole = [one.doc_id for one in traced(cell)]
    spoil(path)
    with pytest.warns(LeftOut, match=re.escape(str(path))):
        assert [one.doc_id for one in traced(cell)] == [doc for doc in whole if doc != 1]
    with pytest.warns(LeftOut, match=re.escape(str(path))):
        gathered = gather(root)
    arm = next(arm for arm in gathered.content["arms"] if arm["name"].startswith("mustdrop"))
    assert len(arm["traces"]) == len(whole) - 1 and gathered.traces.torn == 1
    told = dict(gathered.content["about"])["Traced"]
    assert "1 left out, because their files are torn" in told


def test_figures_and_page_are_made_without_a_torn_trace(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures_command, "save", lambda figure, path: path)
    root = write_traced(tmp_path / "runs")
    path = next(root.rglob("mustdrop/**/traces/1.npz"))
    cut(path)
    assert figures(["survival", "stages", "--runs", str(root), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "survival_t192.png" in told.out and "stages_mustdrop_t192_" in told.out
    assert told.err.count("left out: ") == 1 and str(path) in told.err
    assert report([str(root), "--out", str(tmp_path / "a.html")]) == 0
    told = capsys.readouterr().err
    assert told.count("left out: ") == 1 and str(path) in told


def test_a_picture_that_is_none_costs_one_trace_of_the_page(tmp_path, capsys):
    root = write_traced(tmp_path / "runs")
    path = next(root.rglob("mustdrop/**/traces/1.npz"))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["picture/0"] = np.frombuffer(b"no picture" * 700, np.uint8)
    np.savez_compressed(path, **arrays)
    assert report([str(root), "--out", str(tmp_path / "a.html")]) == 0
    told = capsys.readouterr()
    assert told.err.count("left out: ") == 1 and f"{path} cannot be shown" in told.err


def test_other_warnings_stay_as_they_are(recwarn):
    with in_words():
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(each.message) for each in recwarn] == ["something else"]
