"""PocketSmol: loads offline, is an ordinary LLaVA, and answers through `mustdrop run`."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.run import run
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.pocket import answer, exact_match, prompt, sample
from mustdrop.pocket.smol import SMOL_CHECKPOINT, language, load_smol
from mustdrop.prefill.fastv import FastV
from mustdrop.presets.compose import composed
from mustdrop.provenance.checkpoint_files import PACKAGED_FOLDERS

MAX_BYTES = 16_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smol(smol_package):
    return load_smol()


def test_what_is_shipped_is_small():
    files = [path for path in SMOL_CHECKPOINT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert PACKAGED_FOLDERS["packaged_smol"] == SMOL_CHECKPOINT
    weights = (SMOL_CHECKPOINT / "model.safetensors").stat().st_size
    assert f"{weights:,} bytes" in (SMOL_CHECKPOINT / "README.md").read_text()


@pytest.mark.smol
def test_it_loads_within_half_a_minute(smol):
    start = time.monotonic()
    model, processor = load_smol()
    assert time.monotonic() - start < 30
    stored = type(model.config).from_pretrained(SMOL_CHECKPOINT, local_files_only=True)
    assert stored.to_diff_dict() == model.config.to_diff_dict()
    facts = model.config.text_config
    assert (facts.num_hidden_layers, facts.num_key_value_heads) == (30, 3)
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer) == 49153


@pytest.mark.smol
def test_text_alone_is_answered_like_smollm2(smol):
    """The template without an image is SmolLM2's own, and the merged model still speaks."""
    _, processor = smol
    messages = [{"role": "user", "content": "Name three colors."}]
    expected = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nName three colors.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == expected
    _, _, tokenizer = language.load_language()
    own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert own == expected


@pytest.mark.smol
def test_an_image_is_576_tokens_and_decides_the_answer(smol):
    model, processor = smol
    samples = [sample("easy_calibration", index) for index in range(12)]
    inputs = processor(
        images=[samples[0].image], text=[prompt(processor, samples[0].question)],
        return_tensors="pt",
    )  # fmt: skip
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 576
    seen = exact_match(answer(model, processor, samples, batch_size=4), samples)
    assert seen.share > 0.5


@pytest.mark.smol
def test_a_damaged_copy_in_the_cache_is_written_again(smol_package, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mapped, _, _ = language.load_language()
    first = {name: value.clone() for name, value in mapped.items()}
    del mapped
    file = language.cache_folder() / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again, _, _ = language.load_language()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [path.name for path in (tmp_path / "mustdrop").iterdir()] == [file.parent.name]


@pytest.mark.smol
def test_fastv_drops_after_the_papers_layer_2(smol):
    model, processor = smol
    drawn = sample("crowded_calibration", 0)
    inputs = processor(
        images=[drawn.image], text=[prompt(processor, drawn.question)], return_tensors="pt"
    )
    with TokenDropper(prefill=FastV(keep=96, layer=1)).attach(model) as dropped:
        tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert tokens.shape[1] > inputs["input_ids"].shape[1]
    entered = dropped.ledgers[0].vision_per_layer()
    assert entered == [576] * 2 + [96] * 28


@pytest.mark.smol
def test_it_runs_through_lmms_eval(smol_package, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    common = ["model=pocket_smol", "method=vanilla", "output_root=out", "device=cpu"]
    record = run(composed(*common, "benchmark.limit=4"))
    assert record["model"] == "pocket_smol" and "exact_match" in record["metrics"]
    record = run(composed(*common, "benchmark=pocket_long", "benchmark.limit=2"))
    assert {"item_share", "exact_match"} <= set(record["metrics"])


@pytest.mark.smol
@pytest.mark.timeout(900)
def test_a_multirun_over_tau_gamma_and_alpha_ends_in_a_table(smol_package, tmp_path):
    """What notebook 07 shows, as a user types it."""
    command = [
        sys.executable, "-m", "mustdrop.cli", "run", "-m", "experiment=sweep_thresholds",
        "model=pocket_smol", "benchmark.limit=2", "batch_size=2", f"output_root={tmp_path}",
        "vision.tau=57.6,66.0", "prefill.gamma=1e-4,1e-2", "prefill.alpha=1e-2",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    averages = {
        (r["config"]["vision"]["tau"], r["config"]["prefill"]["gamma"]): r["counts"][
            "executed_average"
        ]
        for r in records
    }
    assert len(averages) == 4 and "executed" in done.stdout
    for tau in (57.6, 66.0):
        assert averages[tau, 1e-2] < averages[tau, 1e-4]
    assert averages[57.6, 1e-4] < averages[66.0, 1e-4]


@pytest.mark.smol
def test_the_facts_in_the_yaml_are_the_models(smol_package):
    made = Checkpoint("pocket_smol", "packaged_smol", 30, 576, 3)
    model, processor = made.load("cpu")
    assert model.dtype == torch.float32
    assert processor.image_processor.crop_size["height"] == 192
    with pytest.raises(ValueError, match=r"model\.layers is 12, but packaged_smol has 30"):
        Checkpoint("pocket_smol", "packaged_smol", 12, 576, 3).load("cpu")
