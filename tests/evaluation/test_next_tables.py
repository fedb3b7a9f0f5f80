"""The paper's LLaVA-NeXT tables, from a checkpoint in the hub's layout to tables, claims and page.

The model is tiny and random, so its answers mean nothing; counts, costs and budgets are real.
"""

import csv
import io
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml
from hub_checkpoints import save
from PIL import Image
from standins import PEOPLE
from standins import write as write_rows

from analysis.claims.__main__ import main as claims
from analysis.figures.__main__ import main as figures
from analysis.report.__main__ import main as report
from analysis.report.tracing import Traces
from analysis.tables.__main__ import main as tables
from experiments import calibrate, tuned_table
from experiments.checks.run_checks import require_buildable
from experiments.run import main as run_main
from experiments.sweeps import launch
from experiments.sweeps.cells import plan
from experiments.trace import main as trace_runs
from mustdrop.presets import tuned
from mustdrop.runs.folder import read_records, read_samples

# Width and height of pictures -> vision tokens that show a cell, and newlines. The small copy has
# 6 x 6 cells; the crops have a cell for each 4 x 4 pixels, without padding, and a newline per row.
SIZES = {(48, 48): (36 + 144, 12), (72, 24): (36 + 108, 6), (40, 30): (36 + 120, 10)}
LAYERS = 16  # MustDrop drops after layers 1, 3, 5 and 7


