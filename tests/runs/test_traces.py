"""A trace tells what happened: nothing of it is computed otherwise than the model did."""

import io
import json
import sys

import models
import numpy as np
import pytest
import torch
from PIL import Image

from experiments import trace as script
from experiments.run import run
from mustdrop import TokenDropper
from mustdrop.checkpoint import Checkpoint
from mustdrop.engine.decode_attention import record_decode_attention
from mustdrop.evaluation.job import EvalJob
from mustdrop.evaluation.metrics import CostMeter
from mustdrop.evaluation.requests import image_name
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.evaluation.trace import trace
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for
from mustdrop.pocket.dataset import sample
from mustdrop.pocket.evaluation import prompt
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples, run_folder, trace_path
from mustdrop.runs.trace import Trace

SPLIT = "crowded_test"
DOCS = 3


@pytest.fixture(scope="module")
def pocket():
    return Checkpoint("pocket", "packaged", layers=12, vision_tokens=576, merging_blocks=3).load(
        "cpu"
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Three finished runs and their traces."""
    root = tmp_path_factory.mktemp("outputs")
    folders = {}
    for method in ("vanilla", "mustdrop", "mustdrop_official"):
        cfg = composed(
            f"output_root={root}", f"method={method}", "budget=t128", "benchmark.limit=6",
            "batch_size=3", "controls=none",
        )  # fmt: skip
        folders[method] = run_folder(run(cfg)["config"])
    assert script.main([str(root), "--samples", f"0-{DOCS - 1}"]) == 0
    return root, folders


def inputs_of(processor, asked):
    image = asked.image.convert("RGB")
    return processor(text=[prompt(processor, asked.question)], images=[image], return_tensors="pt")


def cell(pocket, dropper):
    return EvalJob(*pocket, dropper, PocketVQA("pocket_vqa", SPLIT), {}, DOCS)


@pytest.mark.parametrize("method", ["vanilla", "mustdrop", "mustdrop_official"])
def test_a_trace_is_the_recorded_sample(outputs, pocket, method):
    folder = outputs[1][method]
    meter = CostMeter.from_model(pocket[0])
    for line in read_samples(folder)[:DOCS]:
        made = Trace.load(trace_path(folder, line["doc_id"]))
        assert made.answer == line["answer"]
        assert made.ledger.vision_per_layer() == line["vision_tokens"]
        # what the watching computed for itself is not the method's cost
        measured = meter.measure(made.ledger, line["counts"]["nominal"])
        assert measured["prefill_macs"] == line["prefill_macs"]
        assert measured["counts"] == line["counts"]


@pytest.mark.parametrize("method", ["mustdrop", "mustdrop_official"])
def test_the_thresholds_tell_from_the_looks_what_left(outputs, method):
    made = Trace.load(trace_path(outputs[1][method], 0))
    ledger = made.ledger
    assert sorted(made.text_attention) == [0, 2, 3, 5]
    left_any = False
    for layer, look in made.text_attention.items():
        assert look.share.sum() == pytest.approx(1, abs=1e-5)
        assert (look.largest >= 0).all() and (look.largest <= 1).all()
        gamma, alpha = made.threshold("gamma"), made.threshold("alpha")
        low = look.share <= gamma if method == "mustdrop" else look.share < gamma
        gone = low & (look.largest < alpha) & ~ledger.protected.numpy()[look.positions]
        after = ledger.alive[layer + 1].numpy()
        assert set(look.positions[~gone]) == set(after[ledger.vision.numpy()[after]])
        left_any |= bool(gone.any())
    assert left_any


def test_looks_are_the_attention_that_eager_layers_compute(pocket):
    """Nothing has left before the first layer that drops, so vanilla attention is its oracle."""
    model, processor = pocket
    dropper = TokenDropper(prefill=DualAttention(gamma=1e-3, alpha=1e-2, layers=(2,)))
    ((_, made),) = trace(cell(pocket, dropper), [1])
    asked = sample(SPLIT, 1)
    inputs = inputs_of(processor, asked)
    kind = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            maps = model(**inputs, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(kind)
    vision = made.ledger.vision.numpy()
    text = np.flatnonzero(vision)[-1] + 1
    rows = maps[2][0].float().mean(0).numpy()[text:][:, vision]
    look = made.text_attention[2]
    assert (look.positions == np.flatnonzero(vision)).all()
    np.testing.assert_allclose(look.share, rows.sum(0) / rows.sum(), rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(look.largest, rows.max(0), rtol=2e-4, atol=1e-7)
    best = rows[look.word, np.arange(rows.shape[1])]
    np.testing.assert_allclose(best, rows.max(0), rtol=2e-4, atol=1e-7)
    assert len(made.words) == rows.shape[0]
    assert asked.question.split()[0] in [word.strip() for word in made.words]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_gaze_is_the_attention_of_decoding_steps(attention):
    model = models.tiny_llava(attention=attention)
    models.condition(model)
    inputs = models.prompt(model)
    with record_decode_attention(adapter_for(model)) as gaze, torch.inference_mode():
        model.generate(**inputs, do_sample=False, max_new_tokens=4, min_new_tokens=4)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        told = model.generate(
            **inputs, do_sample=False, max_new_tokens=4, min_new_tokens=4, output_attentions=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    length = inputs["input_ids"].shape[1]
    for layer in range(model.config.text_config.num_hidden_layers):
        steps = [step[layer][0, :, -1, :length].mean(0) for step in told.attentions[1:]]
        assert gaze.steps[layer] == len(steps) == 3
        torch.testing.assert_close(gaze.mean(layer), torch.stack(steps).mean(0))


def test_the_gaze_forgets_the_prompt_before():
    model = models.tiny_llava()
    first, second = models.prompt(model), models.prompt(model, seed=1)
    options = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3}
    with record_decode_attention(adapter_for(model)) as gaze, torch.inference_mode():
        model.generate(**first, **options)
        model.generate(**second, **options)
    with record_decode_attention(adapter_for(model)) as alone, torch.inference_mode():
        model.generate(**second, **options)
    assert torch.equal(gaze.mean(0), alone.mean(0))


def test_the_gaze_falls_on_what_the_cache_holds_and_on_nothing_else(outputs):
    for method, folder in outputs[1].items():
        made = Trace.load(trace_path(folder, 0))
        assert sorted(made.decode_attention) == list(range(12))
        for layer, gaze in made.decode_attention.items():
            assert len(gaze.positions) == made.ledger.resident_per_layer()[layer]
            assert gaze.vision.sum() + gaze.text == pytest.approx(1, abs=2e-3)
        if method == "vanilla":
            assert len(made.decode_attention[0].positions) == 576


def test_the_picture_is_what_the_encoder_saw(outputs):
    made = Trace.load(trace_path(outputs[1]["vanilla"], 1))
    shown, own = made.picture(), sample(SPLIT, 1).image.convert("RGB")
    near = np.asarray(own.resize(shown.size, Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(np.asarray(shown, dtype=float) - near).mean() < 6
    other = np.asarray(sample(SPLIT, 2).image.convert("RGB").resize(shown.size), dtype=float)
    assert np.abs(np.asarray(shown, dtype=float) - other).mean() > 15
    assert (made.region == sample(SPLIT, 1).target_patches).all()
    with pytest.raises(ValueError, match=r"picture must be in \[0, 1\), got 1"):
        made.picture(1)


def test_a_trace_is_a_few_kilobytes(outputs):
    for folder in outputs[1].values():
        assert trace_path(folder, 0).stat().st_size < 30_000


def test_what_is_saved_is_loaded(outputs, tmp_path):
    made = Trace.load(trace_path(outputs[1]["mustdrop_official"], 2))
    made.save(tmp_path / "again.npz")
    again = Trace.load(tmp_path / "again.npz")
    assert again.words == made.words and again.pictures == made.pictures
    for layer, look in made.text_attention.items():
        for name in ("positions", "share", "largest", "word"):
            assert (getattr(look, name) == getattr(again.text_attention[layer], name)).all()
    for layer, gaze in made.decode_attention.items():
        assert (gaze.vision == again.decode_attention[layer].vision).all()
    for name in ("alive", "cached"):
        ours, theirs = getattr(made.ledger, name), getattr(again.ledger, name)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[layer], theirs[layer]) for layer in ours)


def test_a_ledger_alone_loads_as_a_trace_without_more(outputs, tmp_path):
    made = Trace.load(trace_path(outputs[1]["mustdrop"], 0))
    made.ledger.save(tmp_path / "ledger.npz")
    bare = Trace.load(tmp_path / "ledger.npz")
    assert bare.answer is None and not bare.text_attention and not bare.pictures
    assert bare.ledger.vision_per_layer() == made.ledger.vision_per_layer()


def test_a_missing_and_a_torn_trace_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mustdrop trace writes traces"):
        Trace.load(tmp_path / "0.npz")
    (tmp_path / "0.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match="is not a trace"):
        Trace.load(tmp_path / "0.npz")
    np.savez(tmp_path / "0.npz", vision=np.ones(4, dtype=bool))
    for kind in (Trace, TokenLedger):
        with pytest.raises(ValueError, match=r"0\.npz was written by older code"):
            kind.load(tmp_path / "0.npz")


def test_watching_changes_no_decision(pocket):
    """FastV asks for the last row alone; the text's rows are read beside it, and struck off."""
    dropper = TokenDropper(prefill=FastV(keep=64, layer=4))
    ((_, made),) = trace(cell(pocket, dropper), [0])
    model, processor = pocket
    with dropper.attach(model) as plain, torch.inference_mode():
        inputs = inputs_of(processor, sample(SPLIT, 0))
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    ledger = plain.ledgers[0]
    assert torch.equal(ledger.alive[11], made.ledger.alive[11])
    assert ledger.scored_rows == made.ledger.scored_rows == {4: 1}


def test_a_second_call_traces_what_is_left(outputs, capsys):
    root, folders = outputs
    before = trace_path(folders["mustdrop"], 0).stat().st_mtime_ns
    trace_path(folders["mustdrop"], 1).unlink()
    ledger = Trace.load(trace_path(folders["mustdrop"], 2)).ledger
    ledger.save(trace_path(folders["mustdrop"], 2))  # as traces=N leaves it
    assert script.main([str(root), "--samples", "0-2"]) == 0
    assert "2 samples traced in 3 runs, 7 were there before" in capsys.readouterr().out
    assert trace_path(folders["mustdrop"], 0).stat().st_mtime_ns == before
    assert Trace.load(trace_path(folders["mustdrop"], 2)).answer is not None


def test_a_torn_or_outdated_trace_is_made_anew_and_samples_that_were_never_asked_are_told_of(
    outputs, capsys
):
    root, folders = outputs
    trace_path(folders["mustdrop"], 0).write_bytes(b"PK\x03\x04 torn")
    np.savez(trace_path(folders["mustdrop"], 1), vision=np.ones(4, dtype=bool))
    assert script.main([str(root), "--methods", "mustdrop", "--samples", "0-2,90,91"]) == 0
    told = capsys.readouterr().out
    assert "2 samples traced in 1 runs, 1 were there before, 2 were never asked" in told
    assert Trace.load(trace_path(folders["mustdrop"], 0)).answer is not None
    with pytest.raises(ValueError, match="none of these runs answered any of these samples"):
        script.main([str(root), "--samples", "90"])


def test_a_sample_that_is_answered_otherwise_gets_no_trace(outputs, capsys):
    root, folders = outputs
    lines = read_samples(folders["vanilla"])
    lines[4]["answer"] = "something else"
    lines[5]["vision_tokens"][3] += 1
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folders["vanilla"] / "samples.jsonl").write_text(text)
    assert script.main([str(root), "--samples", "3-5", "--methods", "van*"]) == 1
    told = capsys.readouterr()
    assert "1 samples traced in 1 runs" in told.out
    assert "the record has 'something else'" in told.err and "vision_tokens" in told.err
    assert trace_path(folders["vanilla"], 3).exists()
    assert not trace_path(folders["vanilla"], 4).exists()
    assert not trace_path(folders["vanilla"], 5).exists()


