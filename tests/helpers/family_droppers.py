"""Droppers that fit every family: no [CLS], grids of any size, coordinates as positions."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from droppers import DROPPERS
from families import FAMILIES, OTHER_CLASSES
from tiled_families import TILED

from mustdrop import TokenDropper
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe


def fitting(dropper: TokenDropper) -> TokenDropper:
    """The dropper with the choices that encoders without [CLS] and with any grid need."""
    vision = dropper.vision
    if isinstance(vision, LocalMerge):
        vision = replace(vision, score="mean", edges="keep", window=2, tau=0.2, crops="own")
    elif isinstance(vision, ToMe):
        vision = replace(vision, proportional_attention=False)
    elif isinstance(vision, PruMerge | PruMergePlus):
        vision = replace(vision, variant="paper")
    return replace(dropper, vision=vision, cls_attention="received", decode_positions="continue")


def behind_the_encoder(dropper: TokenDropper) -> TokenDropper:
    """The dropper without what acts or reads inside the encoder; DivPrune takes its place."""
    vision = dropper.vision
    if vision is not None and {*vision.places} != {"projected"}:
        vision = DivPrune(12)
    return replace(dropper, vision=vision, key_tokens=None)


FITTING = {name: fitting(dropper) for name, dropper in DROPPERS.items()}
# Families whose encoder runs whole and is not read.
WHOLE = ("mistral3", "onevision", "pixtral")
FITTING_OF = {
    family: {name: behind_the_encoder(dropper) for name, dropper in FITTING.items()}
    if family in WHOLE
    else FITTING
    for family in FAMILIES | OTHER_CLASSES
}
# One strategy of each stage, for the default tests.
FEW = (
    "fastv", "uniform_grid", "sparsevlm_fixed", "divprune", "average_pool", "local_merge", "tome",
    "cls_topk", "visionzip", "all_stages", "sink_recent",
)  # fmt: skip
# One of each stage, for the default tests of all families but the first.
ONE_EACH = ("fastv", "divprune", "local_merge", "all_stages", "sink_recent")
FIRST = ("llava_next", "qwen2_vl", "qwen2_5_vl", "video_llava")
# One of each place, for the default tests of these families.
FEWER = ("fastv", "divprune", "local_merge", "sink_recent")
LATE = {*TILED, "onevision"}
TWINS = ("idefics3", "pixtral")  # of smolvlm and mistral3; proved by the slow tests alone


def fits(family: str, name: str) -> bool:
    """Whether the family takes this dropper, or one that still has its other stages."""
    dropper = FITTING_OF[family][name]
    return dropper == FITTING[name] or dropper.prefill is not None or dropper.decode is not None


def fitting_cases(*names: str, families: Iterable[str] = FAMILIES) -> list[Any]:
    """Test cases (family, name) of these droppers; those outside the default run are slow."""
    return [
        pytest.param(
            family, name,
            marks=() if family in FIRST or (family not in LATE and name in ONE_EACH)
            else pytest.mark.slow,
        )
        for family in families
        for name in names
        if fits(family, name)
    ]  # fmt: skip


def all_families(whole: bool = True) -> list[Any]:
    """Every family, later ones slow; ``whole``: with those whose encoder runs whole."""
    return [
        pytest.param(family, marks=[pytest.mark.slow] * (family in LATE))
        for family in FAMILIES
        if whole or family not in WHOLE
    ]