def picture(number):
    width, height = list(SIZES)[number % len(SIZES)]
    values = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    values[:, : width // 2] = 100  # windows that merging joins
    return Image.fromarray(values)


def rows(first, count):
    return [
        {
            "question_id": number, "question": f"what is word {number}?", "image": picture(number),
            "answers": list(PEOPLE[number % len(PEOPLE)]), "ocr_tokens": ["STOP", f"W{number}"],
        }
        for number in range(first, first + count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Overrides that name a tiny checkpoint and a TextVQA with images of several sizes."""
    root = tmp_path_factory.mktemp("next")
    folder = save("llava_next", root / "tiny", LAYERS)
    for first, split, count in ((0, "validation", 6), (50, "test", 12)):
        write_rows(rows(first, count), root / "textvqa/data" / f"{split}-00000-of-00001.parquet")
    return [
        f"model.pretrained={folder}", f"model.layers={LAYERS}", "model.merging_blocks=3",
        "model.dtype=float32", "benchmark=textvqa", f"benchmark.data={root / 'textvqa'}",
        "threads=1",
    ]  # fmt: skip


@pytest.fixture
def command(monkeypatch):
    """``mustdrop run`` in this process; returns the failures of a sweep."""

    def ran(*arguments):
        monkeypatch.setattr(launch, "failures", [])
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        run_main()
        return launch.failures

    return ran


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The table of thresholds of LLaVA-NeXT, in the test's folder."""
    path = tmp_path / "tuned" / "llava_next_7b.yaml"
    monkeypatch.setattr(tuned_table, "tuned_dir", lambda: path.parent)
    packaged = tuned.table_paths
    monkeypatch.setattr(
        tuned, "table_paths",
        lambda model: [*packaged(model), *([path] if path.is_file() else [])],
    )  # fmt: skip
    return path


@pytest.fixture
def calibration(monkeypatch):
    """``mustdrop calibrate`` of MustDrop's gamma in this process."""

    def ran(budget, *arguments):
        given = ["method=mustdrop", "prefill.alpha=1.0", "calibration.n=6", f"budget={budget}"]
        monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments, *given])
        calibrate.main()

    return ran


def counts(root):
    """Record and samples of each run, by method and budget."""
    return {
        (record["method"], record["budget"]): (record, read_samples(Path(record["folder"])))
        for record in read_records(root)
    }


def written(capsys, *arguments):
    """CSV that a command prints, as rows."""
    capsys.readouterr()
    program, *rest = arguments
    assert program([*rest, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


DROPPING = ("method=mustdrop", "prefill.gamma=2e-2", "prefill.alpha=1.0")


@pytest.mark.slow
def test_the_next_tables_run_from_presets_to_the_page(files, command, tmp_path, capsys):
    given = [*files, f"output_root={tmp_path}", "benchmark.limit=3"]
    asked = ["-m", "experiment=table1_next", *given, "controls=none"]
    assert command(*asked, "budget=320/2880", "method=vanilla,divprune,random") == []
    ninth = ["-m", "experiment=table6", *given, "budget=320/2880"]
    assert command(*ninth, "method=vanilla") == []
    assert command(*ninth, *DROPPING) == []
    found = counts(tmp_path / "table1_next")
    assert set(found) == {("vanilla", "none"), ("divprune", "s11.11"), ("random", "s11.11")}
    for (_, budget), (record, samples) in found.items():
        slots = [(line["slots"]["cells"], line["slots"]["off_grid"]) for line in samples]
        assert slots == list(SIZES.values())
        share = None if budget == "none" else 320 / 2880
        for line, (cells, newlines) in zip(samples, slots, strict=True):
            executed = line["counts"]["executed_average"]
            if share is None:
                assert executed == cells + newlines and line["counts"]["nominal"] is None
                assert line["slots"]["off_grid_average"] == newlines
                continue
            assert line["counts"]["nominal"] == pytest.approx(share * cells)
            # newlines come on top where the encoder's output is reduced
            extra = newlines if record["method"] == "divprune" else 0
            assert executed == pytest.approx(share * cells + extra, abs=0.5)

    lines = written(capsys, tables, "table1", "--runs", str(tmp_path / "table1_next"))
    (random,) = (
        line for line in lines if line["state"] == "measured" and line["model"] == "llava_next_7b"
        and (line["method"], line["budget"], line["benchmark"]) == ("random", "s11.11", "textvqa")
    )  # fmt: skip
    assert random["cells"] == "160.0" and random["matched"] == "True"
    (vanilla,) = written(capsys, tables, "table6", "--runs", str(tmp_path / "table6"))[:1]
    assert (vanilla["paper"], vanilla["paper_seconds"]) == ("64.9", "1594.0")
    assert float(vanilla["resident"]) == pytest.approx(160 + 28 / 3)
    assert tables(["table6", "--runs", str(tmp_path / "table6"), "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert "160.0 vision tokens of a prompt show a cell and 9.3 off grid" in text
    assert "| mustdrop | s11.11 |" in text and "| 168.0 MB | 1.1 T | 933 s |" in text

    (saved,) = (
        line for line in written(capsys, claims, "--runs", str(tmp_path / "table6"))
        if line["claim"] == "saves-cache"
    )  # fmt: skip
    mustdrop, plain = (
        sum(fmean(line["resident_tokens"]) for line in counts(tmp_path / "table6")[key][1])
        for key in (("mustdrop", "s11.11"), ("vanilla", "none"))
    )
    assert float(saved["difference"]) == pytest.approx(100 * (1 - mustdrop / plain) - 88.9)
    out = tmp_path / "figures"
    drawn = ["layers", "tradeoff", "--runs", str(tmp_path / "table1_next"), "--out", str(out)]
    assert figures(drawn) == 0 and len(list(out.glob("*.png"))) >= 2
    trace_runs([str(tmp_path / "table6"), "--samples", "0-1"])
    assert report([str(tmp_path / "table6")]) == 0
    page = (tmp_path / "table6" / "report.html").read_text(encoding="utf-8")
    assert "11.11 % of the vision tokens" in page and len(page) > 50_000
    (trace, *_) = sorted((tmp_path / "table6").rglob("traces/*.npz"))
    shown = Traces().add(trace.parents[1], int(trace.stem))
    assert shown is not None
    assert [image["label"] for image in shown["images"]] == ["whole image", "crops in place"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thresholds_at_shares_on_prompts_of_several_sizes(
    files, command, calibration, table, tmp_path, capsys
):
    given = [
        *files, "model=llava_next_7b", f"output_root={tmp_path}", "controls=none",
        "benchmark.limit=3",
    ]  # fmt: skip
    swept = ["vision.tau=20.0,57.6", "prefill.gamma=2e-3,6e-3,2e-2", "prefill.alpha=1e-2,1.0"]
    assert command("-m", *given, "method=mustdrop", "budget=none", *swept) == []
    averages = {
        (config["vision"]["tau"], config["prefill"]["alpha"], config["prefill"]["gamma"]): record[
            "counts"
        ]["executed_average"]
        for record in read_records(tmp_path / "run")
        for config in [record["config"]]
    }
    assert len(averages) == 12
    for tau in (20.0, 57.6):
        for alpha in (1e-2, 1.0):
            falling = [averages[tau, alpha, gamma] for gamma in (2e-3, 6e-3, 2e-2)]
            assert falling[0] >= falling[1] >= falling[2] and falling[0] > falling[2]
        assert averages[tau, 1.0, 2e-2] < averages[tau, 1e-2, 2e-2]  # alpha 1 protects nothing
    assert averages[20.0, 1e-2, 2e-3] < averages[57.6, 1e-2, 2e-3]  # more windows are merged

    for budget in ("25%", "1%"):
        calibration(budget, *given)
    met, floor = yaml.safe_load(table.read_text())
    assert (met["budget"], floor["budget"]) == ("25%", "1%")
    assert "values" not in floor and 1 < float(floor["floor"].removesuffix("%")) < 25
    # the calibrated run on the calibration prompts, as its record counts
    assert command(
        *given, "method=mustdrop", "budget=25%", "benchmark.task.split=test", "benchmark.limit=6",
        f"output_root={tmp_path / 'again'}",
    ) == []  # fmt: skip
    ((record, samples),) = counts(tmp_path / "again").values()
    shares = [line["counts"]["executed_average"] / line["slots"]["cells"] for line in samples]
    half_a_token = fmean(0.5 / line["slots"]["cells"] for line in samples)
    assert abs(fmean(shares) - 0.25) <= max(0.01 * 0.25, half_a_token)
    assert fmean(shares) == pytest.approx(met["executed"] / 100, abs=1e-4)
    assert record["budget"] == "s25" and len({line["slots"]["cells"] for line in samples}) == 3
    # calibrated or by its formula, a method whose budget is out of reach says its least share
    for method, least in (("mustdrop", floor["floor"]), ("fastv", "6.25%")):
        ours = [f"method={method}", "budget=1%", f"output_root={tmp_path / method}"]
        assert command(*given, *ours) == []
        (record,) = read_records(tmp_path / method)
        assert (record["floor"], record["n"], record["budget"]) == (least, 0, "s1")
        assert f"floor {least}, the budget cannot be reached" in capsys.readouterr().out


def test_a_share_without_thresholds_is_refused_with_the_command_that_finds_them(capsys, command):
    with pytest.raises(SystemExit) as left:
        command("experiment=table6", "method=mustdrop", "budget=320/2880")
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert (
        "calibrate first (mustdrop calibrate model=llava_next_7b method=mustdrop benchmark=textvqa "
        "budget=320/2880 inputs=authors prefill.alpha=1.0e-2)"
    ) in message
    # what a share cannot be, and what a method cannot reach
    for asked, expected in (
        (("method=fastv", "budget=3200/2880"), "share must be in [0, 1], got 1.11"),
        (("method=fastv", "budget=s22.2"), "budget must be a count of tokens"),
        (
            ("method=fastv", "budget=100"),
            "100 tokens is out of reach: with prefill.layer=1 the method keeps at least 6.25 %",
        ),
    ):
        with pytest.raises(SystemExit):
            command("experiment=table6", *asked)
        assert expected in capsys.readouterr().err


def test_all_that_the_next_presets_lack_is_thresholds():
    """Counts, layers and budgets of every cell on TextVQA are checked; no model is loaded."""
    for preset, lacking in (("table1_next", 5), ("table6", 2)):
        cells = plan(preset, ["benchmark=textvqa"])
        refused = [cell.error for cell in cells if cell.config is None]
        assert len(refused) == lacking
        assert all("calibrate first (mustdrop calibrate" in text for text in refused)
        for cell in cells:
            if cell.config is not None:
                require_buildable(cell.config, here=False)
