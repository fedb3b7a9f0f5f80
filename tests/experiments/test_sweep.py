"""A sweep is its cells: each once, failures told, nothing done twice, whatever launches it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from untimed import untimed

from experiments import run as run_module
from experiments import sweep as script
from experiments.run import main as run_main
from experiments.run import program, run, run_cell
from experiments.sweeps import launch
from experiments.sweeps.cells import SweepCell, cells_under, distinct, expand, plan
from experiments.sweeps.forecast import Forecast, spoken
from mustdrop import TokenDropper
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import read_records, read_samples
from mustdrop.runs.status import RunStatus
from mustdrop.runs.writer import RunWriter

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
# two that are scripts of their own, and one whose records are committed and checked
SLOW = ("demo", "separation", "example")
POCKET = ("model=pocket", "benchmark=pocket_vqa")


class Loader:
    """As much of Hydra's as ``glob(*)`` asks for."""

    def get_group_options(self, group, results_filter=None):
        return {"method": ["fastv", "random", "vanilla"]}[group]


def test_cells_are_the_products_of_their_entries():
    entries = [
        {"method": "vanilla", "budget": None},
        {"budget": ["t64", "t192"], "method": ["a", "b"], "prefill.layers": [[0, 2], 5]},
    ]
    cells = expand(entries, ["seed=3"], Loader())
    assert cells[0] == ("seed=3", "method=vanilla", "budget=null")
    assert cells[1] == ("seed=3", "budget=t64", "method=a", "prefill.layers=[0,2]")
    assert len(cells) == len(set(cells)) == 1 + 2 * 2 * 2


def test_the_command_line_replaces_what_the_preset_says_of_a_name():
    entries = [{"method": ["a", "b"], "budget": ["t64", "t192"]}, {"method": "c", "budget": "none"}]
    assert expand(entries, ["budget=t1"], Loader()) == [
        ("budget=t1", f"method={name}") for name in "abc"
    ]
    varied = expand(entries, ["seed=1,2", "method=glob(*,exclude=fastv)"], Loader())
    assert ("seed=2", "method=vanilla", "budget=t192") in varied
    assert len(varied) == 2 * 2 * 3
    assert expand([], ["a=1,2"], Loader()) == [("a=1",), ("a=2",)]
    with pytest.raises(ValueError, match="name the values"):
        expand([], ["a=interval(0,1)"], Loader())


def test_a_method_on_the_command_line_goes_to_the_entries_that_list_it():
    entries = [
        {"method": "vanilla", "budget": "none"},
        {"method": ["fastv", "random"], "budget": "50%"},
        {"method": "mustdrop", "budget": "50%", "vision.edges": "keep", "vision": "x"},
    ]
    assert expand(entries, ["method=random"], Loader()) == [("method=random", "budget=50%")]
    assert expand(entries, ["method=mustdrop,vanilla"], Loader()) == [
        ("method=vanilla", "budget=none"),
        ("method=mustdrop", "budget=50%", "vision.edges=keep", "vision=x"),
    ]
    # a method of the user's own: not in the place of vanilla, and without fields of another one
    assert expand(entries, ["method=tome"], Loader()) == [("method=tome", "budget=50%")]
    assert expand(entries[:1], ["method=tome"], Loader()) == [("method=tome", "budget=none")]
    assert expand([{"budget": "t9"}], ["method=tome"], Loader()) == [("method=tome", "budget=t9")]


@pytest.mark.parametrize("method", ["mustdrop", "fastv", "uniform_frames", "every_other_frame"])
def test_the_video_table_takes_a_method_with_what_it_needs(method):
    """The table prints such a command for each missing cell."""
    entries = OmegaConf.load(conf_dir() / "experiment" / "table2.yaml").hydra.sweeper.cells
    given = [f"method={method}", "model=video_llava_7b", "inputs=authors"]
    for overrides in expand(entries, given, Loader()):
        assert ("vision.edges=keep" in overrides) == (method == "mustdrop")
        thresholds = ["prefill.gamma=1e-3", "prefill.alpha=1e-2"] if method == "mustdrop" else []
        cfg = composed("experiment=table2", *overrides, *thresholds)
        assert cfg.budget == "50%" and isinstance(instantiate(cfg.dropper), TokenDropper)


