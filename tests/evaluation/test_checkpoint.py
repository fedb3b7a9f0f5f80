"""A checkpoint is loaded from a folder or the hub, whole or spread, or it is said why not."""

import time

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from models import batch, greedy, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.checkpoint import Checkpoint
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.pocket.model import CHECKPOINT
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.presets.compose import composed
from mustdrop.vision.local_merge import LocalMerge

DROPPERS = (
    TokenDropper(prefill=FastV(keep=9, layer=1)),
    TokenDropper(
        LocalMerge(tau=3.0),
        ClsAttention("ratio", ratio=0.2),
        DualAttention(gamma=0.04, alpha=0.2, layers=(1, 3)),
        OutputAware(from_layer=1),
    ),
)


def spread(model, folder):
    """The upper half of the layers on disk; every weight is read when its layer runs."""
    inside = [f"model.language_model.{part}" for part in ("embed_tokens", "norm", "rotary_emb")]
    whole = ["model.vision_tower", "model.multi_modal_projector", "lm_head", *inside]
    places = dict.fromkeys(whole, "cpu")
    for layer in range(6):
        places[f"model.language_model.layers.{layer}"] = "cpu" if layer < 3 else "disk"
    return dispatch_model(
        model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True
    )


def offloaded(model, folder):
    """No weight stays where its layer runs."""
    return cpu_offload(model, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("dropper", DROPPERS)
@pytest.mark.parametrize("placed", [spread, offloaded])
def test_a_model_under_accelerates_hooks_drops_and_answers_the_same(dropper, placed, tmp_path):
    """Bit for bit; what it does not show is two devices, of which this needs but one."""
    inputs = batch(prompt(tiny_llava(), seed=1), prompt(tiny_llava(), seed=2, after=4))

    def told(model):
        with dropper.attach(model) as run:
            tokens, logits = greedy(model, inputs)
        return tokens, logits, [ledger.vision_per_layer() for ledger in run.ledgers]

    model = placed(tiny_llava(), tmp_path)
    assert model.model.language_model.layers[4].self_attn.q_proj.weight.device.type == "meta"
    ours, plain = told(model), told(tiny_llava())
    assert torch.equal(ours[0], plain[0]) and torch.equal(ours[1], plain[1])
    assert ours[2] == plain[2]
    assert all(counts[-1] < counts[1] <= 36 for counts in ours[2]), "this must drop in the prefill"


def test_a_folder_is_a_checkpoint_spread_or_not():
    packaged, _ = Checkpoint("pocket", "packaged", 12, 576, 3).load("cpu")
    for device_map in (None, "auto"):
        made = Checkpoint("pocket", str(CHECKPOINT), 12, 576, 3, device_map=device_map)
        model, processor = made.load("cpu")
        assert torch.equal(model.lm_head.weight, packaged.lm_head.weight)
        assert processor.tokenizer.pad_token_id is not None


@pytest.mark.parametrize("name", ["llava15_7b", "llava15_13b"])
def test_weights_that_cannot_be_had_are_told_in_one_line_and_soon(name):
    cfg = composed(f"model={name}", "method=fastv").model
    values = {key: value for key, value in cfg.items() if key != "_target_"}
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as refused:
        Checkpoint(**values).load("cpu")
    assert time.monotonic() - start < 10
    told = str(refused.value)
    for words in (
        f"{cfg.pretrained} cannot be downloaded",
        f"hf download {cfg.pretrained}",
        "/path/to/folder",
    ):
        assert words in told
    assert "\n" not in told


def test_a_name_that_no_hub_can_have_is_told():
    with pytest.raises(FileNotFoundError, match="no/where! cannot be downloaded from the hub"):
        Checkpoint("x", "no/where!", 12, 576, 3).load("cpu")


def test_each_of_several_processes_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *sizes, device: asked.append(device))
    asked = []
    made = Checkpoint("pocket", "packaged", 12, 576, 3)
    assert made.usable_device("auto") == "cuda:1"
    monkeypatch.delenv("LOCAL_RANK")
    assert made.usable_device("auto") == "cuda"
    assert made.usable_device("cpu") == "cpu"
    assert asked == ["cuda:1", "cuda", "cpu"]


def test_a_spread_model_is_one_process_and_not_the_packaged_one(monkeypatch):
    with pytest.raises(ValueError, match="device_map must be null"):
        Checkpoint("pocket", "packaged", 12, 576, 3, device_map="auto").load()
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="only one process can run it"):
        Checkpoint("x", str(CHECKPOINT), 12, 576, 3, device_map="auto").load()
