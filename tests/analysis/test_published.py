import hashlib
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from results import draws, write

from analysis.published import (
    check,
    judged,
    match_published,
    paper_table,
    printed_claims,
    published,
)
from analysis.published.__main__ import _counted, main
from analysis.published.bands import band, bands, cell, index
from analysis.published.claims import PrintedClaim, agrees
from analysis.published.formulas import SHAPE, macs_two_matrices
from analysis.published.matching import measures, names, shown_measure
from analysis.published.numbers import COLUMNS, NUMBERS
from analysis.tables import summary
from mustdrop.cost import sparsevlm_macs
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir


def test_table_1_is_the_papers():
    table = paper_table(1)
    assert {source for source, _, _ in table.columns} == {"paper"}
    ours = table.loc[("LLaVA-1.5-7B", "64 (equal avg tokens)", "MustDrop")]
    assert ours.tolist() == [53.1, 60.0, 1612, 51.2, 63.4, 69.3, 54.2]
    assert len(table) == 17
    with pytest.raises(ValueError, match=r"table must be one of \[1, 2, 3, 4, 5, 6\], got 7"):
        paper_table(7)


def test_no_published_number_is_lost():
    """Counts, sums and a digest of the values as they were collected, before they had columns."""
    numbers = published()
    assert len(numbers) == 1418
    values = "\n".join(sorted(f"{value:.6g}" for value in numbers["value"]))
    digest = "6e29bcb32a988241b21364f22145473aee785869a557e3d967d47ac3307d0db3"
    assert hashlib.sha256(values.encode()).hexdigest() == digest
    sizes = numbers.groupby("source")["value"].agg(["count", "sum"])
    collected = {
        "EADP (ECCV 2026) main table": (374, 66469.8),
        "arXiv:2510.02912 main table": (310, 70370.4),
        "arXiv:2505.22654 main table": (168, 38631.2), "TwigVLM++ Table 1": (141, 42383.2),
        "arXiv:2411.10803 Table 1": (113, 32203.7), "arXiv:2411.10803 Table 2": (24, 736.1),
        "arXiv:2411.10803 Table 3": (8, 816.4), "arXiv:2411.10803 Table 4": (8, 418.9),
        "arXiv:2411.10803 Table 5": (8, 454.4), "arXiv:2411.10803 Table 6": (12, 5676.5),
        "arXiv:2510.02912 POPE efficiency table": (39, 22749.862), "TReVS": (6, 290.3),
        "arXiv:2510.02912 video table": (12, 404.5), "MoB Table 5": (38, 11279.8),
        "MoB video table": (29, 1562.4), "CDPruner Table 5": (12, 2957.5),
        "arXiv:2502.11501 144-token table": (35, 10688.4),
        "arXiv:2502.11501 64-token average": (3, 254.6),
        "arXiv:2502.11501 RefCOCO table": (5, 89.7),
        "arXiv:2502.11501 Visual Haystacks table": (20, 1256.9),
        "arXiv:2502.11501 efficiency table": (3, 1513.6),
        "arXiv:2502.11494 Table 2": (15, 8519.4), "arXiv:2502.11494 video table": (6, 185.0),
        "github.com/Cooperx521/PyramidDrop#4": (9, 548.8),
        "github.com/Gumpest/SparseVLMs#12": (3, 199.7),
        "github.com/pkunlp-icler/FastV README": (14, 4393.9),
        "tcbench EXPERIMENT_LOG": (3, 173.74),
    }  # fmt: skip
    assert set(sizes.index) == set(collected)
    for source, (count, total) in collected.items():
        assert sizes.loc[source].tolist() == [count, pytest.approx(total)]


