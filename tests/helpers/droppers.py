"""Droppers for tiny models: every strategy and position rule, small enough for six layers."""

from dataclasses import replace

from mustdrop import TokenDropper, VisionStrategy
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.keep_centre import KeepCentre
from mustdrop.prefill.keep_last import KeepLast
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner


def mustdrop(merge: dict | None = None, **options) -> TokenDropper:
    """All three stages; thresholds that drop something after both layers."""
    return TokenDropper(
        vision=LocalMerge(0.5, score="mean", **(merge or {})),
        key_tokens=ClsAttention("ratio", ratio=0.1),
        prefill=DualAttention(0.02, 0.1, layers=[1, 3]),
        decode=OutputAware(from_layer=1),
        **options,
    )


def encoder_side(vision: VisionStrategy, **options) -> TokenDropper:
    """What survives the encoder is renumbered."""
    return TokenDropper(vision=vision, vision_positions="compact", **options)


OFFICIAL = {"strict": False, "crops": "fewest", "order": "similarity"}
DROPPERS: dict[str, TokenDropper] = {
    "fastv": TokenDropper(prefill=FastV(keep=10, layer=1)),
    "fastv_none_left": TokenDropper(prefill=FastV(keep=0, layer=2)),
    "random": TokenDropper(prefill=Random(keep=10), vision_positions="compact"),
    "random_mid": TokenDropper(prefill=Random(keep=7, layer=2), decode=OutputAware(0)),
    "uniform_grid": TokenDropper(prefill=UniformGrid(keep=9)),
    "cls_topk": TokenDropper(vision=ClsTopK(keep=12), vision_positions="compact"),
    "local_merge": TokenDropper(vision=LocalMerge(0.5, score="mean")),
    "global_only": TokenDropper(prefill=DualAttention(0.02, None, layers=[1, 3])),
    "individual_only": TokenDropper(prefill=DualAttention(None, 0.1, layers=[0, 4])),
    "mustdrop": mustdrop(),
    "mustdrop_compact": mustdrop(positions="compact"),
    "mustdrop_vision_compact": mustdrop(vision_positions="compact"),
    "mustdrop_outlier": TokenDropper(
        LocalMerge(0.5, score="mean"),
        ClsAttention("outlier", mu=0.5),
        DualAttention(0.05, 0.2, layers=[2]),
        OutputAware(0),
    ),
    "mustdrop_official": mustdrop(
        OFFICIAL,
        positions="compact",
        vision_positions="compact",
        decode_positions="cache_length",
    ),
    "fastv_paper": TokenDropper(prefill=FastV(keep=10, layer=1, rows="all")),
    "pyramiddrop": TokenDropper(
        prefill=PyramidDrop([0.5, 0.25, 0.1], layers=[0, 2, 4]), positions="compact"
    ),
    "sparsevlm": TokenDropper(
        prefill=SparseVLM(scale=4.0, bias=3.0, layers=[0, 1, 3]), positions="compact"
    ),
    "sparsevlm_fixed": TokenDropper(
        prefill=SparseVLM(keep=[20, 9, 0], layers=[1, 2, 4]), positions="compact"
    ),
    "sparsevlm_original": TokenDropper(prefill=SparseVLM(keep=[12, 5], layers=[0, 3])),
    "sparsevlm_keys": TokenDropper(
        LocalMerge(0.5, score="mean"),
        ClsAttention("ratio", ratio=0.1),
        SparseVLM(keep=[12, 1], layers=[1, 3]),
        SinkRecent(sinks=2, from_layer=1),
    ),
    "vtw": TokenDropper(prefill=VTW(layer=2)),
    "vtw_keys": TokenDropper(key_tokens=ClsAttention("ratio", ratio=0.1), prefill=VTW(layer=0)),
    "keep_last": TokenDropper(prefill=KeepLast(keep=9), vision_positions="compact"),
    "keep_centre": TokenDropper(prefill=KeepCentre(keep=9), vision_positions="compact"),
    "mustdrop_window": replace(mustdrop(), decode=SinkRecent(sinks=1, from_layer=1)),
    "sink_recent": TokenDropper(prefill=KeepLast(30), decode=SinkRecent(tokens=11, from_layer=0)),
    "tome": encoder_side(ToMe([7, 5, 4])),
    "tome_later": encoder_side(ToMe([0, 100, 3]), prefill=FastV(keep=5, layer=1)),
    "tome_plain": encoder_side(ToMe([7, 0, 4], proportional_attention=False)),
    "tome_forgetful": encoder_side(ToMe([7, 5, 4], proportional_attention=False, weighted=False)),
    "prumerge": encoder_side(PruMerge(keep=9, neighbours=5)),
    "prumerge_adaptive": encoder_side(PruMerge(neighbours=5)),
    "prumerge_paper": encoder_side(PruMerge(keep=9, neighbours=5, variant="paper")),
    "prumerge_rest": encoder_side(PruMerge(keep=1)),
    "prumerge_plus": encoder_side(PruMergePlus(keep=12, neighbours=5)),
    "prumerge_plus_adaptive": encoder_side(PruMergePlus(neighbours=5, variant="paper")),
    "visionzip": encoder_side(VisionZip(8, 4)),
    "visionzip_cls_alone": encoder_side(VisionZip(1, 0)),
    "visionzip_drops_on": encoder_side(VisionZip(1, 9), prefill=FastV(keep=3, layer=1)),
    "vispruner": encoder_side(VisPruner(keep=12)),
    "divprune": encoder_side(DivPrune(keep=10)),
    "divprune_none_left": encoder_side(DivPrune(keep=0)),
    "average_pool": encoder_side(AveragePool(keep=10)),
}
