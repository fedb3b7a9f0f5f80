"""Videos through lmms-eval: runs, records, traces, controls, and files that cannot be read.

The model is tiny and random. Only the plumbing is tested; what it answers means nothing.
"""

import resource
from pathlib import Path

import pytest
from hub_checkpoints import save
from PIL import Image
from untimed import untimed
from video_files import STEP, levels, write_sound, write_video

from experiments.run import run
from experiments.trace import main as trace_runs
from mustdrop.evaluation.batches import BatchFeed
from mustdrop.evaluation.chat import (
    pictures,
    read_chat,
    replaced,
    video_ranges,
    visual_inputs,
)
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.frame_controls import RepeatedFrame, ReversedFrames, ShuffledFrames
from mustdrop.evaluation.image_controls import BlankImage, NoImage, WrongImage, showing
from mustdrop.pocket import build_processor
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_record, read_samples, read_status, run_folder
from mustdrop.runs.status import run_status
from mustdrop.runs.trace import Trace

VIDEO_LLAVA = ("model=video_llava_7b", "model.merging_blocks=3")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save("video_llava", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(tmp_path):
    """An image, two videos of one content, and one of another content."""
    made = tmp_path / "files"
    made.mkdir()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(made / "0.png")
    write_video(made / "1.mp4")
    write_video(made / "2.mp4")
    write_video(made / "3.mkv", count=30, first=3 * STEP, size=(32, 64))
    return made


def config(checkpoint, files, root, *more, model=VIDEO_LLAVA):
    return composed(
        *model, f"model.pretrained={checkpoint}", "model.layers=6", "model.dtype=float32",
        "model.frames=4", "method=vanilla", "budget=none", "benchmark=pocket_vqa",
        "benchmark.name=files", "benchmark.limit=null",
        "benchmark.task._target_=video_files.FileQuestions", "~benchmark.task.split",
        f"+benchmark.task.folder={files}", "benchmark.calibration=null", "controls=none",
        "batch_size=2", f"output_root={root}", *more,
    )  # fmt: skip


def test_images_and_videos_run_with_records_and_traces(checkpoint, folder, tmp_path):
    fastv = ("method=fastv", "prefill.keep=20", "controls=schedule", "controls.schedule.seeds=[0]")
    given = [(), fastv[:2]]
    for more in given:
        record = run(config(checkpoint, folder, tmp_path, *more))
        assert record["n"] == record["available"] == 4 and "unreadable" not in record
        assert record["config"]["model"]["frames"] == 4
    samples = read_samples(run_folder(record["config"]))
    assert [line["slots"] for line in samples] == [
        {"cells": 36, "off_grid": 0, "off_grid_average": 0.0},
        *[{"cells": 144, "off_grid": 4, "off_grid_average": line["slots"]["off_grid_average"]}
          for line in samples[1:]],
    ]  # fmt: skip
    assert [line["vision_tokens"][0] for line in samples] == [36, 148, 148, 148]
    assert all(line["vision_tokens"][-1] == 20 for line in samples)
    names = [line["image"] for line in samples]
    assert names[1] == names[2] and len({*names}) == 3
    assert "av" in record["versions"]
    assert record["flops_ratio"] < 1
    trace_runs([str(tmp_path / "run"), "--samples", "0-1"])
    traces = sorted((tmp_path / "run").rglob("traces/*.npz"))
    (image, video) = (Trace.load(path) for path in traces[:2])
    assert len(image.pictures) == 1 and len(video.pictures) == 4
    assert video.ledger.videos == [(0, 4)] and image.ledger.videos == ()


@pytest.mark.slow
def test_a_video_whose_frames_stand_apart_runs_with_record_and_trace(folder, tmp_path):
    """Qwen3-VL: a time in front of each step of two frames."""
    made = save("qwen3_vl", tmp_path / "tiny")
    model = (
        "model=qwen3_vl_8b", "model.merging_blocks=4", "model.min_pixels=256",
        "model.max_pixels=4096",
    )  # fmt: skip
    record = run(config(made, folder, tmp_path, "method=fastv", "prefill.keep=12", model=model))
    assert record["n"] == record["available"] == 4 and record["flops_ratio"] < 1
    samples = read_samples(run_folder(record["config"]))
    assert all(line["vision_tokens"][0] > 12 for line in samples)
    assert all(line["vision_tokens"][-1] == 12 for line in samples)
    trace_runs([str(tmp_path / "run"), "--samples", "0-1"])
    traces = sorted((tmp_path / "run").rglob("traces/*.npz"))
    (image, video) = (Trace.load(path) for path in traces[:2])
    assert len(image.pictures) == 1 and len(video.pictures) == 2  # two frames in each step
    assert video.ledger.videos == [(0, 2)] and image.ledger.videos == ()


VIDEO_FAMILIES = {
    # each frame is a tile of 4 x 4 cells
    "internvl": (
        [
            "model=internvl3_8b", "model.merging_blocks=4", "model.min_pixels=1024",
            "model.max_pixels=4096",
        ],
        [16, 64, 64, 64],
    ),
    # a frame is 8 x 8 patches, pooled to 4 x 4, and the video ends in a newline
    "onevision": (["model=llava_onevision_7b"], [152, 65, 65, 65]),
    # an image is four tiles and the small copy; its processor makes no batch of images and videos
    "smolvlm": (
        ["model=smolvlm2_2b", "model.merging_blocks=4", "model.max_pixels=4096"],
        [80, 64, 64, 64],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "internvl"))
        for name in VIDEO_FAMILIES
    ],
)
def test_videos_of_a_family_run_with_records_and_traces(family, folder, tmp_path):
    made = save(family, tmp_path / "tiny")
    model, slots = VIDEO_FAMILIES[family]
    record = run(
        config(
            made,
            folder,
            tmp_path,
            "method=fastv",
            "prefill.keep=8",
            f"batch_size={1 + (family != 'smolvlm')}",
            model=model,
        )
    )
    samples = read_samples(run_folder(record["config"]))
    assert [line["vision_tokens"][0] for line in samples] == slots
    assert all(line["vision_tokens"][-1] == 8 for line in samples)
    trace_runs([str(tmp_path / "run"), "--samples", "1"])
    (path,) = (tmp_path / "run").rglob("traces/*.npz")
    trace = Trace.load(path)
    assert len(trace.pictures) == len(trace.ledger.grids) == 4


