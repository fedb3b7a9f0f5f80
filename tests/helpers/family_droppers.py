"""Droppers that fit every family: no [CLS], grids of any size, coordinates as positions."""

from dataclasses import replace

from droppers import DROPPERS

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