MANY = ("table1", "table1_next", "table1_qwen", "smol")  # dozens or hundreds of cells


@pytest.mark.parametrize(
    ("preset", "arguments"),
    [
        pytest.param(preset, arguments, marks=[pytest.mark.slow] * (preset in MANY))
        for preset in PRESETS
        for arguments in ((), POCKET)
    ],
)
def test_every_preset_composes_into_cells_that_are_distinct(preset, arguments):
    cells = plan(preset, arguments)
    assert len({cell.folder for cell in cells if cell.folder}) == sum(
        cell.folder is not None for cell in cells
    )
    # on a model that nobody calibrated, all that may lack is a threshold
    lacking = [cell for cell in cells if cell.error]
    assert all("has no value" in cell.error for cell in lacking)
    assert all(cell.calibration or "has no split" in cell.error for cell in lacking)
    if arguments or preset in ("none", *SLOW):
        assert not lacking
    if preset != "none":
        assert {cell.config["experiment"] for cell in cells if cell.config} == {preset}


SHOWN = ("table3",)  # the other presets are slow tests


@pytest.mark.timeout(1200)  # table1 has 37 cells: more than 300 s on a busy machine
@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in SHOWN))
        for name in PRESETS
        if name != "none"
    ],
)
def test_every_preset_runs_to_its_end_on_the_embedded_model(preset, tmp_path):
    cells = plan(preset, [*POCKET, f"output_root={tmp_path}", "benchmark.limit=2", "traces=0"])
    for cell in cells:
        run(composed(*cell.overrides))
    records = read_records(tmp_path)
    assert {record["folder"] for record in records} == {str(cell.folder) for cell in cells}
    assert all(record["n"] == 2 for record in records if record["floor"] is None)
    assert all(cell.status.state in ("done", "floor") for cell in cells)


def sweeps(monkeypatch, *arguments):
    """``run.py -m`` in this process; the failures that its exit code would tell."""
    monkeypatch.setattr(launch, "failures", [])
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", *arguments])
    run_main()
    return launch.failures


FOUR = ("method=random,fastv", "budget=t128,t64", "benchmark.limit=2", "batch_size=2")


def test_a_sweep_does_what_is_unfinished_and_no_more(tmp_path, monkeypatch, capsys):
    root = f"output_root={tmp_path}"
    run(composed("method=fastv", "budget=t64", "benchmark.limit=2", "batch_size=2", root))
    assert sweeps(monkeypatch, *FOUR, root) == []
    told = capsys.readouterr()
    assert "4 cells: 1 done before, 3 to run" in told.err
    assert told.out.count("done: ") == 4  # the first by itself, then three
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert sweeps(monkeypatch, *FOUR, root) == []
    assert "4 cells: 4 done before, 0 to run" in capsys.readouterr().err
    assert times == {path: path.stat().st_mtime_ns for path in times}

    wrong = sweeps(monkeypatch, *FOUR, root, "tracker=wandb", "tracker.mode=sometimes")
    assert len(wrong) == 1 and "tracker: mode must be online" in wrong[0]
    capsys.readouterr()

    later = Fingerprint({"a.py": "0"}, {})
    for module in (run_module, launch):
        monkeypatch.setattr(module, "run_fingerprint", lambda *args, **more: later)
    assert sweeps(monkeypatch, *FOUR, root) == []
    assert (
        "(4 by other code, weights or rows; force=true measures again)" in capsys.readouterr().err
    )


