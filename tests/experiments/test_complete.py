"""A whole experiment from one command: thresholds, runs, tables, claims and the page."""

from pathlib import Path

import pytest
from rich.console import Console

from experiments import sweep as script
from experiments.checks.remedies import NeedsCalibration
from experiments.checks.run_checks import checked
from experiments.checks.thresholds import borrowed, differing
from experiments.sweep import command_line
from experiments.sweeps import complete as module
from experiments.sweeps.calibrating import calibration_settings, calibrations
from experiments.sweeps.cells import SweepCell, plan
from experiments.sweeps.complete import analyses, complete
from mustdrop.presets import tuned
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import run_folder

GIVEN = ("method=mustdrop,random", "budget=t150,t100", "benchmark.limit=8", "workers=0")


def lacking(*words, budget="t64"):
    command = ("calibrate", "model=m", *words, f"budget={budget}")
    return SweepCell(("a=1", f"budget={budget}"), None, None, "no value", command)


def test_one_command_finds_the_thresholds_of_several_budgets():
    cells = [
        lacking("method=x", "benchmark=a"), lacking("method=x", "benchmark=b"),
        lacking("method=x", "benchmark=a", budget="t192"), lacking("method=y", "benchmark=a"),
        lacking("method=x", "benchmark=a"),
        SweepCell(("c=1",), None, None, "no value", ("vtw", "write=true", "model=m")),
        SweepCell(("d=1",), None, None, "another reason"),
    ]  # fmt: skip
    runs, settings = calibration_settings(["calibration.n=8", "device=cpu", "budget=t64"])
    assert runs == ["device=cpu", "budget=t64"]
    more = ["calibration.n=8", "device=cpu"]
    assert calibrations(cells, settings) == [
        ["calibrate", "-m", "model=m", "method=x", "benchmark=a", "budget=t64,t192", *more],
        ["calibrate", "-m", "model=m", "method=y", "benchmark=a", "budget=t64", *more],
        ["calibrate", "-m", "model=m", "method=x", "benchmark=b", "budget=t64", *more],
        ["vtw", "write=true", "model=m", "device=cpu"],
    ]


def test_a_run_without_thresholds_has_a_state_and_a_command():
    cells = plan("none", GIVEN)
    states = {cell.name: cell.status.state for cell in cells}
    assert list(states.values()).count("needs calibration") == 2
    assert calibrations(cells) == [[
        "calibrate", "-m", "model=pocket", "method=mustdrop", "benchmark=pocket_vqa",
        "prefill.alpha=1.0e-2", "budget=t150,t100",
    ]]  # fmt: skip
    # no command can find them: the benchmark has no split for it, or there is no budget
    for more in ("benchmark=mme", "budget=none"):
        (cell,) = plan("none", ["method=mustdrop", "budget=t150", more])
        assert cell.status.state == "unready" and "has no value" in cell.error


def test_a_benchmark_without_a_split_takes_the_prompts_of_the_one_that_is_named():
    folders = "benchmark.data=/data/${benchmark.name}"
    given = ["model=llava15_7b", "method=mustdrop", "budget=t150", folders, "calibrate_with=gqa"]
    cells = plan("none", [*given, "benchmark=gqa,mme,pope"])
    assert [cell.status.state for cell in cells] == ["needs calibration"] * 3
    assert calibrations(cells) == [[
        "calibrate", "-m", "model=llava15_7b", "method=mustdrop", "benchmark=gqa", folders,
        "prefill.alpha=1.0e-2", "budget=t150",
    ]]  # fmt: skip
    for other in ("mme", "gaq"):
        (cell,) = plan("none", [*given[:4], "benchmark=mme", f"calibrate_with={other}"])
        assert cell.status.state == "unready"
        assert "calibrate_with must be a benchmark with a calibration split (" in cell.error
        assert cell.error.endswith(f"got {other!r}")


