"""VTW's search: the first layer at which the next token is what it is with all vision tokens."""

import math
import sys

import pytest
import torch
import yaml
from models import batch, prompt, tiny_llava

from experiments import tuned_table
from experiments import vtw_layer as script
from mustdrop import TokenDropper
from mustdrop.calibration.vtw import divergence, divergences, first_within
from mustdrop.prefill.vtw import VTW
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir


def test_the_divergence_is_that_of_withdrawn_from_full():
    generator = torch.Generator().manual_seed(0)
    full, withdrawn = torch.randn(2, 3, 11, generator=generator)
    for row, (f, w) in zip(
        divergence(full, withdrawn), zip(full, withdrawn, strict=True), strict=True
    ):
        p = [math.exp(x) for x in w.tolist()]
        q = [math.exp(x) for x in f.tolist()]
        expected = sum(
            a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True)
        )
        assert float(row) == pytest.approx(expected, rel=1e-5)
    assert divergence(full, full).tolist() == [0.0, 0.0, 0.0]
    turned = divergence(withdrawn, full)
    assert (turned - divergence(full, withdrawn)).abs().min() > 1e-3


def test_half_precision_is_compared_in_full():
    full, withdrawn = torch.randn(2, 1, 500, generator=torch.Generator().manual_seed(1))
    half = divergence(full.bfloat16(), withdrawn.bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(divergence(full, withdrawn)), rel=0.05)


def test_the_first_within_eta_is_chosen_not_the_last_above():
    assert first_within([0.4, 0.002, 0.1, 0.001], 0.003) == 6
    assert first_within([0.4, 0.003], 0.003, first=2) == 3
    assert first_within([0.4, 0.1], 0.003) is None
    assert first_within([], 0.003) is None


def test_each_layer_is_one_prefill_a_batch_and_neighbours_do_not_matter():
    model = tiny_llava()
    alone = [prompt(model), prompt(model, before=2, after=12, seed=3)]
    ticks = []
    found = divergences(model, [batch(*alone), alone[0]], 6, first=2, tick=lambda: ticks.append(1))
    assert found.shape == (4, 3) and len(ticks) == 2 * 5
    torch.testing.assert_close(found[:, 0], found[:, 2], rtol=1e-3, atol=1e-6)
    with torch.inference_mode():
        full = model(**alone[1]).logits[:, -1]
        for at, layer in enumerate(range(2, 6)):
            with TokenDropper(prefill=VTW(layer - 1)).attach(model):
                withdrawn = model(**alone[1]).logits[:, -1]
            expected = divergence(full, withdrawn)
            torch.testing.assert_close(found[at, 1:2], expected, rtol=1e-3, atol=1e-6)
    assert (found > 1e-4).all(), "this case proves nothing"


def test_layers_and_prompts_that_are_not_there_are_told():
    model = tiny_llava()
    with pytest.raises(ValueError, match=r"first K must be in \[0, 5\], got 6"):
        divergences(model, [prompt(model)], 6, first=6)
    with pytest.raises(ValueError, match="no prompts"):
        divergences(model, [], 6)


def run(monkeypatch, *asked: str) -> None:
    monkeypatch.setattr(sys, "argv", ["vtw_layer.py", *asked])
    script.main()


def test_the_layer_is_written_among_the_tuned_files_only_where_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuned_table, "tuned_dir", lambda: tmp_path / "conf" / "tuned")
    asked = [f"output_root={tmp_path}/out", "n=4", "eta=0.5", "batch_size=4", "first=8"]
    run(monkeypatch, *asked)
    out = tmp_path / "out" / "vtw_layer" / "pocket" / "pocket_vqa" / "vtw_kl.yaml"
    tuned = tmp_path / "conf" / "tuned" / "pocket.yaml"
    assert out.exists() and not tuned.exists()
    run(monkeypatch, *asked, "write=true")
    told = capsys.readouterr().out
    (row,) = yaml.safe_load(tuned.read_text())
    assert yaml.safe_load(out.read_text()) == [row]
    assert row["strategy"] == "vtw_kl" and not {"benchmark", "budget"} & set(row)
    layer, model = row["values"]["layer"], row["model"]
    assert model["pretrained"] == "packaged" and len(model["weights"]) == 12
    with pytest.raises(SystemExit):  # the layer of other weights stays
        run(monkeypatch, *asked, "write=true", "model.pretrained=owner/x")
    assert "holds the layer of packaged: use write=false" in capsys.readouterr().err
    assert 7 <= layer <= 10 and f"K = {layer + 1}, layer = {layer} (eta 0.5)" in told
    assert all(f"K {k:>2}: " in told and f"K {k:>2}: " in out.read_text() for k in range(8, 12))
    for mark in (
        "mustdrop vtw n=4 eta=0.5",
        "first 4 questions of crowded_calibration",
    ):
        assert mark in out.read_text()
    assert str(tmp_path) not in tuned.read_text() + out.read_text()


def test_the_packaged_model_has_a_layer_of_its_own():
    rows = yaml.safe_load((conf_dir() / "tuned/pocket.yaml").read_text())
    (row,) = (row for row in rows if row["strategy"] == "vtw_kl")
    cfg = composed("method=vtw", "prefill=vtw_kl", "budget=none")
    assert cfg.prefill.layer == row["values"]["layer"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("n=0", "n must be in [1, 10000], got 0"),
        ("n=2.5", "n must be in [1, 10000], got 2.5"),
        ("eta=-1", "eta must be a divergence in nats, 0 or more, got -1"),
        ("eta=much", "eta must be a divergence in nats, 0 or more, got much"),
        ("first=12", "first must be in [0, 11], got 12"),
        ("benchmark=mme", "benchmark mme has no split to choose a layer on"),
        ("model.pretrained=/nowhere", "there is no folder /nowhere"),
        ("eta=0.0", "no K from 11 on has a divergence of at most eta=0: the least is"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, asked, expected):
    given = [] if asked.startswith("first") else ["first=11"]
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, f"output_root={tmp_path}", "n=2", *given, asked)
    assert left.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ") and expected in told
    assert not list(tmp_path.iterdir())
