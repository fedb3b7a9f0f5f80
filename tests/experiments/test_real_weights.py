"""The study of trained weights: its measures on PocketLLaVA, its record, and PocketSmol."""

import json

import pytest
import torch

from experiments.real_weights import __main__ as script
from experiments.real_weights.report import figure, tables
from experiments.real_weights.rounding import changed_share
from mustdrop.ledger import TokenLedger


def ledger(*alive):
    vision = torch.tensor([False, True, True, True, True, False])
    layers = {layer: torch.tensor(kept) for layer, kept in enumerate(alive)}
    return TokenLedger(seq_len=6, vision=vision, protected=~vision, alive=layers)


def test_the_changed_share_counts_vision_tokens_of_all_layers():
    usual = ledger([0, 1, 2, 3, 4, 5], [0, 1, 2, 5])
    assert changed_share(usual, usual) == 0
    # one of six vision tokens that were alive, and a text token, which does not count
    assert changed_share(usual, ledger([0, 1, 2, 3, 4], [0, 2, 3, 5])) == pytest.approx(1 / 6)
    assert changed_share(usual, ledger([0], [5])) == 1


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """One question of PocketLLaVA, all parts."""
    out = tmp_path_factory.mktemp("study")
    arguments = ["--model", "pocket", "--n", "1", "--methods", "fastv", "--budget", "t128"]
    assert script.main([*arguments, "--threads", "1", "--out", str(out)]) == 0
    return out, arguments


def test_every_part_has_its_rows_and_they_obey_their_laws(record):
    out, _ = record
    rows = json.loads((out / "record.json").read_text())["rows"]
    assert {part: len(rows[part]) for part in script.PARTS} == {
        "attention": 1, "batch": 3, "masking": 3, "stability": 1, "withdrawal": 6,
    }  # fmt: skip
    (looks,) = rows["attention"]
    for shares in (*looks["shares"], *looks["last"]):
        assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert len(looks["shares"]) == 12 and looks["kept"] == {"fastv": 87}
    assert all(1 / 576 <= top < 1 for top in looks["top"])
    errors = {row["dtype"]: row["error"] for row in rows["masking"]}
    assert errors["float32"] <= 1e-5 < errors["float16"] < errors["bfloat16"] < 0.05
    assert min(row["effect"] for row in rows["masking"]) > 1e-3
    assert rows["stability"][0]["batch"] == 0
    # the model needs its vision tokens at first, and hardly in the last layers
    assert rows["withdrawal"][0]["kl"] > 100 * rows["withdrawal"][-1]["kl"]
    assert (out / "tables.txt").read_text().count("n = 1 questions") == 5
    assert (out / "figure.png").is_file()


def test_the_same_command_measures_nothing_twice(record, monkeypatch, capsys):
    out, arguments = record
    for name in ("attention_row", "batch_row", "masking_row", "stability_row", "withdrawal_row"):
        monkeypatch.setattr(script, name, lambda *given: pytest.fail("measured again"))
    script.main([*arguments, "--out", str(out)])
    with pytest.raises(ValueError, match="was made with budget t128, here t192"):
        script.main([*arguments[:-1], "t192", "--out", str(out)])


def test_a_method_without_its_threshold_is_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="no threshold was calibrated"):
        script.main(
            ["--model", "pocket", "--methods", "mustdrop", "--budget", "t100", "--out",
             str(tmp_path)]
        )  # fmt: skip
    with pytest.raises(ValueError, match="n must be a count of 1 or more, got 0"):
        script.main(["--n", "0", "--out", str(tmp_path)])


def test_a_part_that_was_not_measured_has_no_table():
    rows = {part: [] for part in script.PARTS}
    rows["withdrawal"] = [{"index": 0, "layers": 24, "kl": 0.5, "same": True}]
    text = tables({"rows": rows, "layers": 30})
    assert text.count("(n = ") == 1 and "24 of 30" in text and "5.00e-01" in text
    with pytest.raises(ValueError, match="no rows of attention"):
        figure({"rows": rows, "layers": 30})


@pytest.mark.smol
@pytest.mark.timeout(900)
def test_it_runs_on_pocket_smol(smol_package, tmp_path):
    arguments = ["--n", "1", "--methods", "fastv", "cls_topk", "--out", str(tmp_path)]
    assert script.main([*arguments, "--parts", "attention", "masking"]) == 0
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert len(rows["attention"][0]["shares"]) == 30
    errors = [row["error"] for row in rows["masking"] if row["dtype"] == "float32"]
    assert len(errors) == 2 and max(errors) <= 1e-5
