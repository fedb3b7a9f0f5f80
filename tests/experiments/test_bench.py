"""The reference times of ``mustdrop bench`` are of the same work; timing needs no test."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments import bench, bench_first_token, bench_models, bench_shapes
from experiments.bench_cases import EncoderCase, PrefillCase, executed
from mustdrop import TokenDropper
from mustdrop.models import adapter_for
from mustdrop.profiling.counting import UNSEEN
from mustdrop.profiling.sizes import CONFIGS

TILED = ("idefics3", "internvl3", "llava_onevision", "mistral3", "pixtral", "smolvlm2")
ROPE = bench_models.QWEN["rope_parameters"]
SMALL = {
    "LLAMA": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3},
    "CLIP": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3},
    "QWEN2": {"hidden_size": 56, "intermediate_size": 48, "num_hidden_layers": 3},
    "INTERN_VIT": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3},
    "QWEN": {
        "hidden_size": 56,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]},
    },
    "QWEN_VISION": {
        "depth": 3,
        "hidden_size": 32,
        "out_hidden_size": 56,
        "fullatt_block_indexes": [2],
    },
    "GEMMA3": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8},
    "GEMMA": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8},
    "SIGLIP": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
    "QWEN3": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3},
    "QWEN3_VISION": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [0, 1],
    },
}


@pytest.fixture
def shapes(monkeypatch):
    """Models of the same grids and prompt lengths with few layers; one target each."""
    for name, sizes in SMALL.items():
        monkeypatch.setattr(bench_models, name, {**getattr(bench_models, name), **sizes})
    small = {
        name: replace(shape, targets=(shape.slots // 2,), layers=(0,))
        for name, shape in bench_shapes.SHAPES.items()
    }
    monkeypatch.setattr(bench, "SHAPES", small)
    return small


def flops(work) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=UNSEEN) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", bench_shapes.SHAPES)
def test_a_shape_has_the_slots_of_its_image(shapes, name):
    adapter = adapter_for(shapes[name].model())
    visual = adapter.visual_inputs(shapes[name].prompt())
    shown = visual[bench_shapes.IMAGE]
    assert sum(len(image.cells) for image in shown) == shapes[name].slots


# thousands of patches without windows, or many tiles
SLOW = ("gemma3", "paligemma", "qwen3_vl", "qwen3_vl_moe", "video_llava", *TILED)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in bench_shapes.SHAPES
    ],
)
def test_a_reference_computes_what_is_left_and_nothing_else(shapes, name):
    shape = shapes[name]
    model = shape.model()
    case = PrefillCase(shape, model)
    with torch.inference_mode():
        _, whole = case.dropping(TokenDropper())
        strategy = case.calibrate(shape.targets[0])
        _, ledgers = case.dropping(TokenDropper(prefill=strategy))
    assert flops(lambda: case.reference(whole)) == flops(case.prefill)
    assert flops(lambda: case.reference(ledgers)) < flops(case.prefill)
    assert executed(ledgers) == pytest.approx(shape.targets[0], rel=0.01)
    adapter = adapter_for(model)
    if adapter.facts.whole_encoder is not None or len(adapter.encoders) > 1:
        return  # only the prefill is measured
    encoder = EncoderCase(shape, model)
    with torch.inference_mode():
        merge, left = encoder.calibrate(0.75)
        calls = [encoder.recorded(TokenDropper(vision=vision)) for vision in (None, merge)]
    assert flops(lambda: encoder.reference(calls[0])) == flops(encoder.encode)
    assert flops(lambda: encoder.reference(calls[1])) < flops(encoder.encode)
    # a tile of SmolVLM2 has only 9 windows of 9 cells, and all tiles merge as many
    assert left == pytest.approx(0.75, abs=0.06 if name == "smolvlm2" else 0.02)


def test_every_preset_has_a_shape_of_its_class(shapes):
    assert {*bench_shapes.SHAPE_OF} == {*CONFIGS}
    built = {name: shape.build().config for name, shape in shapes.items()}
    for preset, shape in bench_shapes.SHAPE_OF.items():
        released = CONFIGS[preset]()
        assert type(released) is type(built[shape])
        assert released.vision_config.model_type == built[shape].vision_config.model_type


@pytest.mark.parametrize("given", ["model=llava_7b", "models=llava15_7b", "llava15"])
def test_another_model_is_refused(given, capsys):
    with pytest.raises(SystemExit):
        bench.main([given])
    assert "expected model= and names of these presets: llava15_7b," in capsys.readouterr().err


def test_a_reference_of_a_batch_is_padded_to_its_longest_prompt(shapes):
    shape = shapes["llava15"]
    case = PrefillCase(shape, shape.model(), batch=3)
    with torch.inference_mode():
        strategy = case.calibrate(shape.targets[0])
        _, ledgers = case.dropping(TokenDropper(prefill=strategy))
    assert len({ledger.counts().executed_average for ledger in ledgers}) > 1
    dropping = flops(lambda: case.dropping(TokenDropper(prefill=strategy)))
    alone = PrefillCase(shape, case.model)
    cut = flops(lambda: [alone.reference([ledger]) for ledger in ledgers])
    assert cut < flops(lambda: case.reference(ledgers)) < dropping


def test_the_command_measures_every_shape_that_is_chosen(shapes, tmp_path, capsys):
    chosen = ["model=llava15_7b,llava15_13b", "--rounds", "2", "--batch", "1", "2"]
    chosen += ["--out", str(tmp_path / "bench.json")]
    threads = torch.get_num_threads()
    bench.main(chosen)
    torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    prefill = ["plain", "reference", "plain"]
    expected = [*prefill, *prefill, "reference", "plain"]
    assert [row["case"].rpartition(" / ")[2] for row in rows] == expected
    assert [row.get("batch") for row in rows] == [1, 1, 1, 2, 2, 2, None, None]
    assert {row["shape"] for row in rows} == {"llava15"} and "executed" in rows[1]
    assert "encoder" in capsys.readouterr().out


def encoder_share(vision, text, prompt=641):
    """Operations of the encoder over those of the language model's prefill, by their products."""

    def macs(width, inner, products, tokens, layers):
        return tokens * layers * (4 * width**2 + products * width * inner + 2 * tokens * width)

    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    encoder = (vision.hidden_size, vision.intermediate_size, 2, patches)
    decoder = (text.hidden_size, text.intermediate_size, 3, prompt)
    return macs(*encoder, vision.num_hidden_layers) / macs(*decoder, text.num_hidden_layers)