def test_the_number_of_frames_enters_the_key_and_the_cache_does_not(checkpoint, folder, tmp_path):
    keys = {
        run_folder(checked(config(checkpoint, folder, tmp_path, *more))).name
        for more in ((), ("model.frames=6",), ("frame_cache=0",))
    }
    assert len(keys) == 2


def checked(cfg):
    from experiments.checks.run_checks import checked

    return checked(cfg)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_that_cannot_be_read_is_named_and_not_scored(
    checkpoint, folder, tmp_path, workers, capsys
):
    (folder / "2.mp4").write_bytes(b"no video")
    write_sound(folder / "4.mp4")
    cfg = config(checkpoint, folder, tmp_path, f"workers={workers}")
    record = run(cfg)
    where = run_folder(record["config"])
    assert record["n"] == 3 and record["available"] == 5
    assert [line["doc_id"] for line in read_samples(where)] == [0, 1, 3]
    left_out = read_status(where)["unreadable"]
    assert left_out == record["unreadable"] and [one["doc_id"] for one in left_out] == [2, 4]
    assert left_out[0]["reason"].startswith(f"document 2 of files: the video {folder}/2.mp4 cannot")
    assert "no video stream, only audio" in left_out[1]["reason"]
    shown = run_status(where, None)
    assert (shown.state, shown.n) == ("done", 3) and "document 2 of files" in shown.error
    told = capsys.readouterr().out
    assert "note: left out: document 2 of files" in told and "and 1 more" in told
    # scored alone, without these documents, the metric is the same
    (mean,) = {line["scores"]["exact_match"] for line in read_samples(where)}
    assert record["metrics"]["exact_match"] == mean
    assert run(cfg) == record and "done before" in capsys.readouterr().out


