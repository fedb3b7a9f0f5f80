"""The paper's tables from runs: cells, bands, missing ones with their commands, costs, forms."""

import csv
import io
import re
from math import isnan

import numpy as np
import pytest
import yaml
from results import draws, floor, write
from rich.console import Console

from analysis.records.cells import load
from analysis.statistics.intervals import mean_interval, paired_interval
from analysis.tables.__main__ import main, runs
from analysis.tables.ablations import ablation_sheets, ablations
from analysis.tables.commands import calibration, command, products, uncalibrated_notes
from analysis.tables.costs import costs, shapes
from analysis.tables.grid import RELATIVE, fill
from analysis.tables.latex import escape, to_latex
from analysis.tables.layouts import layouts, threshold, uncalibrated
from analysis.tables.paper import cost_sheet, score_sheet
from analysis.tables.rendering import sheet_markdown, show_sheet
from analysis.tables.sheets import Sheet
from experiments.sweeps.cells import plan
from mustdrop.cost import DecoderShape
from mustdrop.pocket.model import config as pocket_config
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.tuned import missing_fields

LLAVA = {"model": "llava15_7b", "experiment": "table1"}


def ran(root, method, benchmark, budget="t64", executed=64.0, scores=None, **more):
    """A run of LLaVA in table1, with a metric of its own where one is given."""
    fields = {**LLAVA, "key": f"{benchmark}{more.pop('tag', '')}", "benchmark": benchmark, **more}
    return write(root, method, budget, executed, draws(1) if scores is None else scores, **fields)


