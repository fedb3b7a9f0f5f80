"""Laws of the controls that choose among the frames of a video: masking, budgets, refusals."""

import copy
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, Image, Video
from hydra.utils import instantiate
from models import greedy, prompt, tiny_llava
from tiny_methods import OF_VIDEOS
from video_prompts import LLAVA, PROMPTS, QWEN, model_of, run_of, shapes, slots

from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.prefill.average_frames import AverageFrames
from mustdrop.prefill.every_other_frame import EveryOtherFrame
from mustdrop.prefill.uniform_frames import UniformFrames
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.planned import planned, require_planned
from mustdrop.vision.cls_topk import ClsTopK

KEY = ClsAttention("ratio", ratio=0.1)
REFERENCES = {
    "uniform": TokenDropper(prefill=UniformFrames(60), vision_positions="compact"),
    "average": TokenDropper(prefill=AverageFrames(60), vision_positions="compact"),
    "other": TokenDropper(prefill=EveryOtherFrame(), vision_positions="compact"),
    "few": TokenDropper(prefill=AverageFrames(5), vision_positions="compact"),
    "later": TokenDropper(prefill=AverageFrames(Budget(share=0.4), layer=2)),
    "after_keys": TokenDropper(ClsTopK(9), KEY, AverageFrames(40, layer=1), positions="compact"),
    "uniform_keys": TokenDropper(ClsTopK(9), KEY, UniformFrames(20)),
    "other_keys": TokenDropper(ClsTopK(9), KEY, EveryOtherFrame(1)),
}


def fitting(family: str, dropper: TokenDropper) -> TokenDropper:
    return replace(dropper, cls_attention="cls" if family == "video_llava" else "received")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("family", PROMPTS)
def test_dropping_equals_masking(family, name, attention):
    model, made = model_of(family, attention), FAMILIES[family]
    dropper = fitting(family, REFERENCES[name])
    before = copy.deepcopy(dropper)
    inputs = made.inputs(model, *PROMPTS[family])
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=4)
    for number, parts in enumerate(PROMPTS[family]):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert torch.equal(tokens[number], expected.argmax(-1))
        assert relative_error(logits[number], expected) <= 1e-5
        assert run.ledgers[number].counts().resident < len(slots(family, parts))
    with dropper.attach(model):
        for number, parts in enumerate(PROMPTS[family]):  # the batch does not matter
            _, alone = greedy(model, made.inputs(model, parts, seed=number), steps=4)
            assert relative_error(logits[number], alone[0]) <= 1e-5
    assert dropper == before


def test_a_mean_with_another_frame_is_noticed():
    """Control: the masked model with two tokens of different groups exchanged."""
    family = "video_llava"
    model, inputs = model_of(family), FAMILIES[family].inputs(model_of(family), *LLAVA)
    with REFERENCES["average"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    decision = run.mixed[-1][0]
    group = decision.group.clone()
    group[[1, -1]] = group[[-1, 1]]
    run.mixed[-1][0] = replace(decision, group=group)
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens, 0)) > 1e-3


@pytest.mark.parametrize("name", ["after_keys", "uniform_keys", "other_keys"])
@pytest.mark.parametrize("family", PROMPTS)
def test_key_tokens_stay(family, name):
    run = run_of(family, fitting(family, REFERENCES[name]))
    for ledger in run.ledgers:
        keys = {*ledger.protected.nonzero().flatten().tolist()}
        assert keys and keys <= {*ledger.alive[5].tolist()}
        assert ledger.vision_per_layer()[5] < ledger.vision_per_layer()[0] or name == "uniform_keys"


def test_the_frames_that_are_kept_are_a_shorter_video():
    """A video of 5 frames at 3 frames' tokens gives the logits of its frames 0, 2 and 4 alone."""
    model, made = model_of("video_llava"), FAMILIES["video_llava"]
    long, short = (made.inputs(model, (3, Video(n, 28, 28), 7)) for n in (5, 3))
    short["pixel_values_videos"] = long["pixel_values_videos"][:, [0, 2, 4]]
    text = long["input_ids"] > 5
    short["input_ids"][short["input_ids"] > 5] = long["input_ids"][text]
    with TokenDropper(prefill=UniformFrames(147), vision_positions="compact").attach(model):
        _, expected = greedy(model, short)
        _, logits = greedy(model, long)
    assert relative_error(logits[0], expected[0]) <= 1e-5


def test_there_are_controls_of_frames():
    assert OF_VIDEOS == ["average_frames", "every_other_frame", "uniform_frames"]


@pytest.mark.parametrize("budget", ["12.5%", "30%", "50%", "77%", "80"])
@pytest.mark.parametrize("method", OF_VIDEOS)
@pytest.mark.parametrize("family", PROMPTS)
def test_a_budget_is_met_by_each_prompt_or_refused(family, method, budget):
    chosen = ("model=video_llava_7b", "benchmark=msvd_qa", "model.layers=6")
    cfg = composed(f"method={method}", f"budget={budget}", *chosen)
    if method == "every_other_frame" and budget != "50%":
        with pytest.raises(ValueError, match=r"but prefill.layer=-1 make it 1440\.0"):
            require_planned(resolved(cfg))
        return
    require_planned(resolved(cfg))
    run = run_of(family, instantiate(cfg.dropper))
    for parts, ledger in zip(PROMPTS[family], run.ledgers, strict=True):
        cells = sum(frames * rows * columns for frames, rows, columns in shapes(family, parts))
        target = Budget.parse(budget).target(cells)
        frames = shapes(family, parts)
        if method == "every_other_frame":  # half a frame more for a video of an odd number
            target = sum(-(-made.frames // 2) * made.rows * made.columns for made in frames)
        assert ledger.counts().executed_average == pytest.approx(target, abs=0.5)


def test_a_count_of_the_models_frames_is_met_in_closed_form():
    for budget, method in ((f"{n}/2048", m) for n in (64, 512, 1024) for m in OF_VIDEOS[::2]):
        cfg = composed(f"method={method}", f"budget={budget}", "model=video_llava_7b",
                       "benchmark=msvd_qa", "model.vision_tokens=2048")  # fmt: skip
        assert planned(resolved(cfg)) == Budget.parse(budget).target(2048)


@pytest.mark.parametrize("method", [UniformFrames(9), AverageFrames(9), EveryOtherFrame()], ids=str)
def test_a_prompt_with_an_image_is_refused_before_it_is_encoded(method, monkeypatch):
    name = type(method).__name__
    dropper = TokenDropper(prefill=method)
    mixed = (9, Video(2, 16, 24), 2, Image(16, 16), 4)
    model = model_of("video_llava")
    inputs = FAMILIES["video_llava"].inputs(model, (3, Video(2, 28, 28), 7), mixed)
    monkeypatch.setattr(model.model, "get_image_features", lambda *_, **__: 1 / 0)
    message = f"{name} chooses among the frames of a video, but prompt 1 holds an image"
    with dropper.attach(model), pytest.raises(ValueError, match=message):
        greedy(model, inputs)
    llava = tiny_llava()
    with dropper.attach(llava), pytest.raises(ValueError, match="prompt 0 holds an image"):
        greedy(llava, prompt(llava))


@pytest.mark.parametrize("name", ["uniform", "average", "other"])
def test_text_alone_and_an_empty_count(name):
    model, made = model_of("qwen2_5_vl"), FAMILIES["qwen2_5_vl"]
    dropper = REFERENCES[name]
    inputs = made.inputs(model, QWEN[0], (6, 5))
    with dropper.attach(model) as run:
        greedy(model, inputs)
    assert run.ledgers[1].vision_per_layer() == [0] * 6
