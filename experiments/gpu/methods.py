"""The measured methods: with small counts for equality, with scheduled counts for timing.

Random weights make a method's thresholds meaningless. Its counts then come from schedules.json;
scores, selection and waits for the device remain those of the method.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.functional import window_similarity, windows
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.profiling.counted import Counted
from mustdrop.strategy import VisionStrategy
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

SCHEDULES = Path(__file__).parent / "schedules.json"


def small_methods(slots: int) -> dict[str, TokenDropper]:
    """Make every kind of dropper at about a quarter of the tokens, for six or more layers.

    Args:
        slots: Vision tokens of one image.
    """
    quarter = slots // 4

    def encoder_side(vision: VisionStrategy) -> TokenDropper:
        return TokenDropper(vision=vision, vision_positions="compact")

    mustdrop = TokenDropper(
        vision=LocalMerge(0.5, score="mean"),
        key_tokens=ClsAttention("ratio", ratio=0.1),
        prefill=DualAttention(1.2 / slots, 8 / slots, layers=[1, 3]),
        decode=OutputAware(from_layer=1),
    )
    return {
        "mustdrop": mustdrop,
        "mustdrop compact": replace(mustdrop, positions="compact", vision_positions="compact"),
        "fastv": TokenDropper(prefill=FastV(keep=quarter, layer=1)),
        "cls_topk": encoder_side(ClsTopK(keep=quarter)),
        "tome": encoder_side(ToMe([slots // 5, slots // 7, slots // 9])),
        "sparsevlm": TokenDropper(
            prefill=SparseVLM(keep=[slots // 2, quarter, 2], layers=[1, 2, 4]),
            positions="compact",
        ),
        "visionzip": encoder_side(VisionZip(quarter, 4)),
        "pyramiddrop": TokenDropper(
            prefill=PyramidDrop([0.5, 0.25, 0.1], layers=[0, 2, 4]), positions="compact"
        ),
        "divprune": encoder_side(DivPrune(keep=quarter)),
        "prumerge": encoder_side(PruMerge(keep=quarter, neighbours=5)),
        "vispruner": encoder_side(VisPruner(keep=quarter)),
        "random": TokenDropper(prefill=Random(keep=quarter), vision_positions="compact"),
    }


def schedules(model: str) -> dict[str, Any]:
    """Read the counts of each method at each budget, for a model shape of schedules.json."""
    return json.loads(SCHEDULES.read_text(encoding="utf-8"))[model]


def scheduled_methods(
    counts: Mapping[str, Any], model: Any, pixels: Tensor
) -> dict[str, TokenDropper]:
    """Make the droppers with scheduled counts: method and budget -> dropper.

    Args:
        counts: Counts as :func:`schedules` returns them.
        model: Model to run on; the threshold of merging depends on its weights.
        pixels: Pictures of the prompts, which are all the same.
    """
    made = {}
    for budget, values in counts["mustdrop"].items():
        made[f"mustdrop {budget}"] = TokenDropper(
            vision=LocalMerge(merge_threshold(model, pixels, values["merged_windows"])),
            key_tokens=ClsAttention("ratio", ratio=values["key_ratio"]),
            prefill=Counted(DualAttention(1e-3, 1e-3, values["layers"]), values["after"]),
            decode=OutputAware(from_layer=values["decode_from_layer"]),
            vision_positions="compact",
        )
    for budget, values in counts["fastv"].items():
        made[f"fastv {budget}"] = TokenDropper(prefill=FastV(values["keep"], values["layer"]))
    return made


@torch.inference_mode()
def merge_threshold(model: Any, pixels: Tensor, merged: int) -> float:
    """Find the tau at which LocalMerge merges ``merged`` windows of the pictures after block 0."""
    adapter = adapter_for(model)
    encoder, grid = adapter.encoders[0], adapter.facts.grid
    assert grid is not None
    hidden = encoder.blocks[0](encoder.embed(pixels), None)
    index = windows(*grid, 3).to(pixels.device)
    similarity = window_similarity(hidden[0, encoder.has_cls :], index, "sum")
    ranked = similarity.double().sort(descending=True).values
    return float(ranked[merged - 1 : merged + 1].mean())
