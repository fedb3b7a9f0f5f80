"""Droppers that fit every family: no [CLS], grids of any size, coordinates as positions."""

from dataclasses import replace
from typing import Any

import pytest
from droppers import DROPPERS
from families import FAMILIES
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


FITTING = {name: fitting(dropper) for name, dropper in DROPPERS.items()}
# One strategy of each stage, for the default tests.
FEW = (
    "fastv", "uniform_grid", "sparsevlm_fixed", "divprune", "average_pool", "local_merge", "tome",
    "cls_topk", "visionzip", "all_stages", "sink_recent",
)  # fmt: skip
# One strategy of each place, for families that the default tests prove on these alone.
FEWER = ("fastv", "divprune", "local_merge", "sink_recent")
WHOLE = ("mistral3", "onevision", "pixtral")  # encoders that run whole and are not read
LATE = {*TILED, *WHOLE}
TWINS = ("idefics3", "pixtral")  # of smolvlm and mistral3; proved by the slow tests alone


def dropper_of(family: str, name: str) -> TokenDropper:
    """The dropper of this name; a whole encoder gets another first stage in ``all_stages``."""
    dropper = FITTING[name]
    if family in WHOLE and name == "all_stages":
        dropper = replace(dropper, vision=DivPrune(12), key_tokens=None)
    return dropper


def fits(family: str, name: str) -> bool:
    """Whether the family takes this dropper."""
    dropper = dropper_of(family, name)
    vision = dropper.vision
    reads = vision is not None and (vision.cls_attention_blocks or vision.query_key_blocks)
    inside = vision is not None and {*vision.places} != {"projected"}
    return family not in WHOLE or not (reads or inside or dropper.key_tokens)


def with_names(*names: str) -> list[Any]:
    """Parameters (family, name); those of later families are slow."""
    return [
        pytest.param(family, name, marks=[pytest.mark.slow] * (family in LATE))
        for family in FAMILIES
        for name in names
        if fits(family, name)
    ]


def all_families(whole: bool = True) -> list[Any]:
    """Every family, later ones slow; ``whole``: with those whose encoder runs whole."""
    return [
        pytest.param(family, marks=[pytest.mark.slow] * (family in LATE))
        for family in FAMILIES
        if whole or family not in WHOLE
    ]
