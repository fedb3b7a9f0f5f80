"""The measured methods: with small counts for equality, at budgets for timing.

Random weights make MustDrop's thresholds meaningless. Its counts then come from schedules.json;
scores, selection and waits for the device remain those of the method. The counts of the other
methods follow from the budget.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.profiling.thresholds import ThresholdSearch
from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.profiling.counted import Counted
from mustdrop.strategy import PrefillStrategy, VisionStrategy
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

SCHEDULES = Path(__file__).parent / "schedules.json"
DEPTH = 32  # decoder layers of the model that the methods' layers were chosen for


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


class TimedMethods:
    """The methods at their budgets on one model, as its presets have them.

    Args:
        model: Model to run on.
        inputs: One prompt with one image; all timed prompts are equal to it.
    """

    def __init__(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        adapter = adapter_for(model)
        (image,) = adapter.visual_inputs(inputs)[model.config.image_token_id]
        self.cells = sum(rows * columns for rows, columns in image.grids)
        self.facts, self.search = adapter.facts, ThresholdSearch(model, inputs)
        self.merging: LocalMerge | None = None

    def get(self, arm: str) -> TokenDropper:
        """Make the dropper of an arm, such as ``fastv 64/576``."""
        method, _, budget = arm.partition(" ")
        if method == "mustdrop":
            return self._mustdrop(budget)
        return self._budgeted(method, Budget.parse(budget))

    def _budgeted(self, method: str, budget: Budget | None) -> TokenDropper:
        assert budget is not None
        stages: dict[str, VisionStrategy | PrefillStrategy] = {
            "fastv": FastV(budget, self._at_depth(1)),
            "visionzip": VisionZip(budget, budget),
            "divprune": DivPrune(budget),
            "sparsevlm": SparseVLM(keep=budget, layers=[self._at_depth(n) for n in (2, 6, 15)]),
            "random": Random(budget),
        }
        stage = stages[method]
        if isinstance(stage, VisionStrategy):
            source = "cls" if self.facts.has_cls else "received"
            return TokenDropper(vision=stage, vision_positions="compact", cls_attention=source)
        return TokenDropper(
            prefill=stage,
            positions="compact" if method == "sparsevlm" else "original",
            vision_positions="original" if method == "fastv" else "compact",
        )

    def _mustdrop(self, budget: str) -> TokenDropper:
        """MustDrop with scheduled counts, scaled to the cells and the depth of the model."""
        tokens, _, of = budget.partition("/")
        counts = schedule(f"t{tokens}")
        coordinates, scale = self.facts.coordinates, self.cells / int(of)
        layers = [self._at_depth(layer) for layer in counts["layers"]]
        after = [round(count * scale) for count in counts["after"]]
        dropper = TokenDropper(
            vision=LocalMerge(0.8, 2, score="mean", edges="keep")
            if coordinates
            else LocalMerge(57.6),
            key_tokens=ClsAttention("ratio", ratio=counts["key_ratio"]),
            prefill=Counted(DualAttention(1e-3, 1e-3, layers), after),
            decode=OutputAware(counts["decode_from_layer"]),
            vision_positions="original" if coordinates else "compact",
            cls_attention="cls" if self.facts.has_cls else "received",
        )
        if self.merging is None:  # the same at every budget
            left = 1 - counts["merged"] / int(of)
            merging = self.search.merging(dropper, left).vision
            assert isinstance(merging, LocalMerge)
            self.merging = merging
        return replace(dropper, vision=self.merging)

    def _at_depth(self, layer: int) -> int:
        """The layer at the same relative depth of the model."""
        return layer * self.facts.depth // DEPTH


def schedule(budget: str) -> dict[str, Any]:
    """MustDrop's counts on LLaVA-1.5-7B at a budget; ``merged`` tokens leave before layer 0."""
    stored = json.loads(SCHEDULES.read_text(encoding="utf-8"))["llava15_7b"]["mustdrop"][budget]
    return {**stored, "merged": 8 * stored["merged_windows"]}
