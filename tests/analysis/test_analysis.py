import csv
import io
import json

import numpy as np
import pytest
from results import draws, floor, write, write_three
from rich.console import Console
from scipy import stats

from analysis.records.cells import load
from analysis.statistics.intervals import paired_interval
from analysis.tables import by_type, show, summary, summary_of, to_csv, to_markdown
from analysis.tables.__main__ import main
from analysis.tables.sheets import sheet


@pytest.fixture
def root(tmp_path):
    return write_three(tmp_path)


def row(frame, method, budget="t192"):
    found = frame[(frame["method"] == method) & (frame["budget"] == budget)]
    assert len(found) == 1
    return found.iloc[0]


def wilson(right, n):
    """Both roots p of (right / n - p)^2 = z^2 p (1 - p) / n."""
    z = stats.norm.ppf(0.975)
    return sorted(np.roots([1 + z**2 / n, -(2 * right / n + z**2 / n), (right / n) ** 2]))


def test_accuracy_and_its_interval_come_from_the_samples(root):
    found = row(summary(root), "mustdrop")
    assert found["accuracy"] == np.mean(draws(2)) and found["interval"] == "wilson"
    assert [found["low"], found["high"]] == pytest.approx(wilson(sum(draws(2)), 40), abs=1e-9)


def test_scores_between_0_and_1_get_students_interval(tmp_path):
    soft = tuple(np.random.default_rng(3).choice([0.0, 0.3, 0.6, 1.0], 40))
    write(tmp_path, "vanilla", "none", 576.0, soft)
    found = summary(tmp_path).iloc[0]
    oracle = stats.ttest_1samp(soft, 0).confidence_interval(0.95)
    assert found["interval"] == "t"
    assert [found["low"], found["high"]] == pytest.approx([*oracle])


def test_cells_are_paired_by_document_not_by_line(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(1))
    write(tmp_path, "mustdrop", scores=draws(1), order=[*reversed(range(40))])
    found = row(summary(tmp_path), "mustdrop")
    assert found["vs_vanilla"] == 0
    assert found["vs_vanilla_high"] < paired_interval(draws(1), draws(1)[::-1]).high / 2


def test_only_shared_documents_are_compared_and_the_table_says_how_many(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0, 50))
    write(tmp_path, "mustdrop", scores=draws(2))
    frame = summary(tmp_path)
    found = row(frame, "mustdrop")
    assert found["vs_vanilla_n"] == 40
    assert found["vs_vanilla"] == pytest.approx(np.mean(draws(2)) - np.mean(draws(0, 50)[:40]))
    write(tmp_path, "fastv", scores=draws(3, 60))
    assert "fastv t192: 50 of its 60 samples are shared with vanilla" in to_markdown(
        summary(tmp_path)
    )


def test_random_is_matched_by_executed_average_not_by_name(root):
    frame = summary(root)
    assert row(frame, "mustdrop")["vs_random"] == pytest.approx(
        np.mean(draws(2)) - np.mean(draws(1))
    )
    write(root, "fastv", executed=200.0, scores=draws(4))  # 4 % off
    write(
        root, "random", "t64", 199.0, draws(5, p=0.4)
    )  # so called, but run at fastv's own average
    write(root, "vtw", "t128", 128.0, draws(6))
    frame = summary(root)
    assert row(frame, "fastv")["vs_random"] == pytest.approx(
        np.mean(draws(4)) - np.mean(draws(5, p=0.4))
    )
    assert row(frame, "vtw", "t128")["vs_random_n"] == 0
    assert row(frame, "random")["vs_random_n"] == 0
    assert row(frame, "vanilla", "none")["vs_vanilla_n"] == 0


def test_seeds_of_random_are_averaged_and_other_differences_are_not(root):
    # a seed stands in the strategy too, and in its copy under dropper
    strategy = {"prefill": {"seed": 1, "keep": 3}}
    again = {**strategy, "dropper": strategy}
    write(root, "random", scores=draws(7), key="k2", seed=1, config=again)
    first = next(root.rglob("random/**/vqa-k/record.json"))
    record = json.loads(first.read_text())
    record["config"] |= {
        "prefill": {"seed": 0, "keep": 3},
        "dropper": {"prefill": {"seed": 0, "keep": 3}},
    }
    first.write_text(json.dumps(record))
    frame = summary(root)
    found = row(frame, "mustdrop")
    pairs = np.array(draws(2)) - (np.array(draws(1)) + np.array(draws(7))) / 2
    assert found["vs_random"] == pytest.approx(pairs.mean())
    oracle = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert [found["vs_random_low"], found["vs_random_high"]] == pytest.approx([*oracle])
    assert set(frame.loc[frame["method"] == "random", "variant"]) == {
        f"seed={seed}, prefill.seed={seed}" for seed in (0, 1)
    }
    write(root, "random", scores=draws(8), key="k3", config={"prefill": {"layer": 3}})
    frame = summary(root)
    assert row(frame, "mustdrop")["vs_random_n"] == 0
    assert any("prefill.layer=3" in variant for variant in frame["variant"])


