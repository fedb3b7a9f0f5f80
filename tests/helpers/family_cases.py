"""Random cases of the laws for models other than LLaVA-1.5: crops, cells of 2 x 2, videos."""

from dataclasses import replace
from functools import cache
from typing import Any

from cases import AnyVision, decode, key_tokens, prefill, share
from families import FAMILIES, FRAMES, Image, Part, Video
from family_droppers import WHOLE
from hypothesis import strategies as st
from tiled_families import TILED

from mustdrop import TokenDropper
from mustdrop.prefill.average_frames import AverageFrames
from mustdrop.prefill.every_other_frame import EveryOtherFrame
from mustdrop.prefill.uniform_frames import UniformFrames
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

CELLS = 20  # counts of tokens are drawn up to about the number of cells of an image
BLOCKS = {
    "gemma3": 3,
    "idefics3": 3,
    "internvl": 3,
    "smolvlm": 3,
    "llava_next": 2,
    "paligemma": 3,
    "qwen2_vl": 3,
    "qwen2_5_vl": 3,
    "qwen3_vl": 3,
    "video_llava": 2,
}  # after which tokens may be dropped


@cache
def family_model(family: str, attention: str) -> Any:
    """A tiny model, made once a test process."""
    return FAMILIES[family].model(attention)


@st.composite
def anywhere(draw, family: str) -> AnyVision:
    """Any order and any mix at some of all places."""
    places = [*range(BLOCKS[family]), "features"] if family in BLOCKS else []
    places.append("projected")
    chosen = draw(st.sets(st.sampled_from(places), min_size=1, max_size=3))
    return AnyVision(
        tuple(place for place in places if place in chosen), draw(st.integers(0, 99)),
        draw(share()), draw(st.booleans()), least=draw(st.sampled_from([1, 1, 1, 0])),
    )  # fmt: skip


def vision(family: str, cls: bool) -> st.SearchStrategy:
    """Any strategy of stage 1; ``cls``: whether the encoder has [CLS]."""
    count, some = st.integers(0, CELLS), st.integers(1, CELLS)
    if family in WHOLE:
        return st.one_of(
            st.none(), anywhere(family), st.builds(DivPrune, count), st.builds(AveragePool, count)
        )
    last = BLOCKS[family] - 1
    variants = ["paper", "code"] if cls else ["paper"]
    crops = ["own", "fewest"] if cls else ["own"]  # of one size on both LLaVAs alone
    plain = {"proportional_attention": False}
    rules = [plain, {**plain, "weighted": False}, *([{}] if cls else [])]
    return st.one_of(
        st.none(),
        anywhere(family),
        st.builds(
            LocalMerge, tau=st.sampled_from([-1.0, 0.2, 0.6, 0.9]), window=st.sampled_from([2, 3]),
            score=st.just("mean"), crops=st.sampled_from(crops), edges=st.just("keep"),
            order=st.sampled_from(["raster", "similarity"]), block=st.integers(0, last),
        ),
        st.builds(lambda removed, rule: ToMe(removed, **rule),
                  st.lists(st.integers(0, 9), min_size=2, max_size=last + 2),
                  st.sampled_from(rules)),
        st.builds(DivPrune, count),
        st.builds(AveragePool, count),
        st.builds(ClsTopK, count, block=st.sampled_from([-1, -2] if not cls else [-2, -3])),
        st.builds(VisionZip, some, st.integers(0, 5)),
        st.builds(VisPruner, count, important_ratio=share()),
        st.builds(PruMerge, keep=st.one_of(st.none(), some), variant=st.sampled_from(variants),
                  neighbours=st.integers(0, CELLS)),
        st.builds(PruMergePlus, keep=st.one_of(st.none(), some), neighbours=st.integers(0, 8),
                  variant=st.sampled_from(variants)),
    )  # fmt: skip


def visual_input(family: str) -> st.SearchStrategy[Part]:
    """An image of any size, or on Qwen and Video-LLaVA a video; from one cell on."""
    if family == "llava_next":
        return st.builds(Image, st.integers(4, 80), st.integers(4, 80))
    if family in ("gemma3", "paligemma"):
        return st.just(Image(16, 16))
    if family == "onevision":
        side = st.integers(4, 80)
        return st.one_of(st.builds(Image, side, side), st.just(Video(3, 16, 16)))
    if family in WHOLE:
        # Mistral 3's own class takes no image of one cell
        side = st.integers(2, 8).map(lambda cells: 8 * cells)
        return st.builds(Image, side, side)
    if family in TILED:
        side = st.integers(1, 2).map(lambda tiles: 16 * tiles)
        return st.one_of(
            st.builds(Image, side, side), st.builds(Video, st.integers(1, 3), side, side)
        )
    if family == "video_llava":  # squares of one size
        return st.sampled_from([Image(16, 16), Video(FRAMES, 16, 16)])
    side = st.integers(1, 5).map(lambda cells: 8 * cells)
    small = st.integers(1, 3).map(lambda cells: 8 * cells)
    video = st.builds(Video, st.sampled_from([2, 4, 6]), small, small)
    return st.one_of(st.builds(Image, side, side), st.builds(Image, side, side), video)


@st.composite
def prompt(draw, family: str) -> tuple[Part, ...]:
    """None to three visual inputs with text between them; text last."""
    least = int(family.startswith("qwen"))  # Qwen's positions need a token between two images
    parts: list[Part] = []
    for _ in range(draw(st.sampled_from([1, 2, 3, 0]))):
        parts += [draw(st.integers(least if parts else 0, 6)), draw(visual_input(family))]
    return (*parts, draw(st.integers(1, 8)))


def video_prefill() -> st.SearchStrategy:
    """Any strategy that chooses among the frames of a video."""
    layer, count = st.sampled_from([-1, 0, 2]), st.integers(0, 3 * CELLS)
    return st.one_of(
        st.builds(UniformFrames, count, layer),
        st.builds(AverageFrames, count, layer),
        st.builds(EveryOtherFrame, layer),
    )


def as_video(part: Part) -> Part:
    """The same picture as a video; text and videos as they are."""
    return Video(FRAMES, *part) if isinstance(part, Image) else part


@st.composite
def family_cases(draw) -> tuple[str, str, TokenDropper, list[tuple[Part, ...]], int]:
    """(family, attention, dropper, prompts, seed of their pixels and text)."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    qwen = family.startswith("qwen")
    cls = family.startswith(("internvl", "llava", "video"))
    received = draw(st.sampled_from([True, False] if cls else [True, True, True, False]))
    rule = st.sampled_from(["original", "compact"])
    of_frames = family.startswith(("qwen", "video")) and draw(
        st.sampled_from([False, False, False, True])
    )
    dropper = TokenDropper(
        draw(vision(family, cls)),
        draw(key_tokens(True)) if family not in WHOLE else None,
        draw(video_prefill() if of_frames else prefill(CELLS)),
        draw(decode()), positions=draw(rule), vision_positions=draw(rule),
        cls_attention="received" if received else "cls",
    )  # fmt: skip
    if not qwen:
        position = draw(st.sampled_from(["continue", "cache_length"]))
        dropper = replace(dropper, decode_positions=position)
    prompts = draw(st.lists(prompt(family), min_size=1, max_size=4))
    if of_frames:
        prompts = [tuple(map(as_video, parts)) for parts in prompts]
    attention = draw(st.sampled_from(["sdpa", "eager"]))
    return family, attention, dropper, prompts, draw(st.integers(0, 10**6))
