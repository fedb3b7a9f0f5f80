"""Small video files for the tests, written with PyAV, and a benchmark that asks about them."""

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask

WIDTH, HEIGHT = 48, 32
STEP = 10  # brightness of frame n is n times this
QUARTER = (0, 1, -1, 0)  # display matrix of a file that a player turns clockwise by 90 degrees


def frame(level: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """One frame: grey, its left upper quarter white."""
    values = np.full((size[1], size[0], 3), level, np.uint8)
    values[: size[1] // 2, : size[0] // 2] = 255
    return values


def write_video(
    path: Path,
    count: int = 20,
    rate: int = 10,
    codec: str = "mpeg4",
    key_every: int = 12,
    times: Sequence[int] | None = None,
    first: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    sound: bool = False,
) -> Path:
    """Write a video whose frame n has the brightness ``first`` + n x STEP.

    Args:
        path: File to write; its ending chooses the container.
        count: Number of frames.
        rate: Frames per second.
        codec: Name of the codec.
        key_every: Number of frames from a key frame to the next one.
        times: Time of each frame in units of 1 / rate; None: one after the other.
        first: Brightness of the first frame.
        size: Width and height.
        sound: Whether there is a sound stream, too.
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, key_every
        stream.codec_context.time_base = Fraction(1, rate)
        noise: Any = container.add_stream("aac", rate=8000) if sound else None
        for index in range(count):
            shown = av.VideoFrame.from_ndarray(frame((first + index * STEP) % 256, size))
            shown.pts = index if times is None else times[index]
            shown.time_base = Fraction(1, rate)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
        if noise is not None:
            _write_sound(container, noise, count / rate)
    return path


def write_sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as container:
        _write_sound(container, container.add_stream("aac", rate=8000), 1.0)
    return path


def _write_sound(container: Any, stream: Any, seconds: float) -> None:
    values = np.zeros((1, int(8000 * seconds)), np.float32)
    block = av.AudioFrame.from_ndarray(values, "fltp", "mono")
    block.rate, block.pts = 8000, 0
    container.mux(stream.encode(block))
    container.mux(stream.encode())


def turn(path: Path, matrix: tuple[int, int, int, int] = QUARTER) -> Path:
    """Change the display matrix of the first track of an mp4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def levels(frames: Sequence[Image.Image]) -> list[int]:
    """Number of each frame by its brightness at the lower right corner."""
    return [
        round(image.getpixel((image.width - 2, image.height - 2))[0] / STEP) for image in frames
    ]


class FileQuestions(ConfigurableMessagesTask):
    """Questions about the images and videos of a folder, in the order of their names.

    Args:
        name: Name of the task.
        folder: Folder with ``.png`` images and videos.
    """

    def __init__(self, name: str, folder: str) -> None:
        self.rows = [
            {"index": index, "path": str(path), "question": "What?", "answer": "yes"}
            for index, path in enumerate(sorted(Path(folder).iterdir()))
        ]
        metric = {"metric": "exact_match", "aggregation": mean, "higher_is_better": True}
        super().__init__(
            config={
                "task": name, "test_split": "test", "output_type": "generate_until",
                "doc_to_messages": messages, "doc_to_target": lambda doc: doc["answer"],
                "doc_to_visual": lambda doc: [doc["path"]],
                "doc_to_text": lambda doc: doc["question"], "process_results": score,
                "generation_kwargs": {"max_new_tokens": 2, "do_sample": False, "until": []},
                "metric_list": [metric], "metadata": {"version": 1.0},
            }
        )  # fmt: skip

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = self.dataset_no_image = {"test": Rows(self.rows)}


class Rows(list):
    """Rows with the names of their fields, as lmms-eval needs them."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


def messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    kind = "image" if doc["path"].endswith(".png") else "video"
    content = [{"type": kind, "url": doc["path"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    return {"exact_match": float(results[0].strip() == doc["answer"])}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