def test_a_control_on_another_image_is_not_vanilla(root):
    blank = {"image": {"_target_": "mustdrop.evaluation.image_controls.Blank", "name": "blank"}}
    write(root, "vanilla", "none", 576.0, draws(9, p=0.2), key="blank", config=blank)
    frame = summary(root)
    assert row(frame, "mustdrop")["vs_vanilla"] == pytest.approx(
        np.mean(draws(2)) - np.mean(draws(0, p=0.9))
    )
    found = frame[frame["image"] == "blank"].iloc[0]
    assert found["vs_vanilla"] == pytest.approx(np.mean(draws(9, p=0.2)) - np.mean(draws(0, p=0.9)))
    assert "image" in sheet(frame).heads and "variant" not in sheet(frame).heads
    # what a selection is worth on a blank image is told by random tokens of a blank image
    write(root, "mustdrop", executed=193.0, scores=draws(10, p=0.2), key="blank", config=blank)
    shown = summary(root).set_index(["method", "image"])
    assert shown.loc[("mustdrop", "blank"), "vs_random_n"] == 0
    write(root, "random", scores=draws(11, p=0.3), key="blank", config=blank)
    shown = summary(root).set_index(["method", "image"])
    assert shown.loc[("mustdrop", "blank"), "vs_random"] == pytest.approx(
        np.mean(draws(10, p=0.2)) - np.mean(draws(11, p=0.3))
    )
    assert shown.loc[("mustdrop", ""), "vs_random"] == pytest.approx(
        np.mean(draws(2)) - np.mean(draws(1))
    )
    assert shown.loc[("random", "blank"), "vs_random_n"] == 0


