"""Decoded frames on disk, so that the runs of a benchmark decode each video once. Knows no model.

A file of the cache is named after the content of the video, the number of frames and the version of
PyAV. A full cache keeps what it has and takes nothing new: every run reads all videos in the same
order, so that a cache that dropped the oldest files would never hold the next one.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import av
import numpy as np
from PIL import Image

from mustdrop.evaluation.videos import UnreadableVideo, VideoFrames, read_frame_folder, read_video
from mustdrop.provenance.content import content_hash

FORMAT = 1  # of the files, and of the rule by which frames are chosen


@dataclass(frozen=True)
class FrameCache:
    """Folder with decoded frames.

    Attributes:
        folder: Folder of the cache; it need not exist.
        most_bytes: Size up to which files are added.
    """

    folder: Path
    most_bytes: int

    def get(self, video: Path, count: int) -> VideoFrames | None:
        """Frames of a video; None if they are not in the cache, or their file is damaged."""
        try:
            with self._path(video, count).open("rb") as file, np.load(file) as stored:
                frames = [Image.fromarray(frame) for frame in stored["frames"]]
                return VideoFrames(
                    frames, stored["seconds"].tolist(), float(stored["rate"]), int(stored["total"])
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None

    def put(self, video: Path, made: VideoFrames) -> None:
        """Add the frames of a video, unless the cache is full or cannot be written to."""
        path = self._path(video, len(made.frames))
        frames = np.stack([np.asarray(frame) for frame in made.frames])
        with suppress(OSError):  # a run does not depend on its cache
            self.folder.mkdir(parents=True, exist_ok=True)
            held = sum(entry.stat().st_size for entry in os.scandir(self.folder))
            if held + frames.nbytes > self.most_bytes:
                return
            # Under a temporary name first: a run killed here must not leave an incomplete file.
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as file:
                np.savez(
                    file, frames=frames, seconds=made.seconds, rate=made.rate, total=made.total
                )
            temporary.replace(path)

    def _path(self, video: Path, count: int) -> Path:
        key = f"{FORMAT} {av.__version__} {content_hash(video)} {count}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"


@dataclass(frozen=True)
class VideoReader:
    """Reads the videos of documents.

    Attributes:
        count: Number of frames that the model sees of a video.
        cache: Cache of decoded frames; None: every video is decoded.
    """

    count: int
    cache: FrameCache | None = None

    @classmethod
    def of(cls, processor: Any, cache: FrameCache | None = None) -> "VideoReader | None":
        """Reader for a model's processor; None if no number of frames is set."""
        count = getattr(getattr(processor, "video_processor", None), "frames", None)
        return None if count is None else cls(count, cache)

    def read(self, path: Path) -> VideoFrames:
        """Frames of a video file, or of a folder of pictures, which is not cached.

        Raises:
            UnreadableVideo: If the file has no usable frames.
        """
        if path.is_dir():
            return read_frame_folder(path, self.count)
        if not path.is_file():
            raise UnreadableVideo(f"the video {path} cannot be read: there is no such file")
        made = self.cache.get(path, self.count) if self.cache else None
        if made is None:
            made = read_video(path, self.count)
            if self.cache is not None:
                self.cache.put(path, made)
        return made