def at(frame, method, budget, benchmark):
    found = frame[
        (frame["method"] == method)
        & (frame["budget"] == budget)
        & (frame["benchmark"] == benchmark)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_the_layouts_are_the_papers_tables():
    found = layouts()
    assert list(found) == [f"table{number}" for number in range(1, 7)]
    llava = found["table1"].parts[0]
    assert [line.method for line in llava.lines] == [
        "vanilla", *["tome", "fastv", "sparsevlm", "mustdrop"] * 2,
        "tome", "fastv", "prumerge", "sparsevlm", "mustdrop",
    ]  # fmt: skip
    assert [column.name for column in llava.columns] == [
        "gqa", "mmbench", "mme", "vizwiz", "scienceqa", "vqav2", "textvqa",
    ]  # fmt: skip
    video = found["table2"].parts
    assert [part.metric for part in video] == ["judge_accuracy", "judge_score"]
    assert all(len(part.columns) == 3 and len(part.lines) == 4 for part in video)


def test_every_cell_of_the_paper_stands_in_its_layout():
    """Each number of Tables 1 to 5 is found by some row and column; typed-in corners below."""
    found = {name: fill(name, []) for name in layouts()}
    corners = [
        ("table1", 0, "mustdrop", "t64", "gqa", 53.1), ("table1", 0, "tome", "t192", "mme", 1563),
        ("table1", 0, "vanilla", "none", "textvqa", 58.2),
        ("table1", 1, "mustdrop", "s11.11", "vizwiz", 54.0),
        ("table2", 0, "mustdrop", "s50", "msvd_qa", 71.5),
        ("table2", 1, "mustdrop", "s50", "msrvtt_qa", 3.6),
        ("table3", 0, "mustdrop_merge", "none", "textvqa", 58.3),
        ("table3", 0, "mustdrop", "t64", "textvqa", 54.2),
        ("table4", 0, "cls_topk", "t64", "mmbench", 50.2),
        ("table5", 0, "mustdrop", "t128", "mmbench", 61.1),
        ("table6", 0, "sparsevlm", "s11.11", "textvqa", 58.4),
    ]  # fmt: skip
    for table, part, method, budget, benchmark, value in corners:
        assert at(found[table][part].cells, method, budget, benchmark)["paper"] == value
    printed = {"table1": 113, "table2": 18, "table4": 8, "table5": 8}
    for table, count in printed.items():
        cells = [part.cells[part.cells["benchmark"] != RELATIVE] for part in found[table]]
        assert sum(frame["paper"].notna().sum() for frame in cells) == count


def test_a_measured_cell_tells_ours_its_interval_and_the_band(tmp_path):
    scores = draws(3, 200, 0.47)
    ran(tmp_path, "fastv", "gqa", executed=66.0, scores=scores, available=200)
    ran(tmp_path, "mustdrop", "gqa", scores=draws(4, 200, 0.9), available=200)
    frame = fill("table1", load(tmp_path))[0].cells
    found, oracle = at(frame, "fastv", "t64", "gqa"), mean_interval(scores)
    assert found["ours"] == pytest.approx(100 * np.mean(scores))
    assert [found["low"], found["high"]] == pytest.approx([100 * oracle.low, 100 * oracle.high])
    assert (found["n"], found["executed_average"], found["matched"]) == (200, 66.0, False)
    assert (found["paper"], found["band_low"], found["band_high"]) == (46.1, 44.1, 48.0)
    assert found["verdict"] == "no independent source"
    own = at(frame, "mustdrop", "t64", "gqa")
    assert (own["verdict"], own["matched"], own["band_independent"]) == ("outside", True, 1)
    made = score_sheet(layouts()["table1"], fill("table1", load(tmp_path))[0])
    line = dict(
        zip(made.heads, next(r for r in made.rows if r[:2] == ("fastv", "t64")), strict=True)
    )
    assert line["gqa"].splitlines()[1] == "66.0≠ tokens"
    assert line["gqa, published"] == "46.1\n44.1..48.0 (0/3)\nno independent source"


def test_inside_and_another_split(tmp_path):
    ran(tmp_path, "mustdrop", "gqa", scores=draws(5, 400, 0.531))
    ran(tmp_path, "mustdrop", "vqav2", scores=draws(5, 400, 0.69))
    ran(tmp_path, "mustdrop", "vizwiz", scores=draws(5, 400, 0.51))
    frame = fill("table1", load(tmp_path))[0].cells
    assert at(frame, "mustdrop", "t64", "gqa")["verdict"] == "inside"
    for benchmark, paper in (("vqav2", 69.3), ("vizwiz", 51.2)):
        found = at(frame, "mustdrop", "t64", benchmark)
        assert (found["verdict"], found["paper"]) == ("not comparable", paper)


def test_a_sum_over_categories_comes_from_the_record_and_only_when_it_is_whole(tmp_path):
    """MME and MMBench: the papers' number is no mean of samples."""
    mme = {"metrics": {"mme_total": 1612.0}, "metric": "exact_match"}
    circular = {"metrics": {"gpt_eval_score": 70.0}}
    ran(tmp_path, "mustdrop", "mme", available=40, **mme)
    ran(tmp_path, "mustdrop", "mmbench", available=40, **circular)
    ran(tmp_path, "fastv", "mmbench", available=4000, **circular)
    frame = fill("table1", load(tmp_path))[0].cells
    found = at(frame, "mustdrop", "t64", "mme")
    assert (found["ours"], found["metric"], found["verdict"]) == (1612.0, "mme_total", "inside")
    assert isnan(found["low"])
    found = at(frame, "mustdrop", "t64", "mmbench")
    assert (found["ours"], found["verdict"]) == (70.0, "no interval")
    part = at(frame, "fastv", "t64", "mmbench")
    assert part["ours"] == pytest.approx(100 * np.mean(draws(1)))
    assert part["metric"] == "exact_match" and part["verdict"] == "not comparable"


@pytest.mark.parametrize(("least", "text"), [(96.6, "floor 97"), ("3.4%", "floor 3.4%")])
def test_a_floor_is_told_and_nothing_is_missing_there(tmp_path, least, text):
    nothing = {"counts": None, "flops_ratio": None, "hardware": None, "kv_bytes": None}
    folder = ran(tmp_path, "tome", "gqa", scores=(), floor=least, **nothing)
    (folder / "samples.jsonl").unlink()
    filled = fill("table1", load(tmp_path))[0]
    found = at(filled.cells, "tome", "t64", "gqa")
    assert (found["state"], found["floor"], found["command"]) == ("floor", least, "")
    made = score_sheet(layouts()["table1"], filled)
    assert next(row for row in made.rows if row[:2] == ("tome", "t64"))[2] == text


def test_several_runs_of_a_cell_are_never_chosen_from(tmp_path):
    for seed in (0, 1):
        ran(tmp_path, "mustdrop", "gqa", tag=str(seed), seed=seed)
    filled = fill("table1", load(tmp_path))[0]
    assert at(filled.cells, "mustdrop", "t64", "gqa")["state"] == "several"
    notes = score_sheet(layouts()["table1"], filled).notes
    assert any("seed=0; seed=1" in note for note in notes)
    # a run of the table's own experiment goes before others, and one run found twice is one
    ran(tmp_path / "other", "fastv", "gqa", experiment="sweep", tag="s", seed=3)
    ran(tmp_path / "a", "fastv", "gqa", scores=draws(6))
    ran(tmp_path / "b", "fastv", "gqa", scores=draws(6))
    found = at(fill("table1", load(tmp_path))[0].cells, "fastv", "t64", "gqa")
    assert (found["state"], found["ours"]) == ("measured", 100 * np.mean(draws(6)))


def test_the_relative_average_is_over_benchmarks_that_both_have(tmp_path):
    high, low = (1.0,) * 36 + (0.0,) * 4, (1.0,) * 18 + (0.0,) * 22
    for benchmark in ("gqa", "textvqa"):
        ran(tmp_path, "vanilla", benchmark, "none", 576.0, high)
    ran(tmp_path, "mustdrop", "gqa", scores=low)
    frame = fill("table1", load(tmp_path))[0].cells
    found = at(frame, "mustdrop", "t64", RELATIVE)
    assert (found["ours"], found["n"], found["available"]) == (pytest.approx(50.0), 1, 7)
    ours = [53.1, 60.0, 1612, 51.2, 63.4, 69.3, 54.2]
    vanilla = [61.9, 64.7, 1862, 50.0, 69.5, 78.5, 58.2]
    shares = [100 * a / b for a, b in zip(ours, vanilla, strict=True)]
    assert found["paper"] == pytest.approx(np.mean(shares))
    assert at(frame, "vanilla", "none", RELATIVE)["ours"] == 100
    # ToMe has no VizWiz in the paper: six benchmarks
    tome = [48.6, 43.7, 1138, 50.0, 57.1, 45.3]
    six = [100 * a / b for a, b in zip(tome, [61.9, 64.7, 1862, 69.5, 78.5, 58.2], strict=True)]
    assert at(frame, "tome", "t64", RELATIVE)["paper"] == pytest.approx(np.mean(six))


def test_runs_of_another_model_fill_the_same_rows_and_nothing_is_published_of_it(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0, p=0.9), experiment="table1", limit=40)
    write(tmp_path, "uniform_grid", "t64", 64.0, draws(1), experiment="table1", limit=40)
    filled = fill("table1", load(tmp_path))
    assert [part.part.model for part in filled] == ["pocket", "llava15_7b", "llava_next_7b"]
    frame = filled[0].cells
    assert frame["paper"].isna().all() and set(frame["band_values"]) == {0}
    assert at(frame, "uniform_grid", "t64", "vqa")["state"] == "measured"
    assert at(frame, "mustdrop", "t64", "vqa")["state"] == "missing"
    assert "benchmark.limit=40" in at(frame, "mustdrop", "t64", "vqa")["command"]
    made = score_sheet(layouts()["table1"], filled[0])
    assert not any("published" in head for head in made.heads)
    assert set(filled[1].cells.query("benchmark != @RELATIVE")["state"]) == {"missing"}
    # the last row of its budget, as the paper has no such method
    assert [row[0] for row in made.rows][-1] == "uniform_grid"


