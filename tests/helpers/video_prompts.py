"""Prompts with videos for tiny models, and what their vision slots show, from the prompts alone."""

from functools import cache
from typing import NamedTuple

import torch
from families import FAMILIES, Video

from mustdrop import TokenDropper

# One prompt with a video, one with two. Qwen merges two frames in time
LLAVA = ((3, Video(5, 28, 28), 7), (2, Video(5, 28, 28), 3, Video(5, 28, 28), 4))
QWEN = ((3, Video(12, 24, 40), 7), (2, Video(12, 24, 24), 3, Video(8, 16, 40), 4))
PROMPTS = {"video_llava": LLAVA, "qwen2_5_vl": QWEN, "qwen2_vl": QWEN}


class Slot(NamedTuple):
    """One vision slot of a prompt; ``cell`` is None for a frame's [CLS]."""

    video: int
    frame: int
    cell: int | None


class Shape(NamedTuple):
    """Frames in time and grid of one video."""

    frames: int
    rows: int
    columns: int


@cache
def model_of(family: str, attention: str = "sdpa"):
    return FAMILIES[family].model(attention)


def shapes(family: str, parts) -> list[Shape]:
    videos = [part for part in parts if isinstance(part, Video)]
    if family == "video_llava":
        return [Shape(video.frames, 7, 7) for video in videos]
    return [Shape(v.frames // 2, v.height // 8, v.width // 8) for v in videos]


def slots(family: str, parts) -> list[Slot]:
    """The vision slots of a prompt, in sequence order."""
    made = []
    for video, (frames, rows, columns) in enumerate(shapes(family, parts)):
        for frame in range(frames):
            if family == "video_llava":
                made.append(Slot(video, frame, None))
            made += [Slot(video, frame, cell) for cell in range(rows * columns)]
    return made


def run_of(family: str, dropper: TokenDropper, prompts=None):
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *(prompts or PROMPTS[family]))
    with dropper.attach(model) as run, torch.inference_mode():
        model(**inputs)
    return run


def kept(ledger, layer: int = 0) -> list[int]:
    """Indices, among the vision slots of the prompt, of those that enter a layer."""
    vision = ledger.vision.nonzero().flatten().tolist()
    alive = {*ledger.alive[layer].tolist()}
    return [number for number, position in enumerate(vision) if position in alive]
