"""Droppers for tiny models: every method of conf/method, and settings that no method has.

A new method needs no entry here (:mod:`tiny_methods`).
"""

from tiny_methods import every_method

from mustdrop import TokenDropper, VisionStrategy
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.keep_last import KeepLast
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip


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
# Other position rules, later layers, nothing left, and combinations of stages.
SPECIAL: dict[str, TokenDropper] = {
    "fastv_later": TokenDropper(prefill=FastV(keep=10, layer=1)),
    "fastv_none_left": TokenDropper(prefill=FastV(keep=0, layer=2)),
    "random_mid": TokenDropper(prefill=Random(keep=7, layer=2), decode=OutputAware(0)),
    "local_merge": TokenDropper(vision=LocalMerge(0.5, score="mean")),
    "individual_only": TokenDropper(prefill=DualAttention(None, 0.1, layers=[0, 4])),
    "all_stages": mustdrop(),
    "mustdrop_compact": mustdrop(positions="compact"),
    "mustdrop_cache_length": mustdrop(
        OFFICIAL,
        positions="compact",
        vision_positions="compact",
        decode_positions="cache_length",
    ),
    "pyramiddrop_later": TokenDropper(
        prefill=PyramidDrop([0.5, 0.25, 0.1], layers=[0, 2, 4]), positions="compact"
    ),
    "sparsevlm_later": TokenDropper(
        prefill=SparseVLM(keep=[20, 9, 0], layers=[1, 2, 4]), positions="compact"
    ),
    "sparsevlm_original": TokenDropper(prefill=SparseVLM(keep=[12, 5], layers=[0, 3])),
    "sparsevlm_keys": TokenDropper(
        LocalMerge(0.5, score="mean"),
        ClsAttention("ratio", ratio=0.1),
        SparseVLM(keep=[12, 1], layers=[1, 3]),
        SinkRecent(sinks=2, from_layer=1),
    ),
    "vtw_keys": TokenDropper(key_tokens=ClsAttention("ratio", ratio=0.1), prefill=VTW(layer=0)),
    "sink_recent": TokenDropper(prefill=KeepLast(30), decode=SinkRecent(tokens=11, from_layer=0)),
    "tome_later": encoder_side(ToMe([0, 100, 3]), prefill=FastV(keep=5, layer=1)),
    "tome_plain": encoder_side(ToMe([7, 0, 4], proportional_attention=False)),
    "tome_forgetful": encoder_side(ToMe([7, 5, 4], proportional_attention=False, weighted=False)),
    "prumerge_adaptive": encoder_side(PruMerge(neighbours=5)),
    "prumerge_rest": encoder_side(PruMerge(keep=1)),
    "prumerge_plus_adaptive": encoder_side(PruMergePlus(neighbours=5, variant="paper")),
    "visionzip_cls_alone": encoder_side(VisionZip(1, 0)),
    "visionzip_drops_on": encoder_side(VisionZip(1, 9), prefill=FastV(keep=3, layer=1)),
    "divprune_none_left": encoder_side(DivPrune(keep=0)),
}
DROPPERS: dict[str, TokenDropper] = {**every_method(), **SPECIAL}