def test_samples_on_which_runs_differ_most_come_first(tmp_path):
    def write(name, scores):
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"doc_id": doc, "scores": {"m": score}} for doc, score in enumerate(scores)]
        (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {"benchmark": "vqa", "metric": "m", "folder": str(folder)}

    runs = [
        write("a", (1.0, 1.0, 0.0, 1.0)),
        write("b", (1.0, 1.0, 0.0, 0.0)),
        write("c", (1.0, 1.0, 0.0, 0.0)),
        write("d", (1.0, 0.0, 0.0, 1.0)),
    ]
    assert script.disagreed(runs, 1) == {"vqa": [3]}
    assert script.disagreed(runs, 9) == {"vqa": [1, 3]}
    with pytest.raises(ValueError, match="no sample splits these runs"):
        script.disagreed(runs[:1], 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "no results folder nowhere"),
        (["{root}", "--samples", "1,x"], "numbers and ranges like 0-11,40, got '1,x'"),
        (["{root}", "--methods", "fastvv"], "method must be one of mustdrop,"),
        (["{root}", "--disagree", "0"], "disagree must be a count of samples"),
        (["{root}", "--samples", "1", "--disagree", "1"], "give --samples or --disagree"),
    ],
)
def test_bad_input_is_refused_before_work_starts(outputs, arguments, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "mustdrop.evaluation.trace", None)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        script.main([argument.format(root=outputs[0]) for argument in arguments])


def test_a_document_that_is_not_there_is_named(pocket):
    with pytest.raises(ValueError, match=r"documents must be in \[0, \d+\), got 999999"):
        list(trace(cell(pocket, TokenDropper()), [0, 999999]))


def test_every_sample_names_its_own_picture_whatever_is_shown_instead(outputs, tmp_path):
    named = [line["image"] for line in read_samples(outputs[1]["mustdrop"])]
    assert named == [image_name([sample(SPLIT, doc).image]) for doc in range(6)]
    cfg = composed(
        f"output_root={tmp_path}", "method=vanilla", "benchmark.limit=3", "image=wrong"
    )  # fmt: skip
    other = read_samples(run_folder(run(cfg)["config"]))
    assert [line["image"] for line in other] == named[:3]


def test_pictures_of_equal_pixels_share_a_name():
    one = sample(SPLIT, 0).image
    held = io.BytesIO()
    one.save(held, "png")
    same = Image.open(held)
    assert image_name([one]) == image_name([same])
    assert image_name([one]) != image_name([sample(SPLIT, 1).image])
    assert image_name([one]) != image_name([one, one])
    assert image_name([]) is None