def table(text):
    """The rows of the one table that ends what was printed: method and budget."""
    head = "run · pocket · pocket_vqa · n = 2"
    assert text.count(head) == 1
    lines = text.partition(head)[2].splitlines()
    return [
        tuple(line.split()[:2])
        for line in lines
        if line.split()[:1] and line.split()[0] in ("fastv", "random", "mustdrop")
    ]


def test_a_sweep_ends_in_one_table_of_its_cells_done_before_or_now(tmp_path, monkeypatch, capsys):
    root = f"output_root={tmp_path}"
    run(composed("method=mustdrop", "budget=t64", "benchmark.limit=2", root))  # not asked for
    run(composed("method=fastv", "budget=t64", "benchmark.limit=2", "batch_size=2", root))
    rows = [(name, budget) for budget in ("t128", "t64") for name in ("fastv", "random")]
    capsys.readouterr()
    assert sweeps(monkeypatch, *FOUR, root) == []
    told = capsys.readouterr().out
    assert table(told) == rows and "Δ schedule" in told and "Δ random" in told
    assert sweeps(monkeypatch, *FOUR, root) == []
    assert table(capsys.readouterr().out) == rows
    assert script.main(["table", "none", *FOUR, root]) == 0
    assert table(capsys.readouterr().out) == rows

    monkeypatch.setenv("RANK", "1")  # of several processes one speaks
    launch.tabulate(plan("none", [*FOUR, root]), Console())
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    launch.tabulate(plan("none", [*FOUR, root]), Console())
    assert table(capsys.readouterr().out) == rows


def test_a_table_that_fails_is_a_line_and_hides_no_failure(tmp_path, monkeypatch, capsys):
    asked = ("method=fastv", "budget=none,t64", "benchmark.limit=2", f"output_root={tmp_path}")
    failed = sweeps(monkeypatch, *asked, "hydra.sweeper.unready=skip")
    told = capsys.readouterr()
    assert len(failed) == 1 and table(told.out) == [("fastv", "t64")]
    (record,) = tmp_path.rglob("record.json")
    record.write_text(record.read_text()[:50])
    launch.tabulate(plan("none", asked), Console())
    assert "no table: NothingLeft: " in capsys.readouterr().out
    record.unlink()
    launch.tabulate(plan("none", asked), Console())
    assert "no table: none of these cells is done" in capsys.readouterr().out


def test_failures_of_every_kind_are_told_and_stop_nothing(tmp_path, monkeypatch, capsys):
    """One that cannot be composed, one refused before work, one that breaks inside, one busy."""
    root = f"output_root={tmp_path}"
    broken = composed("method=random", "budget=t64", "benchmark.limit=2", "batch_size=2", root)
    busy = SweepCell.of(("method=random", "budget=t128", *FOUR[2:], root), lambda o: composed(*o))
    from experiments import run as running

    built = running.built

    def breaks(cfg, config):
        if config["method"] == broken.method and config["budget"]["name"] == "t64":
            raise RuntimeError("out of something")
        return built(cfg, config)

    monkeypatch.setattr(running, "built", breaks)
    with RunWriter(busy.folder, Fingerprint({}, {}), ""):
        failed = sweeps(
            monkeypatch, *FOUR, root, "method=random,fastv,mustdrop", "budget=none,t128,t64",
            "hydra.sweeper.unready=launch",
        )  # fmt: skip
    told = capsys.readouterr().err
    assert len(failed) == 4
    assert [line for line in failed if line.startswith("random t64") and "out of something" in line]
    assert [line for line in failed if "method=mustdrop budget=none" in line and "no value" in line]
    assert len([line for line in failed if "budget=none" in line and "no budget" in line]) == 2
    assert "elsewhere: random t128" in told
    assert sorted(r["method"] + r["budget"] for r in read_records(tmp_path)) == [
        "fastvt128", "fastvt64", "mustdropt128", "mustdropt64",
    ]  # fmt: skip
    monkeypatch.setattr(running, "built", built)
    assert sweeps(monkeypatch, *FOUR, root) == []
    assert len(read_records(tmp_path)) == 6


