import pytest
from results import write, write_three
from small_traces import fastv, keep, mustdrop, vanilla, write_traced

from analysis.figures import __main__ as command
from analysis.figures.catalogue import FIGURES
from mustdrop.runs.trace import Trace


@pytest.fixture
def quick(monkeypatch):
    """Figures are made, and their files are empty: writing takes most of the time."""

    def touch(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    monkeypatch.setattr(command, "save", touch)


def run(root, out, *more):
    return command.main([*more, "--runs", str(root), "--out", str(out)])


def stems(out):
    return sorted(path.name for path in out.iterdir())


def test_without_names_all_that_the_records_allow_is_drawn(tmp_path, capsys, quick):
    write_traced(tmp_path / "runs")
    out = tmp_path / "figures"
    assert run(tmp_path / "runs", out) == 0
    expected = {
        "stages_mustdrop_t192_1", "overlays_mustdrop_t192_1", "attention_mustdrop_t192_1",
        "gaze_mustdrop_1", "layers", "tradeoff_tokens", "tradeoff_flops", "tradeoff_latency",
        "survival_t192",
    }  # fmt: skip
    assert set(stems(out)) == {f"{name}.{ending}" for name in expected for ending in ("pdf", "png")}
    told = capsys.readouterr()
    assert all(f"{name}.pdf" in told.out for name in expected)
    assert told.err == (
        "sweep: no method ran with two settings swept, as experiment=sweep_thresholds does\n"
        "film: no traced sample shows a video\n"
        "frames: no traced sample shows a video\n"
    )


def test_what_cannot_be_drawn_says_why_and_what_makes_it(tmp_path, capsys, quick):
    root = write_three(tmp_path / "runs")
    names = ("stages", "overlays", "attention", "gaze", "survival")
    assert run(root, tmp_path / "out", *names) == 0
    assert stems(tmp_path / "out") == [
        "stages_mustdrop_t192_mean.pdf",
        "stages_mustdrop_t192_mean.png",
    ]
    told = capsys.readouterr().err.splitlines()
    command = f"mustdrop trace {root} --methods mustdrop"
    assert told == [f"{name}: no trace: {command} makes them" for name in names[1:]]


def test_a_gaze_without_vanilla_names_the_command_that_traces_it(tmp_path, capsys):
    root = tmp_path / "runs"
    write(root, "vanilla", "none", 576.0)
    keep(write(root, "mustdrop"), mustdrop(), 4)
    assert run(root, tmp_path / "out", "gaze") == 1
    assert capsys.readouterr().err == (
        "gaze: no trace of the vanilla run for sample 4: "
        f"mustdrop trace {root} --methods vanilla --samples 4 makes it\n"
    )


def test_a_trace_without_a_picture_is_told_of(tmp_path, capsys, quick):
    root = tmp_path / "runs"
    keep(write(root, "mustdrop"), Trace(mustdrop().ledger), 4)
    assert run(root, tmp_path / "out", "overlays", "stages", "gaze") == 0
    told = capsys.readouterr().err
    assert "overlays_mustdrop_t192_4: the trace of mustdrop at 192 has no picture" in told
    assert "gaze: no trace of mustdrop at 192 has a decoded token" in told
    assert stems(tmp_path / "out") == ["stages_mustdrop_t192_4.pdf", "stages_mustdrop_t192_4.png"]


def test_samples_methods_and_budget_are_those_asked_for(tmp_path, quick):
    root = write_traced(tmp_path / "runs")
    keep(write(root, "mustdrop", "t64", 64.0), mustdrop(), 2)
    out = tmp_path / "out"
    run(
        root, out, "overlays", "--methods", "fastv", "mustdrop", "--budget", "t192", "--sample", "2"
    )
    assert stems(out)[1::2] == ["overlays_fastv_t192_2.png", "overlays_mustdrop_t192_2.png"]
    run(root, out / "least", "overlays")  # by default the smallest budget
    assert stems(out / "least")[1::2] == ["overlays_mustdrop_t64_2.png"]


def test_position_bias_is_shown_where_most_runs_were_traced(tmp_path, quick):
    root = write_traced(tmp_path / "runs")
    keep(write(root, "mustdrop", "t64", 64.0), mustdrop(), 2)
    run(root, tmp_path / "out", "survival")
    assert stems(tmp_path / "out")[1:] == ["survival_t192.png"]


def test_names_that_nobody_has_are_refused(tmp_path, capsys):
    root = write_three(tmp_path / "runs")
    assert run(root, tmp_path / "out", "tradeoff", "--methods", "fast") == 1
    assert "no run of fast: expected one of mustdrop, random, vanilla" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(root, tmp_path / "out", "picture")
    assert f"no figure 'picture': expected one of {', '.join(FIGURES)}" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "no results folder" in capsys.readouterr().err


def test_figures_of_two_experiments_have_two_names(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        keep(write(folder, "fastv", experiment=name), fastv(), 1)
        keep(write(folder, "vanilla", "none", 576.0, experiment=name), vanilla(), 1)
    run(tmp_path / "runs", tmp_path / "out", "layers")
    assert stems(tmp_path / "out")[1::2] == [
        "one_pocket_vqa_layers.png",
        "two_pocket_vqa_layers.png",
    ]
    for path in (tmp_path / "out").iterdir():
        first = {".png": b"\x89PNG", ".pdf": b"%PDF"}[path.suffix]
        assert path.read_bytes().startswith(first)