def test_what_is_copied_says_so():
    numbers = published()
    table_1 = numbers[numbers["table"] == 1]
    by = table_1.groupby("method")["provenance"].unique().map(set)
    assert by["MustDrop"] == {"own"} and by["ToMe"] == {"copied"}
    own = {
        (row.model, row.tokens, row.benchmark, row.metric): row.value
        for row in table_1[table_1["method"] == "MustDrop"].itertuples()
    }
    others = numbers[(numbers["method"] == "MustDrop") & numbers["table"].isna()]
    copies = [
        own.get((row.model, row.tokens, row.benchmark, row.metric)) == row.value
        for row in others.itertuples()
    ]
    assert sum(copies) == 6 + 3 * 7 + 7  # TwigVLM++, HoloV at three budgets and on NeXT
    assert (others["provenance"].eq("copied") == copies).all()


def file(tmp_path, line=None, **changes):
    """The published numbers with changes in one line, 2 being the first."""
    frame = pd.read_csv(NUMBERS, dtype=str, keep_default_na=False)
    for name, value in changes.items():
        frame.loc[line - 2, name] = value
    path = tmp_path / "numbers.csv"
    frame.to_csv(path, index=False)
    return path


def test_the_numbers_keep_their_schema():
    assert list(check().columns) == [*COLUMNS, "line", "table"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": "seen"}, r"line 7: provenance must be one of .*, got 'seen'"),
        ({"metric": "accuracy_top5"}, r"line 7: metric must be one of"),
        ({"model": "LLaVA"}, r"line 7: model must be one of"),
        ({"split": "dev"}, r"line 7: split must be one of"),
        ({"budget_kind": "some"}, r"line 7: budget_kind must be one of"),
        ({"value": "101"}, r"line 7: accuracy must be in \[0, 100\] percent, got 101"),
        ({"value": "-1"}, r"line 7: accuracy must be in \[0, 100\]"),
        ({"unit": "points"}, r"line 7: unit of accuracy must be one of \['percent'\]"),
        ({"source": ""}, r"line 7: source must not be empty"),
        ({"tokens": "570"}, r"line 7: vanilla of LLaVA-1.5-7B has 576 tokens, got 570"),
        ({"method": "FastV"}, r"line 7: budget_kind vanilla belongs to method vanilla"),
        ({"tokens": "", "budget_kind": "nominal", "method": "A"}, r"tokens must be in \(0, 576"),
        ({"benchmark": "GQA", "split": "", "value": "60"}, r"7: .* second time: 60, not 61.9"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, capsys, changes, message):
    path = file(tmp_path, 7, **changes)
    with pytest.raises(ValueError, match=message):
        check(path)
    assert main(["--file", str(path)]) == 1
    assert "line 7" in capsys.readouterr().err


def test_a_file_of_other_numbers_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("method,value\na,1\n")
    with pytest.raises(ValueError, match="must have the columns"):
        published(path)
    with pytest.raises(ValueError, match=r"line 9: value must be a number, got 'much'"):
        published(file(tmp_path, 9, value="much"))


def rows(*told):
    return [
        {"value": value, "provenance": provenance, "source": source, "line": line}
        for line, (value, provenance, source) in enumerate(told)
    ]


def test_equal_values_are_one_measurement():
    found = band(rows((52.7, "copied", "a"), (56.5, "unstated", "b"), (52.7, "own", "c")))
    assert (found.low, found.high, found.values, found.independent) == (52.7, 56.5, 2, 1)
    assert found.sources == ("52.7 a (copied)", "52.7 c (own)", "56.5 b (unstated)")
    assert band(rows((1.0, "copied", "a"), (2.0, "unstated", "b"))).independent == 0
    measured = band(rows((1.0, "re-run", "a"), (2.0, "user report", "b"), (3.0, "own", "c")))
    assert measured.independent == 3
    twice = band(rows((1.0, "own", "a"), (1.0, "re-run", "b")))
    assert (twice.values, twice.independent) == (1, 1)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((55.0, 54.0, 56.0), "inside"),
        ((50.0, 49.0, 53.0), "inside"),  # the interval meets the band from below
        ((60.0, 56.4, 63.0), "inside"),
        ((50.0, 49.0, 52.6), "outside"),
        ((60.0, 56.6, 63.0), "outside"),
        ((55.0, math.nan, math.nan), "inside"),
        ((60.0, math.nan, math.nan), "no interval"),
    ],
)
def test_ours_is_inside_where_its_interval_meets_the_band(interval, verdict):
    assert band(rows((52.7, "own", "a"), (56.5, "own", "b"))).judge(*interval) == verdict
    unknown = band(rows((52.7, "unstated", "a"), (56.5, "copied", "b")))
    assert unknown.judge(*interval) == "no independent source"
    assert band([]).judge(*interval) == "not published"


