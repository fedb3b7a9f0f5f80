"""Random cases for the laws: any strategies, position rules, prompts and tiny models together."""

from dataclasses import dataclass
from functools import cache

import torch
from hypothesis import strategies as st
from models import batch, tiny_llava

from mustdrop import TokenDropper
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
from mustdrop.prefill.text_topk import TextTopK
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.prefill.vtw import VTW
from mustdrop.reduction import Reduction
from mustdrop.strategy import DecodeStrategy, PrefillStrategy, VisionStrategy
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

LAYERS = 6
IMAGE = 5


@cache
def model_of(attention: str, grid: int, kv_heads: int, cls: bool):
    """A tiny LLaVA, made once a test process."""
    return tiny_llava(attention, grid=grid, kv_heads=kv_heads, cls=cls)


@dataclass(frozen=True)
class AnyPrefill(PrefillStrategy):
    """Keeps tokens in any order, at any layer, key tokens first; mixes neighbours where asked."""

    layers: tuple[int, ...]
    seed: int
    share: float
    mixes: bool

    def reduce(self, view) -> Reduction:
        generator = torch.Generator().manual_seed(self.seed + view.layer + 2)
        order = torch.randperm(len(view), generator=generator)
        order = torch.cat([order[view.protected[order]], order[~view.protected[order]]])
        keep = order[: max(int(self.share * len(view)), int(view.protected.sum()))]
        keep = keep[torch.randperm(len(keep), generator=generator)]
        if not self.mixes or not len(keep):
            return Reduction(keep)
        mix = torch.rand(len(keep), len(view), generator=generator)
        return Reduction(keep, mix / mix.sum(1, keepdim=True))


@dataclass(frozen=True)
class AnyVision(VisionStrategy):
    """The same inside the encoder or behind it; before the projector with a share of [CLS], too."""

    places: tuple
    seed: int
    share: float
    mixes: bool
    least: int = 0

    def reduce(self, view) -> Reduction:
        tokens = len(view.sizes)
        generator = torch.Generator().manual_seed(self.seed + tokens)
        keep = torch.randperm(tokens, generator=generator)
        keep = keep[: max(int(self.share * tokens), self.least)]
        if not self.mixes or not len(keep):
            return Reduction(keep)
        mix = torch.rand(len(keep), tokens + 1, generator=generator)
        mix = mix / mix.sum(1, keepdim=True)
        with_cls = view.has_cls and view.block != "projected" and self.seed % 2
        return Reduction(keep, mix[:, 1:], cls=mix[:, 0] if with_cls else None)


@dataclass(frozen=True)
class AnyDecode(DecodeStrategy):
    """Keeps any tokens in each layer's cache, key tokens always."""

    seed: int
    share: float

    def keep(self, view) -> torch.Tensor:
        drawn = torch.rand(len(view.protected), generator=view.generator(self.seed))
        return (drawn < self.share) | view.protected


def share() -> st.SearchStrategy[float]:
    """A fraction; both ends often."""
    return st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=16))


def vision(patches: int, cls: bool) -> st.SearchStrategy:
    """Any strategy of stage 1, with counts from none to more than there are."""
    count = st.integers(0, patches + 3)
    some = st.integers(1, patches + 3)
    places = st.sampled_from([(0,), (1,), (0, 1), ("features",), ("projected",), (1, "projected")])
    options = [
        st.none(),
        st.builds(
            LocalMerge, tau=st.sampled_from([-1.0, 0.2, 0.6, 0.9, 2.0]), window=st.just(2),
            score=st.just("mean"), crops=st.sampled_from(["own", "fewest"]),
            order=st.sampled_from(["raster", "similarity"]), block=st.integers(0, 1),
        ),
        st.builds(lambda removed, rule: ToMe(removed, **rule),
                  st.lists(st.integers(0, patches), min_size=2, max_size=3),
                  st.sampled_from([{}, {"proportional_attention": False},
                                   {"proportional_attention": False, "weighted": False}])),
        st.builds(DivPrune, count),
        st.builds(AveragePool, count),
        st.builds(AnyVision, places, st.integers(0, 99), share(), st.booleans()),
    ]  # fmt: skip
    if cls:
        reading = st.sampled_from(["paper", "code"])
        options += [
            st.builds(ClsTopK, count, block=st.sampled_from([-1, -2])),
            st.builds(VisionZip, some, st.integers(0, 5)),
            st.builds(VisPruner, count, important_ratio=share()),
            st.builds(PruMerge, keep=st.one_of(st.none(), some), variant=reading,
                      neighbours=st.integers(0, patches)),
            st.builds(PruMergePlus, keep=st.one_of(st.none(), some), variant=reading,
                      neighbours=st.integers(0, 8)),
        ]  # fmt: skip
    return st.one_of(options)