def test_a_sweep_in_which_one_run_cannot_start_starts_none(tmp_path, monkeypatch, capsys):
    """In a process of its own, for its exit code; what may run does with skip."""
    asked = ["method=fastv,random", "budget=none", "prefill.keep=-1,3", "benchmark.limit=2"]
    asked.append(f"output_root={tmp_path}")
    command = [sys.executable, "experiments/run.py", "-m", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count(".keep must be a count of tokens, 0 or more, or a Budget, got -1") == 2
    assert "2 of 4 runs cannot start, so none was started" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
    monkeypatch.setattr(launch, "failures", [])
    arguments = ["-m", *asked, "hydra.sweeper.unready=skip"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert program(arguments) == 1  # not all of it is done
    assert [record["n"] for record in read_records(tmp_path)] == [2, 2]
    assert capsys.readouterr().err.count("keep must be a count") == 2 + 2  # first, and last


def test_a_run_refused_before_work_says_so_in_its_folder(tmp_path, capsys):
    cfg = composed("method=fastv", "+benchmark.data=/nowhere", f"output_root={tmp_path}")
    assert run_cell(cfg) == 2
    assert "error: benchmark.data: there is no folder /nowhere" in capsys.readouterr().err
    (status,) = tmp_path.rglob("status.json")
    told = json.loads(status.read_text())
    assert (told["state"], told["error"][:15]) == ("failed", "benchmark.data:")
    assert "Traceback" in told["traceback"]


def test_plan_status_and_retry_read_the_folders(tmp_path, monkeypatch, capsys):
    asked = ["none", "method=fastv,random", "budget=t64", "benchmark.limit=2", "batch_size=2"]
    asked.append(f"output_root={tmp_path}")
    assert script.main(["plan", *asked]) == 0
    assert "2 cells, 2 unfinished: no record yet for a forecast" in capsys.readouterr().out
    cells = plan(asked[0], asked[1:])
    run(composed(*cells[0].overrides))
    with pytest.raises(RuntimeError), RunWriter(cells[1].folder, Fingerprint({}, {}), "") as ours:
        ours.expect(2)
        raise RuntimeError("what happened")
    assert script.main(["plan", *asked]) == 0
    assert re.search(r"2 cells, 1 unfinished: \d+ s on one process", capsys.readouterr().out)
    assert script.main(["status", *asked]) == 1
    told = capsys.readouterr().out
    assert "1 done · 1 failed" in told and "RuntimeError: what happened" in told
    assert script.main(["retry", *asked]) == 0
    assert "1 of 2 cells again" in capsys.readouterr().out
    assert script.main(["status", str(tmp_path)]) == 0
    assert "2 done" in capsys.readouterr().out
    assert {cell.folder for cell in cells_under(tmp_path)} == {cell.folder for cell in cells}
    assert script.main(["retry", *asked]) == 0
    assert "0 of 2 cells again" in capsys.readouterr().out


def test_overrides_may_stand_behind_an_option(capsys):
    options = script.parsed(["complete", "demo", "a=1", "--probe", "4", "b=2", "--slurm", "c=3"])
    assert (options.overrides, options.probe, options.slurm) == (["a=1", "b=2", "c=3"], 4, True)
    for wrong in (
        ["complete", "demo", "--prob=4", "--fast", "b=2"],
        ["chain", "run", "--x", "b=2"],
    ):
        with pytest.raises(SystemExit):
            script.parsed(wrong)
    assert "unrecognized arguments: --fast b=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "table9"], "experiment must be one of"),
        (["status", "demo", "methd=fastv"], "no field methd; did you mean method?"),
        (["plan", "demo", "method=nothing"], "no method 'nothing'; there are"),
    ],
)
def test_bad_input_is_told_and_exit_code_2(arguments, told, capsys):
    assert script.main(arguments) == 2
    assert told in capsys.readouterr().err