def test_a_run_resumes_and_tries_unreadable_files_again(checkpoint, folder, tmp_path, monkeypatch):
    """Killed in the second batch; the file is repaired before the run goes on."""
    (folder / "1.mp4").write_bytes(b"no video")
    cfg = config(checkpoint, folder, tmp_path, "workers=0", "batch_size=1")
    prepared, count = BatchFeed._prepared, []

    def dying(feed, requests):
        count.append(requests)
        if len(count) == 3:
            raise KeyboardInterrupt
        return prepared(feed, requests)

    with monkeypatch.context() as patch:
        patch.setattr(BatchFeed, "_prepared", dying)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    (where,) = (path.parent for path in tmp_path.rglob("samples.jsonl"))
    assert [line["doc_id"] for line in read_samples(where)] == [0, 2]
    assert [one["doc_id"] for one in read_status(where)["unreadable"]] == [1]
    write_video(folder / "1.mp4", first=50)
    record = run(cfg)
    assert record["n"] == 4 and "unreadable" not in record
    assert "unreadable" not in read_status(where)
    assert sorted(line["doc_id"] for line in read_samples(where)) == [0, 1, 2, 3]


def test_a_run_without_any_readable_file_fails_with_the_reason(checkpoint, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for number in range(2):
        (files / f"{number}.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no document can be read, the first one because: doc"):
        run(config(checkpoint, files, tmp_path))
    assert not list(tmp_path.rglob("record.json"))


def test_the_batch_and_the_cache_change_no_sample(checkpoint, folder, tmp_path):
    samples = []
    for number, more in enumerate((("batch_size=4",), ("batch_size=1", "frame_cache=0"))):
        record = run(config(checkpoint, folder, tmp_path / str(number), *more))
        samples.append([untimed(line) for line in read_samples(run_folder(record["config"]))])
    assert samples[0] == samples[1]
    assert list((tmp_path / "0" / ".frames" / "files").glob("*.npz"))
    assert not (tmp_path / "1" / ".frames").exists()


class Numbered(VideoReader):
    """Videos of numbered grey frames; the path names the first number."""

    def read(self, path):
        return read_numbered(path, self.count)


def read_numbered(path, count):
    from mustdrop.evaluation.videos import VideoFrames

    first = int(path.stem)
    frames = [Image.new("RGB", (8, 6), ((first + n) * STEP,) * 3) for n in range(count)]
    return VideoFrames(frames, [0.5 * n for n in range(count)], 4.0, 4 * count)


def conversation(*parts):
    content = [
        {"type": "video", "url": part} if isinstance(part, str) else {"type": "image", "url": part}
        for part in parts
    ]
    return read_chat("t", 0, [{"role": "user", "content": content}], Numbered(4))


STILL = Image.new("RGB", (8, 6), (240, 240, 240))
BOTH = conversation("0.mp4", STILL, "8.mp4")


def test_frames_stand_among_the_images_of_a_conversation():
    assert levels(pictures(BOTH)) == [0, 1, 2, 3, 24, 8, 9, 10, 11]
    assert video_ranges(BOTH) == [range(0, 4), range(5, 9)]
    again = replaced(BOTH, pictures(BOTH)[::-1])
    assert levels(pictures(again)) == [11, 10, 9, 8, 24, 3, 2, 1, 0]
    assert again.extract_media()[1][0].seconds == [0, 0.5, 1, 1.5]
    assert replaced(BOTH, []).extract_media() == ([], [], [])


def test_controls_of_frames_leave_images_and_times_alone():
    others = [pictures(conversation("12.mp4", "16.mp4"))]
    shown = {}
    for control in (
        ReversedFrames("reversed_frames"), RepeatedFrame("repeated_frame"),
        ShuffledFrames("shuffled_frames", 0), ShuffledFrames("shuffled_frames", 1),
        WrongImage("wrong"), BlankImage("blank", (0, 0, 0)), NoImage("none"),
    ):  # fmt: skip
        made = showing(BOTH, control, build_processor(), lambda: iter(others))
        shown[control] = levels(pictures(made))
        times = [video.seconds for video in made.extract_media()[1]]
        assert times in ([], [[0, 0.5, 1, 1.5]] * 2)
    reverse, one, shuffled, other, wrong, blank, none = shown.values()
    assert reverse == [3, 2, 1, 0, 24, 11, 10, 9, 8]
    assert one == [2, 2, 2, 2, 24, 10, 10, 10, 10]
    assert sorted(shuffled[:4]) == [0, 1, 2, 3] and sorted(shuffled[5:]) == [8, 9, 10, 11]
    assert shuffled[4] == 24 and shuffled != other
    assert wrong[:4] == [12, 13, 14, 15] and blank == [0] * 9 and none == []


def test_videos_with_a_common_frame_are_different_and_parts_of_one_are_the_same():
    """Many videos begin with the same black frame; a control must find another one all the same."""
    wrong = WrongImage("wrong")
    own, common = conversation("0.mp4"), conversation("3.mp4")  # frames 0 to 3, frames 3 to 6
    found = showing(own, wrong, build_processor(), lambda: iter([pictures(common)]))
    assert levels(pictures(found)) == [3, 4, 5, 6]
    part = [pictures(own)[0], pictures(own)[2]]
    both = pictures(conversation("9.mp4", "0.mp4"))
    with pytest.raises(ValueError, match="has an image or a video of this document"):
        showing(own, wrong, build_processor(), lambda: iter([part, both, pictures(own)]))
    wrong.check([visual_inputs(own), visual_inputs(common)])
    with pytest.raises(ValueError, match="needs two documents with different images"):
        wrong.check([visual_inputs(own), [both], [part]])


def test_a_control_of_frames_needs_a_video():
    chat = conversation(STILL)
    with pytest.raises(ValueError, match="image=reversed_frames changes the frames of a"):
        showing(chat, ReversedFrames("reversed_frames"), build_processor(), lambda: iter(()))


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("blank", "shuffled_frames", "reversed_frames")
]