def beside(root, method, **kinds):
    """Puts controls into the samples of a run: of each kind the scores of every seed."""
    path = next(root.rglob(f"{method}/**/samples.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["controls"] = {
            kind: [
                {"seed": seed, "scores": {"exact_match": scores[line["doc_id"]]}}
                for seed, scores in enumerate(seeds)
            ]
            for kind, seeds in kinds.items()
        }
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_row_is_held_against_its_own_schedule_whatever_its_budget(root):
    assert "Δ schedule" not in to_markdown(summary(root))
    write(root, "fastv", executed=150.0, scores=draws(4))  # 22 % off: no random arm is near
    beside(root, "fastv", schedule_random=[draws(12)])
    found = row(summary(root), "fastv")
    assert found["vs_random_n"] == 0 and found["vs_schedule_n"] == 40
    expected = paired_interval(draws(4), draws(12))
    assert [found["vs_schedule"], found["vs_schedule_low"]] == [expected.value, expected.low]
    assert row(summary(root), "mustdrop")["vs_schedule_n"] == 0
    text = to_markdown(summary(root))
    assert "Δ schedule [95 %]" in text and "Δ grid" not in text
    assert "vs_grid" not in set(summary(root))

    five = [draws(seed) for seed in range(20, 25)]
    beside(root, "fastv", schedule_random=five, flat_random=five[:2], flat_grid=five[:1])
    found = row(summary(root), "fastv")
    pairs = np.array(draws(4)) - np.mean(five, axis=0)
    oracle = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert found["vs_schedule"] == pytest.approx(pairs.mean())
    assert [found["vs_schedule_low"], found["vs_schedule_high"]] == pytest.approx([*oracle])
    # what ran beside it at its own average goes before any arm
    assert found["vs_random"] == pytest.approx(np.mean(draws(4)) - np.mean(five[:2]))
    assert found["vs_grid"] == pytest.approx(np.mean(draws(4)) - np.mean(five[0]))
    assert "Δ grid [95 %]" in to_markdown(summary(root))


def test_controls_beside_a_method_make_it_no_other_method(root):
    """Random arms with and without something beside them are seeds of one setting."""
    asked = {
        "controls": {"_target_": "mustdrop.evaluation.token_controls.Controls", "name": "standard"}
    }
    write(root, "random", scores=draws(7), key="k2", seed=1, config=asked)
    pairs = np.array(draws(2)) - (np.array(draws(1)) + np.array(draws(7))) / 2
    assert row(summary(root), "mustdrop")["vs_random"] == pytest.approx(pairs.mean())
    variants = set(summary(root).query("method == 'random'")["variant"])
    assert variants == {"seed=0, controls=none", "seed=1, controls=standard"}


def test_the_table_of_a_sweep_holds_its_own_cells_alone(root):
    folders = sorted(path.parent for path in root.rglob("record.json"))
    assert list(summary_of(folders[1:])["method"]) == ["random", "vanilla"][::-1]
    assert row(summary_of(folders), "mustdrop").equals(row(summary(root), "mustdrop"))
    alone = row(summary_of(folders[:1]), "mustdrop")
    assert alone["vs_vanilla_n"] == alone["vs_random_n"] == 0
    assert summary_of([root / "not" / "yet"]).empty


def test_an_unmatched_budget_is_flagged_at_one_percent(tmp_path):
    write(tmp_path, "a", executed=193.9)
    write(tmp_path, "b", executed=194.0)
    write(tmp_path, "c", executed=190.0)
    assert summary(tmp_path)["matched"].tolist() == [True, False, False]
    assert "194.0≠" in to_markdown(summary(tmp_path))
    assert "193.9≠" not in to_markdown(summary(tmp_path))


@pytest.mark.parametrize(("least", "text"), [(144.0, "floor 144"), ("25.1%", "floor 25.1%")])
def test_an_unreachable_budget_shows_its_floor_and_nothing_else(root, least, text):
    floor(root, "fastv", "t64", least)
    frame = summary(root)
    assert row(frame, "fastv", "t64")["floor"] == least
    cells = dict(zip(sheet(frame).heads, sheet(frame).rows[-1], strict=True))
    assert cells.pop("method") == "fastv" and cells.pop("budget") == "t64"
    assert cells.pop("exact_match [95 %]") == text
    assert set(cells.values()) == {"–"}


def test_timings_of_two_setups_are_told_apart(root):
    assert "setup" not in sheet(summary(root)).heads
    write(root, "fastv", scores=draws(4), hardware={"cpu": "x", "threads": 2})
    made = sheet(summary(root))
    told = {line[0]: line[made.heads.index("setup")] for line in made.rows}
    assert told["fastv"] != told["mustdrop"] == told["vanilla"]
    assert any("threads 2" in note for note in made.notes)


def test_the_four_counts_stand_together_in_every_form(root):
    counts = ["nominal", "paper average", "executed average", "resident"]
    made = sheet(summary(root))
    for heads in (made.heads, made.halves()[1].heads):
        start = heads.index("nominal")
        assert list(heads[start : start + 4]) == counts
    assert not set(counts) & set(made.halves()[0].heads)
    wide, narrow = (Console(width=width, record=True, file=io.StringIO()) for width in (200, 90))
    for console in (wide, narrow):
        show(summary(root), console)
    assert wide.export_text().count("mustdrop") == 1
    assert narrow.export_text().count("mustdrop") == 2


def test_csv_keeps_every_digit(root, tmp_path):
    frame = summary(root)
    to_csv(frame, tmp_path / "x" / "table.csv")
    with (tmp_path / "x" / "table.csv").open() as file:
        again = list(csv.DictReader(file))
    for name in ("accuracy", "low", "vs_random_high", "executed_average", "kv_ratio"):
        read = [float(line[name] or "nan") for line in again]
        assert np.array_equal(read, frame[name], equal_nan=True)


def test_accuracy_per_type_is_that_of_its_samples(root):
    frame = by_type(root)
    for kind, start in (("count", 0), ("color", 1)):
        found = frame[(frame["method"] == "mustdrop") & (frame["type"] == kind)].iloc[0]
        assert found["accuracy"] == np.mean(draws(2)[start::2]) and found["n"] == 20
    made = sheet(frame)
    assert made.heads == ("method", "budget", "color (n = 20)", "count (n = 20)")
    assert len(made.rows) == 3


def test_arms_that_never_differ_are_held_apart_by_images_in_the_table(tmp_path):
    """40 questions about 8 images: as uncertain as 8 images are, whatever stands beside."""
    for method in ("vanilla", "mustdrop"):
        folder = write(tmp_path, method, "none" if method == "vanilla" else "t192", scores=draws(1))
        lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        for line in lines:
            line["image"] = f"i{line['doc_id'] // 5}"
            seeds = [{"scores": line["scores"]}] * 3
            line["controls"] = {"schedule_random": seeds, "flat_random": seeds}
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "samples.jsonl").write_text(text)
    found = row(summary(tmp_path), "mustdrop")
    least = 1 - 0.025 ** (1 / 8)
    for name in ("vanilla", "random", "schedule"):
        assert found[f"vs_{name}"] == 0 and found[f"vs_{name}_n"] == 40
        ends = [found[f"vs_{name}_low"], found[f"vs_{name}_high"]]
        assert ends == pytest.approx([-least, least])


def test_a_run_that_grows_is_read_as_far_as_its_record(root):
    folder = next(root.rglob("mustdrop/**/record.json")).parent
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "n": 30}))
    assert row(summary(root), "mustdrop")["accuracy"] == np.mean(draws(2)[:30])


def test_no_results_are_one_clear_message(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results folder"):
        load(tmp_path / "none")
    with pytest.raises(ValueError, match="no finished run"):
        load(tmp_path)
    unfinished = write(tmp_path, "mustdrop")
    (unfinished / "record.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        load(tmp_path)
    floor(tmp_path, "fastv", "t64", 144.0)
    with pytest.raises(ValueError, match="question type"):
        by_type(tmp_path)


def test_the_command_prints_each_form(root, capsys):
    for arguments, expected in (
        (["summary"], "mustdrop"),
        (["types"], "color"),
        (["summary", "--format", "md"], "| mustdrop | t192 |"),
        (["summary", "--format", "latex"], r"mustdrop & t192 &"),
        (["summary", "--format", "csv"], "vs_random_low"),
    ):
        assert main([*arguments, "--runs", str(root)]) == 0
        assert expected in capsys.readouterr().out
    assert main(["summary", "--runs", str(root), "--metric", "f1"]) == 1