def test_bands_are_those_of_a_loop_over_the_file():
    numbers = published().to_dict("records")
    found = {
        (row["model"], row["method"], row["tokens"], row["benchmark"], row["metric"], row["split"]):
        (row["low"], row["high"], row["values"]) for row in bands(numbers)
    }  # fmt: skip
    for (model, method, tokens, *measure), ends in list(found.items())[::40]:
        values = set()
        for row in numbers:
            same = [row["benchmark"], row["metric"], row["split"]] == measure
            if same and (row["model"], row["method"], row["tokens"]) == (model, method, tokens):
                values.add(row["value"])
        assert ends == (min(values), max(values), len(values))
    one = cell(index(numbers), "LLaVA-1.5-7B", "PyramidDrop", 64, "MMBench-EN", "accuracy")
    assert sorted({row["value"] for row in one}) == [33.3, 48.3, 58.8]


def test_a_split_is_another_cell():
    numbers = index(published().to_dict("records"))
    asked = "LLaVA-1.5-7B", "DivPrune", 64, "VizWiz", "accuracy"
    test, val = cell(numbers, *asked, "test"), cell(numbers, *asked, "val")
    assert not test and len(val) == 1


def test_measured_and_published_never_share_a_column(tmp_path):
    model = {"name": "llava15_7b"}
    write(tmp_path, "fastv", "t64", 80.3, draws(1), model="llava15_7b", benchmark="scienceqa")
    write(tmp_path, "vanilla", "none", 576.0, draws(0), model="llava15_7b", benchmark="nowhere",
          config={"model": model})  # fmt: skip
    write(tmp_path, "mustdrop", "t64", 64.0, draws(1), model="llava15_7b", benchmark="vqav2")
    frame = match_published(summary(tmp_path)).set_index("method")
    found = frame.loc["fastv"]
    assert (found["ours"], found["paper"]) == (pytest.approx(100 * np.mean(draws(1))), 51.1)
    assert (found["band_low"], found["band_high"]) == (51.1, 70.0)
    assert found["verdict"] == "no independent source"
    assert found["ours_executed"] == 80.3
    assert math.isnan(frame.loc["vanilla", "paper"])
    assert frame.loc["vanilla", "verdict"] == "not published"
    # ours is val, theirs test-dev
    assert frame.loc["mustdrop", "paper"] == 69.3
    assert frame.loc["mustdrop", "verdict"] == "not comparable"


def test_every_benchmark_and_model_of_ours_has_a_published_name_or_says_there_is_none():
    benchmarks = {path.stem: yaml.safe_load(path.read_text())
                  for path in (conf_dir() / "benchmark").glob("*.yaml")}  # fmt: skip
    known = {one.benchmark for one in measures()}
    assert known == set(benchmarks)
    for name, config in benchmarks.items():
        own = [one for one in measures() if one.benchmark == name]
        # the score that samples have is listed, so that it is never read as another
        assert config["metric"] in {one.metric for one in own}, name
    numbers = published()
    for one in measures():
        if (one.published[0] and one.published[1:] != ("accuracy", "")) or one.comparable:
            benchmark = numbers[numbers["benchmark"] == one.published[0]]
            assert not benchmark.empty, one
    models, methods = (
        {path.stem for path in (conf_dir() / kind).glob("*.yaml")} for kind in ("model", "method")
    )
    assert set(names("model")) <= models and set(names("method")) <= methods
    assert set(names("model").values()) <= set(numbers["model"])
    spelt = set(names("method").values()) - {"VisPruner"}
    assert spelt <= set(numbers["method"])


