"""Frames of a video file, evenly spaced, decoded with PyAV. Knows no model and no benchmark.

Which frames: ``count`` indices from the first frame to the last one, rounded down, as the authors
of Video-LLaVA choose them. A file with fewer frames shows some of them several times, a file of one
frame only that one. Frames are turned as the file says, so that they look as in a player.

A file is read twice: once for the times of its frames, without decoding, and once for the chosen
frames, from the key frame in front of each. Where the times are of no use (none, or not those of
the decoded frames) all frames are decoded, to count them first. A folder of pictures is a video,
too, of ``FOLDER_RATE`` frames per second.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from PIL import Image

from mustdrop.provenance.media_files import frame_files

# A file whose frames end before this share of its stated duration is incomplete.
WHOLE_SHARE = 0.9
FOLDER_RATE = 3.0  # frames per second of TVQA, whose videos are published as folders of pictures


class UnreadableVideo(ValueError):
    """A video file without usable frames; the message names the file."""


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """Chosen frames of a video, in the order of time.

    Attributes:
        frames: Images of one size.
        seconds: Time of each frame from the first frame of the file on.
        rate: Mean number of frames per second of the file.
        total: Number of frames of the file.
    """

    frames: Sequence[Image.Image]
    seconds: Sequence[float]
    rate: float
    total: int


class FrameEntry(NamedTuple):
    """One frame as the container lists it, before it is decoded.

    Attributes:
        time: Time in the unit of its stream; None: not stated.
        is_key: Whether it can be decoded without other frames.
        is_hidden: Whether it is decoded for other frames alone, and not shown.
    """

    time: int | None
    is_key: bool
    is_hidden: bool


def chosen_frames(total: int, count: int) -> list[int]:
    """Indices of ``count`` evenly spaced frames of a file of ``total`` frames."""
    return np.linspace(0, total - 1, count).astype(int).tolist()


def read_video(path: Path, count: int) -> VideoFrames:
    """Decode ``count`` evenly spaced frames of a file.

    Raises:
        UnreadableVideo: If the file does not exist, is no video, is incomplete or damaged, or has
            no video stream.
    """
    try:
        with closing(av.open(str(path))) as container:
            stream = _video_stream(container)
            entries = [
                # not the packet itself, which holds its part of the file
                FrameEntry(packet.pts, packet.is_keyframe, packet.is_discard)
                for packet in container.demux(stream)
                if packet.size
            ]
            _require_complete(container, stream, entries)
            made = _by_time(container, stream, entries, count)
        return made or _by_count(path, count)
    except (FFmpegError, UnreadableVideo) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableVideo(f"the video {path} cannot be read: {reason}") from error


def read_frame_folder(folder: Path, count: int) -> VideoFrames:
    """Read ``count`` evenly spaced frames of a video that is a folder of pictures.

    Raises:
        UnreadableVideo: If there is none, or one of the chosen ones is damaged.
    """
    files = frame_files(folder)
    chosen = chosen_frames(len(files), count) if files else []
    try:
        images = {index: Image.open(files[index]).convert("RGB") for index in {*chosen}}
        if not images:
            raise UnreadableVideo("it is a folder without pictures")
        if len({image.size for image in images.values()}) > 1:
            raise UnreadableVideo("its frames differ in size")
    except (OSError, UnreadableVideo) as error:
        raise UnreadableVideo(f"the video {folder} cannot be read: {error}") from error
    seconds = [index / FOLDER_RATE for index in chosen]
    return VideoFrames([images[index] for index in chosen], seconds, FOLDER_RATE, len(files))


def _video_stream(container: Any) -> Any:
    """The first video stream that is no cover picture of a sound file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise UnreadableVideo(f"it has no video stream, only {', '.join(kinds) or 'nothing'}")


def _require_complete(container: Any, stream: Any, entries: Sequence[FrameEntry]) -> None:
    """Check that the frames of a file fill its stated duration, where it states one."""
    known, unit = [e.time for e in entries if e.time is not None], float(stream.time_base or 1)
    stated = (stream.duration or 0) * unit
    if not stated and len(container.streams) == 1:  # sound may be longer than the frames
        stated = (container.duration or 0) / av.time_base
    if not stated or len(known) < 2:
        return
    span = (max(known) - min(known)) * unit
    end = span + span / (len(known) - 1)
    if end < WHOLE_SHARE * stated:
        raise UnreadableVideo(
            f"it is incomplete: its frames end after {end:.2f} of {stated:.2f} seconds"
        )


def _by_time(
    container: Any, stream: Any, entries: Sequence[FrameEntry], count: int
) -> VideoFrames | None:
    """Frames at the times that a file states; None if the decoded frames have other times."""
    shown = [entry for entry in entries if not entry.is_hidden]
    times = sorted(entry.time for entry in shown if entry.time is not None)
    if not times or len({*times}) != len(shown):
        return None
    key_times = [entry.time for entry in shown if entry.time is not None and entry.is_key]
    images: dict[int, Image.Image] = {}
    decoded: Iterator[Any] = iter(())
    position = None
    for time in sorted({times[index] for index in chosen_frames(len(times), count)}):
        start = max((key for key in key_times if key <= time), default=times[0])
        if position is None or start > position:
            container.seek(time, stream=stream)
            decoded = container.decode(stream)
        frame = next((frame for frame in decoded if frame.pts is None or frame.pts >= time), None)
        if frame is None or frame.pts != time:
            return None
        images[times.index(time)] = _image(frame)
        position = time
    first, unit = times[0], float(stream.time_base)
    return _chosen(images, [(time - first) * unit for time in times], stream, count)


def _by_count(path: Path, count: int) -> VideoFrames:
    """Frames chosen after all were decoded once, to count them."""
    with closing(av.open(str(path))) as container:
        times = [frame.time for frame in container.decode(_video_stream(container))]
    if not times:
        raise UnreadableVideo("it has no frame that can be decoded")
    wanted, images = {*chosen_frames(len(times), count)}, {}
    with closing(av.open(str(path))) as container:  # some streams cannot be rewound
        stream = _video_stream(container)
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                images[index] = _image(frame)
        if None in times:
            rate = float(stream.average_rate or 1)
            times = [index / rate for index in range(len(times))]
        return _chosen(images, [time - times[0] for time in times], stream, count)


def _chosen(
    images: Mapping[int, Image.Image], seconds: Sequence[float], stream: Any, count: int
) -> VideoFrames:
    """The chosen frames; ``seconds`` holds the time of every frame of the file."""
    total, chosen = len(seconds), chosen_frames(len(seconds), count)
    if len({image.size for image in images.values()}) > 1:
        raise UnreadableVideo("its frames differ in size")
    rate = (total - 1) / seconds[-1] if seconds[-1] > 0 else float(stream.average_rate or 1)
    frames = [images[index] for index in chosen]
    return VideoFrames(frames, [seconds[index] for index in chosen], rate, total)


def _image(frame: Any) -> Image.Image:
    return frame.to_image().rotate(frame.rotation, expand=True)
