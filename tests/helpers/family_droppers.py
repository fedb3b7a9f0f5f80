"""Droppers that fit every family: no [CLS], grids of any size, coordinates as positions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from droppers import DROPPERS
from families import FAMILIES
from tiled_families import TILED

from mustdrop import TokenDropper
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


def with_names(*names: str, few: Sequence[str] = ()) -> list[Any]:
    """Parameters (family, name); those of families with tiles are slow but for ``few`` names."""
    return [
        pytest.param(family, name, marks=[pytest.mark.slow] * _late(family, name not in few))
        for family in FAMILIES
        for name in names
    ]


def all_families() -> list[Any]:
    """Every family; those with tiles are slow."""
    return [pytest.param(family, marks=[pytest.mark.slow] * _late(family)) for family in FAMILIES]


def _late(family: str, also: bool = True) -> bool:
    return family in TILED and also
