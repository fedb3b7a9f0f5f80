"""What half precision changes: no sum of a strategy, no draw, no tie; but a batch may matter."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from fake_views import prefill_view, vision_view
from models import greedy, tiny_llava
from models import prompt as tiny_prompt
from sound import SOUND, strategies

from mustdrop import (
    KeyTokenStrategy,
    PrefillStrategy,
    Reduction,
    TokenDropper,
    VisionStrategy,
)
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.evaluation.chat import read_chat
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.pocket import load, prompt, sample
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.scheduled_random import ScheduledRandom
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.text_topk import TextTopK
from mustdrop.presets.folders import conf_dir
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.known_patches import KnownPatches
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

HALVES = [torch.float16, torch.bfloat16]
VARIANTS = [
    *(stage for kind, stage in SOUND.items() if kind in strategies()),
    ClsAttention("outlier", mu=0.5), ClsAttention("threshold", mu=0.007),
    ClsAttention("ratio", ratio=0.3, heads="max"), PruMerge(9, variant="paper"),
    LocalMerge(0.5, score="mean", crops="fewest", order="similarity"), VisPruner(40),
    ToMe([50]), VisionZip(40, 8), ClsTopK(50), FastV(20), FastV(71), TextTopK(50),
    PyramidDrop([0.4], [1]), SparseVLM(keep=[50], layers=[1]), DivPrune(60),
    DualAttention(0.007, None, layers=[1]), DualAttention(None, 0.03, layers=[1]),
]  # fmt: skip


class Numbers:
    """Made-up states and attention of a 12 x 12 image, in half precision or as float32."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        # every other image has states and scores that differ little, so that rounding decides
        spread, offset = ((1.0, 0.0), (0.2, 3.0))[seed % 2]

        def draw(*shape: int) -> torch.Tensor:
            return spread * torch.randn(*shape, generator=generator)

        window = draw(16, 1, 24).expand(16, 9, 24).reshape(4, 4, 3, 3, 24)
        alike = window.transpose(1, 2).reshape(144, 24)
        self.hidden = (offset + alike + 0.6 * draw(144, 24)).to(dtype)
        self.cls = draw(8, 144).softmax(-1).to(dtype)
        self.query, self.key = (offset + draw(2, 8, 145, 6)).to(dtype)
        self.text = draw(8, 10, 144).softmax(-1).to(dtype)
        self.inputs = (0.4 * draw(189, 24)).to(dtype)
        self.received = draw(144).softmax(-1)

    def vision(self, wide: bool) -> dict[str, Any]:
        def give(values: torch.Tensor) -> torch.Tensor:
            return values.float() if wide else values

        hidden = give(self.hidden)
        return {
            "hidden": hidden, "prompt_images": [hidden, hidden.flip(0)],
            "cls_attention": lambda block: give(self.cls),
            "queries_keys": lambda block: (give(self.query), give(self.key)),
            "annotation": lambda name: torch.arange(144) % 7 == 0,
        }  # fmt: skip

    def prefill(self, wide: bool) -> dict[str, Any]:
        def give(values: torch.Tensor) -> torch.Tensor:
            return values.float() if wide else values

        def attention(rows: Any, of: str = "this") -> torch.Tensor:
            picked = [-1] if isinstance(rows, str) and rows == "last" else rows
            return give(self.text if isinstance(picked, str) else self.text[:, picked])

        cells = torch.arange(144)
        return {
            "grids": [(12, 12)], "inputs": give(self.inputs),
            "hidden": give(self.hidden), "received_attention": lambda: self.received,
            "cell_coordinates": torch.stack([0 * cells, cells // 12, cells % 12], 1),
            "attention": attention,
        }  # fmt: skip


def decision(stage: Any, numbers: Numbers, wide: bool) -> list[torch.Tensor | None]:
    """What a strategy decides on the numbers, as tensors."""
    if isinstance(stage, PrefillStrategy):
        given = numbers.prefill(wide)
        found = stage.reduce(prefill_view(144, layer=stage.layers[0], **given))
    else:
        place = stage.places[0] if isinstance(stage, VisionStrategy) else "features"
        view = vision_view(**numbers.vision(wide), block=place)
        if isinstance(stage, KeyTokenStrategy):
            return [stage.protect(view)]
        found = stage.reduce(view)
    assert isinstance(found, Reduction)
    return [found.keep, found.mix, found.sizes, found.group, found.cls]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("stage", VARIANTS, ids=repr)
def test_a_strategy_decides_on_half_precision_as_on_the_same_numbers_in_float32(stage, dtype):
    """To the bit: every mean over heads, sum over text and cosine is taken in float32."""
    if not isinstance(stage, (VisionStrategy, KeyTokenStrategy, PrefillStrategy)):
        return  # a cache view has no number
    for seed in range(4):
        numbers = Numbers(dtype, seed)
        for half, wide in zip(
            decision(stage, numbers, False), decision(stage, numbers, True), strict=True
        ):
            assert (half is None) == (wide is None)
            assert half is None or torch.equal(half, wide)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_raters_are_chosen_in_float32(dtype):
    for _ in range(40):
        inputs = (0.4 * torch.randn(189, 24)).to(dtype)
        half, wide = (
            SparseVLM.raters(prefill_view(104, text=50, inputs=given))
            for given in (inputs, inputs.float())
        )
        assert torch.equal(half, wide)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", ["random", "scheduled", "cache", "known"])
def test_a_draw_is_the_same_in_every_dtype_of_the_model(kind, dtype):
    dropper = {
        "random": TokenDropper(prefill=Random(9, layer=2)),
        "scheduled": TokenDropper(prefill=ScheduledRandom(((36,) * 3 + (9,) * 3,))),
        "cache": TokenDropper(decode=ScheduledCache(((9,) * 6,))),
        "known": TokenDropper(vision=KnownPatches(9)),
    }[kind]
    known = [{"target_patches": np.zeros((6, 6), dtype=bool)}]
    one = tiny_prompt(tiny_llava())
    drawn = []
    # the processor makes float32 pixels; many callers cast them before they call the model
    for model, pixels in (
        (tiny_llava(), torch.float32),
        (tiny_llava(dtype=dtype), torch.float32),
        (tiny_llava(dtype=dtype), torch.bfloat16),
    ):
        with dropper.attach(model, known) as run:
            greedy(model, {**one, "pixel_values": one["pixel_values"].to(pixels)}, 2)
        ledger = run.ledgers[0]
        drawn.append([ledger.alive[5].tolist(), ledger.cached[4].tolist()])
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16], ids=str
)
def test_the_harness_leaves_pixels_to_the_encoder_which_casts_them(dtype):
    model, processor = load(dtype)
    task = PocketVQA("pocket_vqa", "crowded_test")
    docs = [task.eval_docs[number] for number in (0,)]
    chats = [read_chat("pocket_vqa", 0, task.doc_to_messages(doc)) for doc in docs]
    inputs = prompt_inputs(model, processor, chats)
    assert inputs["pixel_values"].dtype == torch.float32
    cast = {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}
    dropper = TokenDropper(prefill=DualAttention(0.003, 0.01, layers=[0]))
    with dropper.attach(model):
        (tokens, logits), (again, same) = greedy(model, dict(inputs), 1), greedy(model, cast, 1)
    assert torch.equal(tokens, again) and torch.equal(logits, same)