@pytest.mark.parametrize("control", ["wrong", "repeated_frame", *SLOW])
def test_controls_run_on_videos_with_as_many_tokens(checkpoint, folder, tmp_path, control):
    (folder / "0.png").unlink()
    (folder / "1.mp4").write_bytes(b"no video")
    record = run(config(checkpoint, folder, tmp_path, f"image={control}"))
    assert record["n"] == 2 and len(record["unreadable"]) == 1
    samples = read_samples(run_folder(record["config"]))
    assert [line["vision_tokens"][0] for line in samples] == [148, 148]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_videos_in_flat_memory_with_a_stop_and_a_broken_file(
    checkpoint, tmp_path, monkeypatch
):
    files = tmp_path / "files"
    files.mkdir()
    for number in range(1000):
        write_video(files / f"{number:04}.mp4", count=6, first=number % 20 * STEP, size=(160, 120))
    (files / "0500.mp4").write_bytes(b"no video")
    cfg = config(checkpoint, files, tmp_path, "workers=0", "batch_size=10", "frame_cache=0.1")
    prepared, peaks = BatchFeed._prepared, []

    def watched(feed, requests):
        peaks.append(resident())
        if len(peaks) == 40:
            raise KeyboardInterrupt
        return prepared(feed, requests)

    monkeypatch.setattr(BatchFeed, "_prepared", watched)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    record = run(cfg)
    assert record["n"] == 999 and record["available"] == 1000
    (left_out,) = read_status(run_folder(record["config"]))["unreadable"]
    assert left_out["doc_id"] == 500 and "0500.mp4" in left_out["reason"]
    assert read_record(run_folder(record["config"]))["unreadable"] == [left_out]
    cache = tmp_path / ".frames" / "files"
    assert sum(file.stat().st_size for file in cache.iterdir()) <= 1e8
    # of a hundred batches, those after the first twenty use no more than 20 MB beyond them
    print(f"resident MB: {peaks[0]:.0f}, {peaks[20]:.0f}, {peaks[-1]:.0f}; most {max(peaks):.0f}")
    assert len(peaks) >= 100 and max(peaks[20:]) - peaks[20] <= 20


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
