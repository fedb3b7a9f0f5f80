"""Video files: which frames are chosen, odd and broken files, the cache of decoded frames."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import STEP, frame, levels, turn, write_sound, write_video

from mustdrop.evaluation import frame_cache, videos
from mustdrop.evaluation.frame_cache import FrameCache, VideoReader
from mustdrop.evaluation.videos import UnreadableVideo, chosen_frames, read_video


def test_frames_are_evenly_spaced_from_the_first_to_the_last():
    assert chosen_frames(20, 8) == [0, 2, 5, 8, 10, 13, 16, 19]
    assert chosen_frames(3, 8) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert chosen_frames(1, 4) == [0, 0, 0, 0] and chosen_frames(9, 1) == [0]


@pytest.mark.parametrize(
    ("ending", "codec", "key_every"),
    [("mp4", "mpeg4", 12), ("mp4", "libx264", 250), ("mkv", "libx264", 4), ("avi", "mpeg4", 3),
     ("webm", "libvpx", 6)],
)  # fmt: skip
def test_the_chosen_frames_are_decoded_whatever_the_container(tmp_path, ending, codec, key_every):
    path = write_video(tmp_path / f"a.{ending}", codec=codec, key_every=key_every)
    made = read_video(path, 8)
    assert levels(made.frames) == [0, 2, 5, 8, 10, 13, 16, 19]
    assert made.total == 20 and made.rate == pytest.approx(10, rel=0.02)
    assert made.seconds == pytest.approx([0, 0.2, 0.5, 0.8, 1.0, 1.3, 1.6, 1.9], abs=0.002)


@pytest.mark.parametrize("key_every", [4, 250])
def test_seeking_gives_the_frames_that_counting_gives(tmp_path, monkeypatch, key_every):
    path = write_video(tmp_path / "a.mp4", count=25, codec="libx264", key_every=key_every)
    by_time = read_video(path, 7)
    monkeypatch.setattr(videos, "_by_time", lambda *_: None)
    by_count = read_video(path, 7)
    for one, other in zip(by_time.frames, by_count.frames, strict=True):
        assert one.tobytes() == other.tobytes()
    assert by_time.seconds == pytest.approx(by_count.seconds)
    assert (by_time.rate, by_time.total) == pytest.approx((by_count.rate, by_count.total))


def test_a_stream_without_times_is_counted(tmp_path):
    """A bare H.264 stream has no container that could state the times."""
    made = read_video(write_video(tmp_path / "a.h264", codec="libx264"), 4)
    assert levels(made.frames) == [0, 6, 12, 19] and made.total == 20
    assert made.seconds == sorted({*made.seconds}) and made.rate > 0


def test_a_rate_that_varies_shows_in_the_times(tmp_path):
    times = [0, 1, 2, 3, 4, 10, 20, 30, 40, 50]
    made = read_video(write_video(tmp_path / "a.mp4", count=10, times=times), 4)
    assert levels(made.frames) == [0, 3, 6, 9]
    assert made.seconds == pytest.approx([0, 0.3, 2.0, 5.0])
    assert made.rate == pytest.approx(9 / 5)


def test_a_single_frame_is_shown_every_time(tmp_path):
    made = read_video(write_video(tmp_path / "a.mp4", count=1, first=50), 4)
    assert levels(made.frames) == [5] * 4 and made.total == 1
    assert made.seconds == [0, 0, 0, 0] and made.rate > 0


@pytest.mark.parametrize(
    ("matrix", "size", "white"),
    [((1, 0, 0, 1), (48, 32), (4, 4)), ((0, 1, -1, 0), (32, 48), (28, 4)),
     ((-1, 0, 0, -1), (48, 32), (44, 28)), ((0, -1, 1, 0), (32, 48), (4, 44))],
)  # fmt: skip
def test_a_file_that_says_so_is_turned(tmp_path, matrix, size, white):
    """A player turns the second one clockwise: the white corner goes from the left to the right."""
    made = read_video(turn(write_video(tmp_path / "a.mp4", count=3), matrix), 2)
    assert made.frames[0].size == size
    assert made.frames[0].getpixel(white)[0] > 200
    dark = [(x, y) for x in (4, size[0] - 4) for y in (4, size[1] - 4) if (x, y) != white]
    assert all(made.frames[0].getpixel(corner)[0] < 60 for corner in dark)


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def noise_in(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 8
    data[start : start + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(data)
    return path


def text_in(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


BROKEN = {
    "there is no such file": lambda path: path,
    "Invalid data": lambda path: text_in(path, ""),
    "Invalid data found when processing": lambda path: text_in(path, "<html>404</html>"),
    "no video stream, only audio": write_sound,
    "Invalid data found": lambda path: cut(write_video(path, count=60), 0.5),
    "Invalid data found when": lambda path: noise_in(write_video(path, codec="libx264")),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_file_without_usable_frames_is_named(tmp_path, reason):
    path = BROKEN[reason](tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match=reason) as refused:
        VideoReader(4).read(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["mkv", "avi"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_part_of_a_file_is_refused(tmp_path, ending, share):
    path = cut(write_video(tmp_path / f"a.{ending}", count=60), share)
    with pytest.raises(UnreadableVideo, match=r"incomplete|Invalid data"):
        read_video(path, 4)


def test_an_animated_gif_is_a_video(tmp_path):
    frames = [Image.fromarray(frame(STEP * number)) for number in range(9)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, loop=0)
    made = read_video(path, 3)
    assert levels(made.frames) == [0, 4, 8] and made.total == 9
    assert made.seconds == pytest.approx([0, 0.8, 1.6]) and made.rate == pytest.approx(5)


def test_sound_beside_frames_changes_nothing(tmp_path):
    made = read_video(write_video(tmp_path / "a.mp4", sound=True), 4)
    assert levels(made.frames) == [0, 6, 12, 19]


def test_the_picture_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3", rate=8000)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_ndarray(frame(9))))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        block.rate = 8000
        container.mux(sound.encode(block))
        container.mux(sound.encode())
    with pytest.raises(UnreadableVideo, match="no video stream"):
        read_video(path, 4)


@pytest.fixture
def decoded(monkeypatch):
    """A list with the name of each file that is decoded."""
    names = []

    def spied(path, count):
        names.append(path.name)
        return read_video(path, count)

    monkeypatch.setattr(frame_cache, "read_video", spied)
    return names


def test_a_video_is_decoded_once_for_all_runs(tmp_path, decoded):
    path = write_video(tmp_path / "a.mp4")
    cache = FrameCache(tmp_path / "frames", 10**6)
    first, again = (VideoReader(4, cache).read(path) for _ in range(2))
    assert decoded == ["a.mp4"]
    for one, other in zip(first.frames, again.frames, strict=True):
        assert one.tobytes() == other.tobytes()
    assert (first.seconds, first.rate, first.total) == (again.seconds, again.rate, again.total)
    VideoReader(5, cache).read(path)
    write_video(path, count=9)
    assert VideoReader(4, cache).read(path).total == 9
    path.rename(tmp_path / "b.mp4")
    VideoReader(4, cache).read(tmp_path / "b.mp4")
    assert decoded == ["a.mp4"] * 3  # another number of frames, other content; not another name


def test_a_full_cache_takes_nothing_new_and_keeps_what_it_has(tmp_path, decoded):
    paths = [write_video(tmp_path / f"{n}.mp4", first=n * STEP) for n in range(3)]
    cache = FrameCache(tmp_path / "frames", 45_000)  # two of 4 x 48 x 32 x 3 bytes
    for _ in range(2):
        for path in paths:
            VideoReader(4, cache).read(path)
    assert decoded == ["0.mp4", "1.mp4", "2.mp4", "2.mp4"]
    assert sum(file.stat().st_size for file in cache.folder.iterdir()) <= 45_000


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path, decoded):
    path, cache = write_video(tmp_path / "a.mp4"), FrameCache(tmp_path / "frames", 10**6)
    expected = VideoReader(4, cache).read(path)
    (stored,) = cache.folder.iterdir()
    for content in (b"", stored.read_bytes()[:900], b"no archive"):
        stored.write_bytes(content)
        again = VideoReader(4, cache).read(path)
        assert again.frames[2].tobytes() == expected.frames[2].tobytes()
    assert decoded == ["a.mp4"] * 4
