"""MustDrop's presets for families with cells of several patches, with crops, or without [CLS].

Tiny models have 6 layers, so dual attention acts after other layers than in the presets. The rest
is what the command line would build.
"""

from pathlib import Path

import pytest
import torch
import yaml
from families import FAMILIES
from hydra.utils import instantiate
from models import greedy
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from mustdrop import TokenDropper
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.presets.compose import composed, conf_dir
from mustdrop.vision.local_merge import LocalMerge

PRESETS = {
    "gemma3": "mustdrop_qwen", "idefics3": "mustdrop_qwen", "internvl": "mustdrop",
    "llava_next": "mustdrop", "paligemma": "mustdrop_qwen", "qwen2_5_vl": "mustdrop_qwen",
    "qwen2_vl": "mustdrop_qwen", "qwen3_vl": "mustdrop_qwen", "smolvlm": "mustdrop_qwen",
    "video_llava": "mustdrop",
}  # fmt: skip
THRESHOLDS = ("prefill.gamma=3.0e-2", "prefill.alpha=0.3")
# few cells have few outliers, and mu=0 marks the upper quarter
TINY = (*THRESHOLDS, "prefill.layers=[0,1,3]", "decode.from_layer=1", "key_tokens.mu=0.0")
# of random states; the presets' 0.8 is of trained ones
LOW_TAU = {"mustdrop": "vision.tau=4.0", "mustdrop_qwen": "vision.tau=0.2"}
OWN = {
    "video_llava": ("vision.edges=keep",),  # windows of 3 x 3 do not fill its grid
    "internvl": ("vision=local_merge_cells",),
    "qwen3_vl": ("prefill.gamma=6.0e-2",),
    "gemma3": ("prefill.gamma=0.1", "prefill.alpha=0.1"),
}


def built(method: str, *overrides: str) -> TokenDropper:
    chosen = ("model=llava15_7b", "benchmark=pocket_vqa", "budget=none")
    return instantiate(composed(f"method={method}", *chosen, *overrides).dropper)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("gemma3", "idefics3", "smolvlm")))
        for name in PRESETS
    ],
)
def test_a_preset_drops_in_all_stages_and_equals_masking(family):
    made = FAMILIES[family]
    model = made.model()
    method = PRESETS[family]
    own = OWN.get(family, ())
    low = LOW_TAU["mustdrop_qwen" if "vision=local_merge_cells" in own else method]
    dropper = built(method, *TINY, low, *own)
    inputs = made.inputs(model, *made.prompts)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=4)
    for number in range(len(made.prompts)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert torch.equal(tokens[number], expected.argmax(-1))
        assert relative_error(logits[number], expected) <= 1e-5
    assert any((image.sizes == dropper.vision.window**2).any() for image in run.images)
    for ledger in run.ledgers:
        counts = ledger.vision_per_layer()
        entered = int(ledger.vision.sum())
        assert counts[-1] < counts[0] < entered  # merged, then filtered
        assert ledger.protected.any()
    cut = [
        len(ledger.cached[layer]) < len(ledger.alive[layer])
        for ledger in run.ledgers
        for layer in range(1, 4)
    ]
    assert any(cut)  # the cache after the prefill


def test_a_key_token_of_qwen_stays_to_the_end():
    made = FAMILIES["qwen2_5_vl"]
    model = made.model()
    # no token's attention passes these thresholds, so that only key tokens stay
    dropper = built("mustdrop_qwen", *TINY, "prefill.gamma=1.0", "prefill.alpha=1.0")
    with dropper.attach(model) as run:
        greedy(model, made.inputs(model, *made.prompts))
    for ledger in run.ledgers:
        last = ledger.alive[ledger.depth - 1]
        left = last[ledger.vision[last]]
        assert ledger.protected.any() and torch.equal(ledger.protected.nonzero().flatten(), left)


def test_the_paper_preset_refuses_qwen_in_one_sentence():
    model = FAMILIES["qwen2_5_vl"].model()
    for overrides, message in (
        ((), "windows may not fill their grids: set LocalMerge.edges to keep"),
        (("vision=local_merge_cells",), r"TokenDropper\(cls_attention='received'\)"),
    ):
        dropper = built("mustdrop", *TINY, *overrides)
        with pytest.raises(ValueError, match=message):
            dropper.attach(model).__enter__()


def test_the_preset_of_qwen_holds_the_choices_that_it_states():
    dropper = built("mustdrop_qwen", *THRESHOLDS)
    assert dropper.vision == LocalMerge(0.8, 2, 0, score="mean", edges="keep")
    assert dropper.key_tokens == ClsAttention("outlier", mu=1.5, block=-1)
    assert dropper.cls_attention == "received" and dropper.decode is not None
    # a window of cells lies in an attention window, and the last block attends to the whole image
    config = Qwen2_5_VLVisionConfig()
    cells = config.window_size // config.patch_size // config.spatial_merge_size
    assert cells % dropper.vision.window == 0
    assert config.depth - 1 in config.fullatt_block_indexes


@pytest.mark.parametrize(
    ("model", "layers", "expected"),
    [("qwen2_5_vl_7b", 28, (1, 5, 8, 12)), ("qwen2_5_vl_3b", 36, (2, 6, 11, 15))],
)
def test_dual_attention_acts_at_the_same_relative_depths(model, layers, expected, tmp_path):
    """With the model's own config, if it is packaged, or else a user's config of that name."""
    text = yaml.safe_load((conf_dir() / "model" / "llava15_7b.yaml").read_text())
    user = Path(tmp_path, "conf", "model", f"{model}.yaml")
    user.parent.mkdir(parents=True)
    user.write_text(yaml.safe_dump({**text, "name": model, "layers": layers}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        cfg = composed(f"model={model}", "method=mustdrop_qwen", "budget=none", *THRESHOLDS)
    assert cfg.model.layers == layers
    assert instantiate(cfg.dropper).prefill.layers == expected
    assert [layer * layers // 32 for layer in (2, 6, 10, 14)] == list(expected)