def test_splits_are_those_of_conf():
    split = {name: composed(f"benchmark={name}", "method=vanilla").benchmark.task.split
             for name in ("vizwiz", "vqav2", "scienceqa", "textvqa")}  # fmt: skip
    assert split == {
        "vizwiz": "val", "vqav2": "validation", "scienceqa": "test", "textvqa": "validation",
    }  # fmt: skip
    comparable = {one.published: one.comparable for one in measures() if one.benchmark == "vizwiz"}
    assert comparable == {
        ("VizWiz", "accuracy", "test"): False, ("VizWiz", "accuracy", "val"): True,
    }  # fmt: skip
    assert (
        shown_measure("vqav2").comparable is False
        and shown_measure("mmbench").metric == "gpt_eval_score"
    )
    assert (
        shown_measure("pope").published[1] == "F1"
        and shown_measure("mme").published[1] == "score_sum"
    )


def test_the_claims_are_judged_by_arithmetic_done_here_by_hand():
    """Every number from the paper's text and tables, typed in anew."""
    found = judged().set_index("id")
    by_hand = {
        "flops_abstract": (100 * (1 - 1.1 / 9.6), "follows"),
        "compression_abstract": (100 * (1 - 45 / 576), "follows"),
        "one_setting": (100 * (1 - 320 / 2880), "does not follow"),
        "slower": (100 * ((18 * 60 + 26) / (15 * 60 + 33) - 1), "follows in another reading"),
        "speed": (100 * ((26 * 60 + 34) / (15 * 60 + 33) - 1), "follows in another reading"),
        "storage": (1512.1 - 168.0, "follows"),
        "prefill_cache": (100 * (1 - 33.6 / 231.0), "follows in another reading"),
        "prefill_costs": (100 * (1 - 55.1 / 58.3), "follows in another reading"),
        "average_cls": ((47.3 + 50.2) / 2, "follows"),
        "global_gain": (100 * ((52.2 + 54.7) / (47.3 + 50.2) - 1), "follows in another reading"),
        "keys_mmbench": (100 * ((60.0 + 61.1) / (56.0 + 59.2) - 1), "follows in another reading"),
        "video_msvd": (100 * (71.5 / 70.2 - 1), "follows in another reading"),
        "video_average": ((46.2 + 71.5 + 56.5) / 3, "follows"),
        "cache_vanilla": (2 * 32 * 4096 * 2 * 2880 / 1e6, "does not follow"),
        "three_datasets": (2, "does not follow"),
        "strategy_costs_more": (0, "does not follow"),
    }  # fmt: skip
    for name, (number, verdict) in by_hand.items():
        assert found.loc[name, "given"] == (pytest.approx(number),), name
        assert found.loc[name, "verdict"] == verdict, name


def test_the_gain_over_sparsevlm_follows_only_as_a_share_of_mustdrops_own_score():
    ours = [57.3, 62.8, 1641, 54.0, 68.0, 73.7, 59.9]
    theirs = [56.1, 60.6, 1533, 52.0, 66.1, 71.5, 58.4]
    found = judged().set_index("id").loc["over_sparsevlm"]
    relative = [100 * (a - b) / b for a, b in zip(ours, theirs, strict=True)]
    of_self = [100 * (a - b) / a for a, b in zip(ours, theirs, strict=True)]
    assert found["given"] == (pytest.approx(min(relative)), pytest.approx(max(relative)))
    assert found["readings"][1][1] == [pytest.approx(min(of_self)), pytest.approx(max(of_self))]
    assert found["verdict"] == "follows in another reading"