def test_the_encoder_of_the_first_token_has_the_share_of_llava15s():
    ours = bench_shapes.FIRST_TOKEN.build().config
    theirs = CONFIGS["llava15_7b"]()
    shares = [encoder_share(config.vision_config, config.text_config) for config in (ours, theirs)]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)


def test_the_first_token_of_mustdrop_and_of_a_short_encoder_are_measured(
    shapes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bench_shapes, "SHALLOW_CLIP", {})
    small = replace(bench_shapes.FIRST_TOKEN, targets=(300,), layers=(0,))
    monkeypatch.setattr(bench_first_token, "FIRST_TOKEN", small)
    threads, out = torch.get_num_threads(), tmp_path / "first.json"
    bench.main(["first_token", "--rounds", "6", "--out", str(out)])
    torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    plain, mustdrop, short = record["arms"].values()
    assert (plain["encoder_tokens"], plain["executed"], plain["faster"]["median"]) == (576, 576, 1)
    assert mustdrop["encoder_tokens"] == pytest.approx(440, abs=8)
    assert mustdrop["executed"] == pytest.approx(300, rel=0.011)
    assert (short["encoder_tokens"], short["executed"]) == (64, 64)
    assert short["flops"] < mustdrop["flops"] < plain["flops"]
    assert 0 < record["encoder_share"] < 1
    for arm in (mustdrop, short):
        assert 0 < arm["faster"]["low"] <= arm["faster"]["median"] <= arm["faster"]["high"]
    text = capsys.readouterr().out
    assert "short encoder" in text and f"{mustdrop['faster']['median']:.2f} [" in text


def test_the_harness_is_measured_in_whole_chunks(capsys):
    with pytest.raises(SystemExit):
        bench.main(["harness", "--questions", "44"])
    assert "--questions must be a multiple of 40, got 44" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_a_bare_loop_are_timed_in_turn(tmp_path, capsys):
    """Two chunks of five batches; the run answers as ever in between."""
    threads, out = torch.get_num_threads(), tmp_path / "harness.json"
    bench.main(["harness", "--questions", "20", "--batch-size", "2", "--out", str(out)])
    torch.set_num_threads(threads)
    record = json.loads(out.read_text())
    assert (record["questions"], record["batch_size"], record["workers"]) == (20, 2, 1)
    for clock in ("wall", "cpu"):
        assert 0.2 < record[clock]["min"] <= record[clock]["median"] <= record[clock]["max"] < 20
    assert (
        record["processor"]
        and record["bare_ms"] > 0
        and "of the bare loop" in capsys.readouterr().out
    )