@pytest.mark.parametrize("table", ["table1", "table3", "table4", "table5", "table6"])
def test_a_missing_cell_names_a_command_that_composes(table):
    """All but thresholds, which the line before it finds."""
    part = fill(table, [])[0]
    cells = part.cells[part.cells["benchmark"] != RELATIVE].to_dict("records")
    for cell in cells[:: max(1, len(cells) // 3)]:
        start = f"mustdrop run -m experiment={table} "
        assert cell["command"].startswith(start)
        (planned,) = plan(table, cell["command"].removeprefix(start).split())
        if planned.config is None:
            found = threshold(cell["method"])
            assert found is not None and f"{found[0]} has no value" in planned.error
            assert cell["calibration"] or cell["benchmark"] in uncalibrated()
        else:
            config = planned.config
            budget = config["budget"]["name"] if config["budget"] else "none"
            told = config["method"]["name"], budget, config["benchmark"]["name"]
            assert told == (cell["method"], cell["budget"], cell["benchmark"])


def test_calibration_lines_compose_too():
    asked = [("mustdrop", "gqa"), ("sparsevlm", "gqa"), ("mustdrop", "mme"), ("fastv", "gqa")]
    lines = calibration("llava15_7b", [(method, "t64", where) for method, where in asked])
    assert len(lines) == 2 and not any("mme" in line for line in lines)
    for line in lines:
        words = line.removeprefix("mustdrop calibrate -m ").split()
        config = composed(*words, name="calibrate")
        assert config.benchmark.calibration is not None
        assert missing_fields(config) == [config.calibration.field]
    assert uncalibrated_notes([("mustdrop", "t64", "mme"), ("fastv", "t64", "mme")]) == [
        "mme has no calibration split: add to its command calibrate_with=<benchmark>, or another "
        "benchmark's prefill.gamma (mustdrop)."
    ]


def test_what_needs_thresholds_and_what_has_none_to_choose_on_is_what_conf_says():
    files = (conf_dir() / "benchmark").glob("*.yaml")
    bare = [path.stem for path in files if yaml.safe_load(path.read_text())["calibration"] is None]
    assert set(uncalibrated()) == set(bare)
    for method in ("mustdrop", "mustdrop_individual", "sparsevlm"):
        (cell,) = plan("table1", [f"method={method}", "budget=t64", "benchmark=gqa"])
        assert f"{threshold(method)[0]} has no value" in cell.error, method
    others = {line.method for layout in layouts().values() for line in layout.parts[0].lines}
    free = sorted(method for method in others if method and threshold(method) is None)
    asked = [f"method={','.join(free)}", "budget=t64", "benchmark=gqa"]
    for cell in plan("table1", asked):
        assert cell.config is not None or "mustdrop_merge" in cell.name, cell.error


def test_products_hold_every_cell_once():
    rng = np.random.default_rng(0)
    grid = [(m, b, k) for m in "abc" for b in ("t1", "t2") for k in ("x", "y", "z")]
    for share in (0.0, 0.3, 0.7, 1.0):
        wanted = [cell for cell in grid if rng.random() < share]
        made = [
            (method, budget, benchmark)
            for methods, budgets, benchmarks in products(wanted)
            for method in methods
            for budget in budgets
            for benchmark in benchmarks
        ]
        assert sorted(made) == sorted(wanted)
    assert len(products(grid)) == 1
    told = command("table1", "pocket", grid, {"x": 40})
    assert told == [
        "mustdrop run -m experiment=table1 model=pocket method=a,b,c budget=t1,t2 "
        "benchmark=x,y,z benchmark.limit=40"
    ]


def test_a_table_nobody_ran_is_one_command(tmp_path, capsys):
    for table in ("table1", "table2"):
        assert main([table, "--runs", str(tmp_path)]) == 0
        shown = capsys.readouterr()
        assert "no finished run" in shown.err
        assert f"\nmustdrop run -m experiment={table}\n" in shown.out
    assert main(["table1", "--runs", str(tmp_path / "nowhere")]) == 1
    assert "no results folder" in capsys.readouterr().err


def pocket_runs(root, table):
    """Two runs whose costs follow from the model's shape."""
    shape, layers = shapes()["pocket"]
    dropped = "s11.11" if table == "table6" else "t64"
    for method, budget, tokens in (("vanilla", "none", 576), ("mustdrop", dropped, 64)):
        seen = [tokens] * layers
        macs = sum(shape.layer_macs(n + 15) for n in seen) + shape.hidden * shape.vocab
        kv = 2 * (tokens - 4 + 15) * layers * shape.kv * shape.bytes_per_value
        folder = write(root, method, budget, float(tokens), draws(1), experiment=table,
                       prefill_macs=macs, kv_bytes=kv,
                       counts={"nominal": tokens, "paper_average": tokens,
                               "executed_average": float(tokens),
                               "resident": tokens - 4.0})  # fmt: skip
        path = folder / "samples.jsonl"
        text = re.sub(r'"vision_tokens": \[[^\]]*\]', f'"vision_tokens": {seen}', path.read_text())
        path.write_text(text)


def test_costs_are_told_in_every_convention_by_name(tmp_path):
    pocket_runs(tmp_path, "table6")
    filled = fill("table6", load(tmp_path))[0]
    frame = costs(filled).set_index("method")
    d, m, layers = 96, pocket_config().text_config.intermediate_size, 12
    for method, n in (("vanilla", 576), ("mustdrop", 64)):
        found = frame.loc[method]
        three = layers * (4 * n * d**2 + 2 * n**2 * d + 3 * n * d * m)
        assert found["macs_three"] == three
        assert found["macs_two"] == three - layers * n * d * m
        assert found["flops"] == 2 * found["macs"] > 2 * found["macs_three"]
        assert found["kv_vision_bytes"] == 2 * (n - 4) * layers * d * 4
        assert found["kv_bytes"] - found["kv_vision_bytes"] == 2 * 15 * layers * d * 4
        assert found["kv_paper_mb"] == pytest.approx(0.525 * (n - 4))
    assert isnan(frame.loc["random", "macs"])
    next_part = costs(fill("table6", load(tmp_path))[1]).set_index("method")
    told = ["paper_kv_mb", "paper_tera_flops", "paper_seconds"]
    assert next_part.loc["mustdrop", told].tolist() == [168.0, 1.1, 933.0]
    made = cost_sheet(layouts()["table6"], filled, costs(filled))
    assert not any("published" in head for head in made.heads)
    random = next(row for row in made.rows if row[0] == "random")
    assert random[2:] == ("–",) * (len(made.heads) - 2)


def test_shapes_are_the_models():
    text = pocket_config().text_config
    assert shapes()["pocket"] == (
        DecoderShape(text.hidden_size, text.num_attention_heads * text.head_dim,
                     text.num_key_value_heads * text.head_dim, text.intermediate_size,
                     text.vocab_size, 4), text.num_hidden_layers,
    )  # fmt: skip
    for name, (_, layers) in shapes().items():
        config = composed(f"model={name}", "method=vanilla", "budget=none").model
        assert config.layers == layers


def test_an_ablation_is_paired_with_its_reference(tmp_path):
    for method, seed in (("mustdrop_no_keys", 1), ("mustdrop", 2)):
        for budget in ("t64", "t128"):
            write(tmp_path, method, budget, float(budget[1:]), draws(seed + len(budget)),
                  experiment="table5")  # fmt: skip
    frame = ablations(load(tmp_path))
    found = frame[(frame["method"] == "mustdrop") & (frame["budget"] == "t64")].iloc[0]
    oracle = paired_interval(draws(5), draws(4))
    assert found["difference"] == pytest.approx(100 * oracle.value)
    assert found["difference_low"] == pytest.approx(100 * oracle.low)
    assert frame.query("experiment == 'table5' and reference")["method"].unique().tolist() == [
        "mustdrop_no_keys"
    ]
    missing = {
        row["experiment"]: row["command"] for row in frame.to_dict("records") if not row["n"]
    }
    assert set(missing) == {"table4", "ablate_positions", "ablate_fidelity"}
    for experiment, line in missing.items():
        start = f"mustdrop run -m experiment={experiment}"
        assert line.startswith(start)
        # one cell stands for all
        asked = ["method=mustdrop", "budget=t64", *line.removeprefix(start).split()]
        cells = plan(experiment, asked)
        assert cells and all(cell.config is not None for cell in cells)


def test_an_ablation_takes_its_methods_from_another_experiment_where_it_has_no_run(tmp_path):
    for place, method in enumerate(("mustdrop_no_keys", "mustdrop_global", "mustdrop", "fastv")):
        write(tmp_path, method, "t64", 64.0, draws(place))
    frame = ablations(load(tmp_path))
    assert set(frame.query("experiment == 'table4' and n > 0")["method"]) == {
        "mustdrop_no_keys", "mustdrop_global",
    }  # fmt: skip
    assert set(frame.query("experiment == 'table5' and n > 0")["method"]) == {
        "mustdrop_no_keys", "mustdrop",
    }  # fmt: skip
    # of two runs none is chosen, and what is left of the ablation is none
    write(tmp_path, "mustdrop", "t64", 64.0, draws(9), key="k2", config={"prefill": {"alpha": 1}})
    frame = ablations(load(tmp_path))
    assert not frame.query("experiment == 'table5'")["n"].any()
    # its own experiment's run goes before those of others
    write(tmp_path, "mustdrop", "t128", 128.0, draws(9), experiment="table5", key="k3")
    found = ablations(load(tmp_path)).query("experiment == 'table5'")
    assert found["budget"].tolist() == ["t128"]


def test_steps_of_a_chain_tell_what_each_adds(tmp_path):
    base = {"vision": {"score": "sum"}, "prefill": {"strict": False},
            "dropper": {"positions": "original"}}  # fmt: skip
    second = {**base, "vision": {"score": "mean"}}
    third = {**second, "dropper": {"positions": "compact"}}
    for place, config in enumerate((third, base, second)):
        write(tmp_path, "mustdrop", "t64", 64.0, draws(place), experiment="ablate_fidelity",
              key=f"k{place}", config=config)  # fmt: skip
    frame = ablations(load(tmp_path)).query("experiment == 'ablate_fidelity'")
    assert frame["changed"].tolist() == [
        "", "and vision.score=mean", "and dropper.positions=compact",
    ]  # fmt: skip
    assert frame["reference"].tolist() == [True, False, False]
    assert frame["difference"].iloc[2] == pytest.approx(
        100 * (np.mean(draws(0)) - np.mean(draws(1)))
    )
    sheets = {
        each.title.split(" · ")[0]: each for each in ablation_sheets(ablations(load(tmp_path)))
    }
    assert sheets["ablate_fidelity"].rows[0][-1] == "reference"
    assert sheets["table4"].rows == ()


def unescaped(text, letter):
    return len(re.findall(rf"(?<!\\){re.escape(letter)}", text))


def test_latex_has_balanced_braces_and_a_cell_a_column(tmp_path, capsys):
    ran(tmp_path, "mustdrop", "gqa")
    pocket_runs(tmp_path, "table3")
    for table in ("table1", "table2", "table3", "ablations", "summary"):
        assert main([table, "--runs", str(tmp_path), "--format", "latex"]) == 0
        text = capsys.readouterr().out
        assert unescaped(text, "{") == unescaped(text, "}")
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 0
        for body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S):
            columns, lines = body
            rows = [
                line for line in lines.strip().splitlines() if not re.match(r"\\\w+rule$", line)
            ]
            assert rows and all(unescaped(row, "&") == len(columns) - 1 for row in rows)
            assert all(row.endswith(r" \\") for row in rows)
        assert not re.search(r"(?<!\\)[%#]", text) and "_" not in re.sub(r"\\_", "", text)


def test_what_latex_reads_as_its_own_is_escaped():
    assert escape("50%_&#{}~^\\$") == (
        r"50\%\_\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\$"
    )
    made = Sheet("t_1", ("method", "x"), (("a", "1\n[2, 3]"),), frozenset(), ("mustdrop a_b",))
    text = to_latex(made)
    # an interval on a line of its own is no option of the line break before it
    assert r"a & \makecell{1 \\ {}[2, 3]} \\" in text
    assert r"\texttt{mustdrop a\_b}" in text and r"\caption{t\_1}" in text


def test_csv_is_tidy_and_keeps_every_digit(tmp_path, capsys):
    scores = draws(3, 37)
    ran(tmp_path, "mustdrop", "gqa", scores=scores)
    assert main(["table1", "--runs", str(tmp_path), "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == (14 + 3) * (7 + 1)
    found = [line for line in lines if line["state"] == "measured" and line["n"] == "37"]
    assert len(found) == 1 and float(found[0]["ours"]) == 100 * np.mean(scores)
    assert float(found[0]["low"]) == 100 * mean_interval(scores).low
    assert found[0]["band_sources"].count("2411.10803") == 1


def test_markdown_and_files(tmp_path, capsys):
    ran(tmp_path, "mustdrop", "gqa")
    target = tmp_path / "made" / "table1.md"
    assert main(["table1", "--runs", str(tmp_path), "--format", "md", "--out", str(target)]) == 0
    assert capsys.readouterr().out == ""
    text = target.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 2  # two widths: NeXT, LLaVA
    assert "- `mustdrop run" in text and "<br>64.0 tokens" in text
    text_file = tmp_path / "table1.txt"
    assert main(["table1", "--runs", str(tmp_path), "--out", str(text_file)]) == 0
    assert "64.0 tokens" in text_file.read_text()


def test_a_wide_table_breaks_between_benchmarks_and_repeats_the_names(tmp_path):
    ran(tmp_path, "mustdrop", "gqa")
    made = score_sheet(layouts()["table1"], fill("table1", load(tmp_path))[0])
    console = Console(width=90, record=True, file=io.StringIO())
    show_sheet(made, console)
    text = console.export_text()
    assert text.count("sparsevlm  t192") == text.count("(more)") + 1 > 1
    assert max(map(len, text.splitlines()[:20])) <= 90
    for head in ("gqa", "textvqa"):
        assert head in sheet_markdown(made)


def test_folders_that_overlap_are_read_once(tmp_path):
    ran(tmp_path, "mustdrop", "gqa")
    assert len(runs([tmp_path, tmp_path / "e"], None, empty=False)) == 1
    floor(tmp_path, "fastv", "t64", 144.0)
    assert len(runs([tmp_path], None, empty=True)) == 2