def test_a_forecast_goes_by_the_most_alike():
    cell = plan("none", ["method=fastv", "budget=t64", "benchmark.limit=100"])[0]
    alike = {
        ("pocket", "pocket_vqa", "fastv", "t64"): 0.5, ("pocket", "fastv", "t64"): 1.0,
        ("pocket", "fastv"): 2.0, ("pocket",): 4.0,
    }  # fmt: skip
    now = RunStatus("stale", 20, 100)
    for known in list(alike):
        assert Forecast(dict(alike)).left(cell, now) == 80 * alike.pop(known)
    assert Forecast({}).left(cell, now) is None
    assert [spoken(s) for s in (None, 40.2, 720, 12600)] == ["?", "40 s", "12 min", "3.5 h"]


def test_vanilla_is_one_cell_and_what_has_no_config_is_kept():
    cells = plan("none", ["method=vanilla,fastv", "budget=t64,t192"])
    assert [cell.name for cell in cells] == [
        "vanilla none pocket_vqa", "fastv t64 pocket_vqa", "fastv t192 pocket_vqa",
    ]  # fmt: skip
    wrong = SweepCell(("a=1",), None, None, "no such a")
    assert distinct([wrong, *cells, wrong]) == [wrong, *cells]
    assert wrong.status == RunStatus("unready", error="no such a")


TWELVE = ("method=random,fastv,text_topk,uniform_grid", "budget=t192,t128,t64", "batch_size=4")


def sweep_process(root, *more):
    command = [sys.executable, "experiments/run.py", "-m", *TWELVE, f"output_root={root}", *more]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def answers(root):
    """All that must not depend on how a cell was run."""
    return {
        folder.relative_to(root).as_posix(): [untimed(line) for line in read_samples(folder)]
        for folder in sorted({path.parent for path in Path(root).rglob("samples.jsonl")})
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_moments_a_sweep_loses_nothing_and_doubles_nothing(tmp_path):
    import random

    whole = sweep_process(tmp_path / "whole", "benchmark.limit=80", "threads=1")
    assert whole.wait() == 0, whole.stderr.read()
    draw, kills = random.Random(7), 0
    while kills < 20:
        process = sweep_process(tmp_path / "killed", "benchmark.limit=80", "threads=1")
        try:
            # start-up is most of a process's life here: wait for its first sign of work, or its end
            before = sum(map(len, answers(tmp_path / "killed").values())) if kills else 0
            while process.poll() is None:
                now = answers(tmp_path / "killed") if (tmp_path / "killed").exists() else {}
                if sum(map(len, now.values())) > before:
                    break
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.4))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
    last = sweep_process(tmp_path / "killed", "benchmark.limit=80", "threads=1")
    assert last.wait() == 0, last.stderr.read()
    assert kills == 20
    assert answers(tmp_path / "killed") == answers(tmp_path / "whole")
    records = read_records(tmp_path / "killed")
    assert [record["n"] for record in records] == [80] * 12
    for record in records:
        docs = [line["doc_id"] for line in read_samples(Path(record["folder"]))]
        assert docs == list(range(80))
        json.dumps(record)


@pytest.mark.slow
def test_two_processes_side_by_side_give_what_one_gives(tmp_path):
    one = sweep_process(tmp_path / "one", "benchmark.limit=6", "threads=1")
    assert one.wait() == 0, one.stderr.read()
    two = sweep_process(tmp_path / "two", "benchmark.limit=6", "threads=1", "launcher=joblib")
    assert two.wait() == 0, two.stderr.read()
    first, second = answers(tmp_path / "one"), answers(tmp_path / "two")
    assert len(first) == 12 and first == second


def test_the_status_of_many_cells_fits_a_page(tmp_path):
    console = Console(width=120, record=True)
    script.show_status(plan("demo", [f"output_root={tmp_path}"]), console, once=True)
    lines = console.export_text().splitlines()
    assert len(lines) == 25 + 1 + 1
    assert lines[-1] == "25 pending · 0 samples of 8000"
