"""Profiles in tables and figures: every number is that of efficiency.json."""

import json

import pytest
from test_tables import pocket_runs

from analysis.figures.__main__ import main as figures
from analysis.figures.speed import offer_speed
from analysis.records.cells import load
from analysis.records.profiles import load_profiles, profile_frame
from analysis.tables.__main__ import main as tables
from analysis.tables.costs import costs
from analysis.tables.efficiency import efficiency_sheets
from analysis.tables.grid import fill
from analysis.tables.layouts import layouts
from analysis.tables.paper import cost_sheet
from mustdrop.profiling.parts import PARTS
from mustdrop.profiling.summary import summarised

MS = {"vanilla": 40.0, "method": 20.0, "reference": 10.0, "random": 25.0}


def cell(tokens, batch):
    arms = {}
    for arm, ms in MS.items():
        times = [ms * (1 + 0.01 * number) * batch for number in range(6)]
        rounds = {"ttft_ms": times, "e2e_32_ms": [3 * t for t in times], "tpot_32_ms": times}
        names = PARTS if arm != "reference" else ("encoder", "layers", "head")
        rounds |= {f"part_{name}_ms": [t / len(names) for t in times] for name in names}
        facts = {"executed_average": tokens / 4, "flops": 8e9, "flops_formula": 8e9}
        if arm != "reference":
            rounds["peak_bytes"] = [2**30] * 6
            facts |= {"kv_bytes": 5e6, "kv_formula": 5e6}
        arms[arm] = {"facts": facts, "rounds": rounds}
    made = {
        "images": tokens // 576,
        "frames": 0,
        "batch": batch,
        "vision_tokens": tokens,
        "rounds": 6,
        "arms": arms,
    }
    return {**made, "processor_ms": [3.0, 2.0, 9.0], "summary": summarised(made)}


def profile(method="mustdrop", device="card A", shared=0.0):
    return {
        "experiment": "run", "model": "llava15_7b", "method": method, "budget": "t64",
        "benchmark": "textvqa", "state": "done", "hardware": {"name": device},
        "settings": {
            "new_tokens": [1, 32], "dtype": "bfloat16", "attention": "sdpa", "weights": "random",
        },
        "timing": {"cpu_seconds": 9.0, "waited_seconds": shared},
        "cells": [cell(576, 1), cell(2880, 1), cell(576, 8)],
    }  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for number, made in enumerate([profile(), profile("fastv", shared=9.0)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "efficiency.json").write_text(json.dumps(made))
    return tmp_path


def test_a_row_holds_the_medians_and_the_ratios_of_its_arm(root):
    frame = profile_frame(load_profiles([root]))
    assert len(frame) == 2 * 3 * 4
    chosen = (frame["method"] == "fastv") & (frame["batch"] == 8) & (frame["arm"] == "method")
    (row,) = frame[chosen].to_dict("records")
    assert row["ttft_ms"] == pytest.approx(8 * 20 * 1.025)
    assert (row["ttft_ms_low"], row["ttft_ms_high"]) == pytest.approx((160, 168))
    assert (row["vs_vanilla"], row["vs_reference"]) == pytest.approx((0.5, 2.0))
    assert row["e2e_ms"] == pytest.approx(3 * row["ttft_ms"]) and row["processor_ms"] == 3.0
    assert row["decisions_ms"] == pytest.approx(row["ttft_ms"] * 5 / 8)
    assert row["prompts_per_second"] == pytest.approx(8e3 / row["ttft_ms"], rel=0.01)
    assert (row["shared_machine"], row["kv_bytes"]) == (True, 5e6)


def test_the_table_shows_them_and_says_what_they_mean(root, capsys):
    assert tables(["efficiency", "--runs", str(root), "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert "| llava15_7b | 576 | 1 | fastv | t64 | method | 144.0 | 20.5 [20.0, 21.0]† |" in text
    assert "0.50 [0.50, 0.50]" in text and "2.00 [2.00, 2.00]" in text
    assert "card A: bfloat16; weights: random." in text
    assert "less than 90 % of the CPU" in text
    for form in ("text", "latex", "csv"):
        out = root / f"table.{form}"
        args = ["efficiency", "--runs", str(root), "--format", form, "--out", str(out)]
        assert tables(args) == 0 and "fastv" in out.read_text()


def test_the_table_splits_what_a_method_saves_between_encoder_and_language_model():
    """Vanilla takes 5 ms in each of eight parts; half of them are the encoder's side."""
    arms = profile()["cells"][0]
    arms["arms"]["method"]["rounds"] |= {
        f"part_{name}_ms": [1.0 if name in ("encoder", "vision") else 3.0] * 6 for name in PARTS
    }
    arms["summary"] = summarised(arms)
    frame = profile_frame([{**profile(), "folder": "x", "cells": [arms]}])
    *_, savings = efficiency_sheets(frame)
    (row,) = savings.rows
    # parts of vanilla: 5 * 1.025 each
    assert row[-5:] == ("20.5 → 8.0", "+30.5 %", "20.5 → 12.0", "+20.7 %", "50% → 40%")
    assert row[:4] == ("llava15_7b", "576", "1", "mustdrop")


def test_devices_get_a_column_where_they_differ(root):
    (root / "0" / "efficiency.json").write_text(json.dumps(profile(device="card B")))
    frame = profile_frame(load_profiles([root]))
    whole, *_ = efficiency_sheets(frame)
    assert "device" in whole.heads
    assert [stem for stem, _ in offer_speed(root)] == [
        f"speed_{name}_{number}" for number in (1, 2) for name in ("parts", "lengths", "break_even")
    ]


def test_the_figures_are_drawn_without_an_evaluated_run(root, capsys):
    assert figures(["speed", "--runs", str(root), "--out", str(root / "drawn")]) == 0
    assert len(list((root / "drawn").glob("speed_*.png"))) == 3
    draw = dict(offer_speed(root))["speed_parts"]
    (ax,) = draw().axes
    lengths = {}
    for bar in ax.patches:
        lengths[round(bar.get_y(), 2)] = lengths.get(round(bar.get_y(), 2), 0) + bar.get_width()
    medians = {arm: 1.025 * ms for arm, ms in MS.items()}
    shown = [*medians.values(), *(ms for arm, ms in medians.items() if arm != "vanilla")]
    assert sorted(lengths.values()) == pytest.approx(sorted(shown))


def test_a_folder_without_a_profile_is_refused(tmp_path, capsys):
    assert tables(["efficiency", "--runs", str(tmp_path)]) == 1
    assert "mustdrop profile makes one" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no results folder"):
        load_profiles([tmp_path / "nowhere"])


def test_the_papers_cost_table_has_measured_columns_where_a_run_was_profiled(tmp_path):
    pocket_runs(tmp_path, "table3")
    (folder,) = tmp_path.glob("e/pocket/mustdrop/t64/*")
    (folder / "efficiency.json").write_text(json.dumps(profile()))
    for filled in fill("table3", load(tmp_path)):
        frame = costs(filled)
        made = cost_sheet(layouts()["table3"], filled, frame)
        rows = frame.set_index("method")
        if filled.part.model == "pocket":
            assert rows.loc["mustdrop", "measured_ttft_ms"] == pytest.approx(20.5)
            assert rows.loc["mustdrop", "measured_vs_vanilla"] == pytest.approx(0.5)
            assert rows["measured_ttft_ms"].notna().sum() == 1
            first = made.heads.index("first token")
            assert [row[first] for row in made.rows if row[0] == "mustdrop"] == ["20.5 ms"]
        else:
            assert "first token" not in made.heads