def key_tokens(cls: bool) -> st.SearchStrategy:
    """No key tokens, or some by either rule."""
    marks = st.builds(ClsAttention, rule=st.sampled_from(["outlier", "ratio"]), ratio=share())
    return st.one_of(st.none(), marks) if cls else st.none()


@st.composite
def prefill(draw, patches: int):
    """Any strategy of stage 2."""
    layers = sorted(draw(st.sets(st.integers(0, LAYERS - 2), min_size=1, max_size=3)))
    anywhere = sorted(draw(st.sets(st.integers(-1, LAYERS - 2), min_size=1, max_size=3)))
    layer, first = st.sampled_from(layers), st.sampled_from(anywhere)
    count, each = st.integers(0, patches + 3), {"min_size": len(layers), "max_size": len(layers)}
    threshold = st.one_of(st.none(), st.sampled_from([0.0, 0.02, 0.05, 1.0]))
    options = [
        st.none(),
        st.builds(DualAttention, threshold, st.sampled_from([0.0, 0.03, 0.1, 1.0]),
                  layers=st.just(layers), min_keep=st.integers(0, 4)),
        st.builds(FastV, count, layer=layer, rows=st.sampled_from(["last", "all"])),
        st.builds(TextTopK, count, layer=layer),
        st.builds(Random, count, layer=first),
        st.builds(UniformGrid, count, layer=first),
        st.builds(KeepCentre, count, layer=first),
        st.builds(KeepLast, count, layer=first),
        st.builds(VTW, layer=first),
        st.builds(PyramidDrop, st.lists(share(), **each), layers=st.just(layers)),
        st.builds(SparseVLM, keep=st.lists(count, **each), layers=st.just(layers),
                  per_cluster=st.sampled_from([1, 3, 10]), recycle=share()),
        st.builds(SparseVLM, scale=st.floats(0, 2), bias=st.just(1.0), layers=st.just(layers)),
        st.builds(AnyPrefill, st.just(tuple(anywhere)), st.integers(0, 99), share(), st.booleans()),
    ]  # fmt: skip
    return draw(st.one_of(options))


def decode() -> st.SearchStrategy:
    """Any strategy of stage 3."""
    return st.one_of(
        st.none(),
        st.builds(OutputAware, st.integers(0, LAYERS)),
        st.builds(SinkRecent, sinks=st.integers(0, 3), from_layer=st.integers(0, LAYERS),
                  tokens=st.one_of(st.none(), st.integers(0, 9))),
        st.builds(AnyDecode, st.integers(0, 99), share()),
    )  # fmt: skip


@st.composite
def one_prompt(draw, patches: int, side: int) -> dict[str, torch.Tensor]:
    """Text and images in any order; text last."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    parts, images = [], 0
    for is_image in draw(st.lists(st.booleans(), max_size=3)):
        images += is_image
        length = draw(st.integers(1, 7))
        text = torch.randint(6, 97, (length,), generator=generator)
        parts.append(torch.full((patches,), IMAGE) if is_image else text)
    parts.append(torch.randint(6, 97, (draw(st.integers(1, 8)),), generator=generator))
    ids = torch.cat(parts)
    pixels = torch.randn(images, 3, side, side, generator=generator)
    pixels[:, :, : int(draw(share()) * side)] = 0.5
    return {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values": pixels,
    }


@st.composite
def cases(draw):
    """(options of :func:`model_of`, dropper, prompts): everything that the laws are about."""
    attention = draw(st.sampled_from(["sdpa", "eager"]))
    grid, cls = draw(st.sampled_from([4, 6])), draw(st.sampled_from([True, True, False]))
    options = (attention, grid, draw(st.sampled_from([1, 2, 4])), cls)
    patches, rule = grid**2, st.sampled_from(["original", "compact"])
    dropper = TokenDropper(
        draw(vision(patches, cls)), draw(key_tokens(cls)), draw(prefill(patches)), draw(decode()),
        positions=draw(rule), vision_positions=draw(rule),
        decode_positions=draw(st.sampled_from(["continue", "cache_length"])),
    )  # fmt: skip
    prompts = draw(st.lists(one_prompt(patches, 4 * grid), min_size=1, max_size=4))
    return options, dropper, prompts


def joined(prompts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The prompts as one batch; without pixel values where no prompt has an image."""
    inputs = batch(*prompts)
    if not len(inputs["pixel_values"]):
        del inputs["pixel_values"]
    return inputs