def test_values_of_another_benchmark_are_taken_where_they_are_asked_for(monkeypatch):
    row = {
        "strategy": "dual_attention", "benchmark": "gqa", "budget": "t150", "inputs": "any",
        "values": {"gamma": 0.002, "alpha": 0.01}, "task": {"split": "testdev"},
        "split": {"split": "test"},
    }  # fmt: skip
    monkeypatch.setattr(tuned, "table_rows", lambda model: [row])
    given = ["model=llava15_7b", "method=mustdrop", "budget=t150"]
    with pytest.raises(NeedsCalibration, match="mme has no split to choose thresholds on"):
        checked(composed(*given, "benchmark=mme"))
    cfg = composed(*given, "benchmark=mme", "calibrate_with=gqa")
    config = checked(cfg)
    assert config["prefill"]["gamma"] == 0.002
    assert borrowed(cfg) == {"gqa": ["prefill.gamma", "prefill.alpha"]}
    sentence = (
        "prefill.gamma and prefill.alpha were searched on the prompts of gqa, because mme has no "
        "split for it"
    )
    assert sentence in differing(cfg, config)
    by_hand = composed(*given, "benchmark=mme", "prefill.gamma=0.002", "prefill.alpha=0.01")
    assert run_folder(config) == run_folder(checked(by_hand))
    # a benchmark with a split keeps its own thresholds
    with pytest.raises(NeedsCalibration, match="textvqa at t150: calibrate first"):
        checked(composed(*given, "benchmark=textvqa", "calibrate_with=gqa"))


def test_the_steps_follow_each_other_and_what_cannot_run_is_named(tmp_path, monkeypatch):
    steps, ran = [], []

    def command(words, out):
        steps.append(words[0])
        return 0

    def run(cells):
        ran.extend(cell.name for cell in cells)
        return 0

    monkeypatch.setattr(module, "_mustdrop", command)
    monkeypatch.setattr(module, "_calibrate", lambda commands: steps.extend(commands))
    given = [
        "method=mustdrop,random",
        "budget=t150",
        "benchmark.limit=2",
        f"output_root={tmp_path}",
    ]
    console = Console(record=True, width=200)

    def completed(**more):
        cells = plan("none", given)
        return complete(cells, lambda: plan("none", given), run, console, probe=0, **more)

    code = completed(settings=["calibration.n=8"])
    assert [words[0] for words in steps] == ["calibrate"] and "calibration.n=8" in steps[0]
    assert ran == ["random t150 pocket_vqa"]  # nothing is done yet
    assert code == 1 and "cannot run: " in console.export_text()
    steps.clear()
    ran.clear()
    assert completed(dry_run=True) == 0
    text = console.export_text()
    assert not steps and not ran and "then mustdrop figures" in text and "cannot run" not in text
    assert "2 cells: 1 needs calibration, 1 pending" in text


def test_a_model_that_is_not_here_stops_everything_before_the_first_calibration(tmp_path):
    given = [
        "model.pretrained=nobody/nothing", "method=vanilla,mustdrop", "budget=t150",
        f"output_root={tmp_path}",
    ]  # fmt: skip
    cells = plan("none", given)
    with pytest.raises(FileNotFoundError, match="nobody/nothing cannot be downloaded"):
        complete(cells, lambda: cells, lambda ready: 0, Console(quiet=True), probe=0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["experiment=table1", "budget=t64", "--dry-run"],
         ["complete", "table1", "budget=t64", "--dry-run"]),
        (["method=fastv", "experiment=table1"], ["complete", "table1", "method=fastv"]),
        (["method=fastv", "budget=t64"], ["complete", "none", "method=fastv", "budget=t64"]),
        (["plan", "table1"], ["plan", "table1"]),
        (["--help"], ["--help"]),
    ],
)  # fmt: skip
def test_overrides_alone_complete_their_experiment(given, expected):
    assert command_line(given) == expected


def test_a_preset_without_a_command_is_one_sentence(capsys):
    assert script.main(["table1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: mustdrop sweep table1: the command is missing, as in mustdrop")


@pytest.mark.parametrize(
    ("experiment", "tables"),
    [("table6", ["table6"]), ("table1_next", ["table1"]), ("demo", [])],
)
def test_runs_fill_the_tables_of_the_paper_that_list_them(experiment, tables):
    files = [path.name for path in analyses(Path("outputs", experiment))]
    rest = ["claims.txt", "figures.txt", "report.html"]
    assert files == ["summary.txt", *(f"{name}.txt" for name in tables), *rest]