def test_no_file_says_that_a_batch_changes_nothing_whatever_the_dtype():
    """haotian-liu/LLaVA#1928: answers in half precision flip with the batch size."""
    text = (conf_dir() / "run.yaml").read_text()
    assert "changes no answer" not in text and "in float32" in text


MUSTDROP = TokenDropper(
    LocalMerge(tau=66.0),
    ClsAttention(),
    DualAttention(gamma=3e-3, alpha=1e-2, layers=[0, 2, 3, 5]),
    OutputAware(),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_batch_changes_nothing_in_float32_and_float16(record_property, capsys):
    """Prompts that keep other tokens alone than in a batch of 20; bfloat16 is measured and told."""
    model, processor = load()
    some = [sample("crowded_test", number) for number in range(20)]

    def inputs(asked):
        return processor(
            text=[prompt(processor, each.question) for each in asked],
            images=[each.image for each in asked], padding=True, padding_side="left",
            return_tensors="pt",
        )  # fmt: skip

    def kept(one, asked):
        with MUSTDROP.attach(one) as run, torch.inference_mode():
            out = one.generate(**inputs(asked), max_new_tokens=2, do_sample=False)
        alive = [
            [ledger.alive[layer][ledger.vision[ledger.alive[layer]]] for layer in range(12)]
            for ledger in run.ledgers
        ]
        return alive, out[:, -2:].tolist()

    found = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        one = copy.deepcopy(model).to(dtype)
        together, answers = kept(one, some)
        tokens = words = 0
        for number, asked in enumerate(some):
            (alone,), (answer,) = kept(one, [asked])
            tokens += any(
                not torch.equal(mine, theirs)
                for mine, theirs in zip(alone, together[number], strict=True)
            )
            words += answer != answers[number]
        found[dtype] = tokens, words
        name = str(dtype).removeprefix("torch.")
        line = f"{name}: {tokens} of 20 prompts keep other tokens alone than in a batch of 20, " + (
            f"{words} get another answer"
        )
        record_property(name, line)
        with capsys.disabled():
            print(f"\n{line}", end="")
    assert found[torch.float32] == found[torch.float16] == (0, 0)
    assert found[torch.bfloat16][0] <= 12 and found[torch.bfloat16][1] <= 2