def test_wins_are_counted_cell_by_cell():
    found = judged().set_index("id")["given"]
    ours = [[58.2, 62.3, 1787, 51.4, 69.2, 76.0, 56.5], [56.9, 61.1, 1745, 52.1, 68.5, 74.6, 56.3],
            [53.1, 60.0, 1612, 51.2, 63.4, 69.3, 54.2]]  # fmt: skip
    theirs = [[57.6, 62.5, 1721, 50.5, 69.1, 75.6, 56.1],
              [56.0, 60.0, 1696, 51.4, 67.1, 73.8, 54.9],
              [52.7, 56.2, 1505, 50.1, 62.2, 68.2, 51.8]]  # fmt: skip
    assert found["not_superior_sparsevlm"] == (int(np.sum(np.array(ours) >= theirs)),) == (20,)
    assert found["all_datasets"] == (7,) and found["not_superior_fastv"] == (18,)
    assert found["video_fastv"] == (5,)  # MSVD's score is a tie
    assert found["video_lossless"] == (3,)


@pytest.mark.parametrize(
    ("printed", "given", "same"),
    [((48.8,), (48.75,), True), ((48.8,), (48.74,), False), ((41.5,), (41.47,), True),
     ((136,), (136.0,), True), ((2.1, 6.6), (2.09, 6.58), True), ((2.1, 6.6), (2.14, 7.05), False),
     ((3.0,), (2.95,), True), ((3.0,), (2.6,), False)],
)  # fmt: skip
def test_a_printed_number_is_met_to_its_last_digit(printed, given, same):
    assert agrees(printed, given) is same


def test_a_claim_about_cells_that_are_not_there_is_refused(tmp_path):
    reading = {"says": "x", "formula": "mean", "cells": [{"table": 1, "method": "MustDrop"}]}
    with pytest.raises(ValueError, match="must name one published number, it names"):
        judged([PrintedClaim("x", "q", "w", (1.0,), (reading,))])
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([{"id": "x", "quote": "q", "where": "w", "printed": 1.0,
                                     "readings": [{**reading, "formula": "magic"}]}]))  # fmt: skip
    with pytest.raises(ValueError, match="x: no formula 'magic'"):
        printed_claims(path)
    path.write_text(yaml.safe_dump([{"id": "x"}]))
    with pytest.raises(ValueError, match="a claim must have"):
        printed_claims(path)


def test_operations_of_a_count_of_tokens_are_those_of_the_field():
    """32 layers of 4096 and 11008; 576 tokens: 3.817 T with three matrices, 2.99 with two."""
    three = {n: sparsevlm_macs([n] * 32, SHAPE) / 1e12 for n in (576, 320, 192, 64)}
    assert three == {576: pytest.approx(3.817, abs=1e-3), 320: pytest.approx(2.10, abs=5e-3),
                     192: pytest.approx(1.253, abs=1e-3),
                     64: pytest.approx(0.416, abs=1e-3)}  # fmt: skip
    two = {n: macs_two_matrices([n] * 32, SHAPE) / 1e12 for n in (576, 320, 2880)}
    assert two == {576: pytest.approx(2.99, abs=5e-3), 320: pytest.approx(1.64, abs=5e-3),
                   2880: pytest.approx(16.67, abs=5e-3)}  # fmt: skip
    given = judged().set_index("id")
    assert given.loc["flops_vanilla", "verdict"] == "does not follow"
    assert given.loc["flops_vanilla", "given"] == (pytest.approx(41.65, abs=5e-3),)


def test_the_command_tells_both(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "1418 numbers of 27 tables" in out and "973 unstated" in out and "33.3" in out
    assert main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "50 claims: 29 follow, 13 follow in another reading, 8 do not follow" in out
    assert main(["--file", "nowhere.csv"]) == 1


def test_claims_are_counted_in_grammar():
    assert [_counted(count, "follows") for count in (0, 1, 29)] == [
        "0 follow", "1 follows", "29 follow",
    ]  # fmt: skip
    assert _counted(5, "follows in another reading") == "5 follow in another reading"
    assert [_counted(count, "does not follow") for count in (1, 2)] == [
        "1 does not follow", "2 do not follow",
    ]  # fmt: skip
