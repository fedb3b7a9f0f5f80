"""Film strips and survival by frame: what they draw is what the ledger says of every frame."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from scipy import stats
from small_traces import fastv, keep
from traced_runs import BEFORE
from video_traces import (
    ALL,
    FRAMES,
    GRID,
    SIZE,
    filtered,
    last_frame,
    video_ledger,
    write_videos,
)

from analysis.figures import __main__ as command
from analysis.figures import film, frames, stages
from analysis.figures.pictures import spread
from analysis.figures.traced import traced
from analysis.records.cells import load
from analysis.records.fates import fates, joint_fates
from analysis.records.frames import frame_names
from mustdrop.ledger import OFF_GRID
from mustdrop.runs.trace import Trace


def texts(figure):
    found = (text for text in figure.findobj(Text) if text.get_visible())
    return [text.get_text() for text in found if text.get_text()]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_videos(root)
    return {cell["method"]: list(traced(cell)) for cell in load(root)}


def kept(ledger, layer, frame):
    """Patches of a frame of which some token enters a layer: the slow way."""
    entering = set(ledger.alive[layer].tolist())
    first = frame * SIZE
    if not ledger.sources:
        slots = ledger.vision.nonzero().flatten().tolist()
        cells = ledger.cells.tolist()
        return {
            cell - first
            for slot, cell in zip(slots, cells, strict=True)
            if slot in entering and first <= cell < first + SIZE
        }
    source = ledger.sources[frame]
    return {
        patch
        for slot, weights in zip(source.slots.tolist(), source.mix.tolist(), strict=True)
        if slot in entering
        for patch, weight in enumerate(weights)
        if weight
    }


def test_frames_have_the_same_drops_and_each_its_patches():
    ledger = last_frame()
    lives = joint_fates(ledger, range(FRAMES))
    assert [[(drop.first, drop.last) for drop in life.drops] for life in lives] == [[(0, 0)]] * 3
    assert [life.drops[0].left for life in lives] == [0, 0, SIZE]
    assert not lives[2].drops[0].dropped.any() and lives[0].drops[0].dropped.all()
    assert fates(ledger, 2).drops == ()  # alone, the last frame loses nothing
    for frame, life in enumerate(joint_fates(filtered(), range(FRAMES))):
        assert set(np.flatnonzero(life.drops[0].alive).tolist()) == kept(filtered(), 1, frame)
        assert set(np.flatnonzero(life.end).tolist()) == kept(filtered(), 2, frame)


def test_neighbouring_drops_are_joined_for_all_frames_alike():
    kept_of_layer = [ALL[layer:] for layer in range(6)]
    lives = joint_fates(video_ledger(*kept_of_layer), range(FRAMES), most_drops=2)
    assert {tuple((drop.first, drop.last) for drop in life.drops) for life in lives} == {
        ((0, 2), (3, 4))
    }
    assert sum(life.drops[-1].left for life in lives) == len(ALL) - 5


def test_a_strip_has_a_row_for_each_stage_and_counts_the_tokens_of_each_frame(samples):
    told = texts(film.of_trace(samples["mustdrop"][0]))
    for text in (
        "mustdrop at 192", "q0", "frames\n24 patches", "encoder\n22 tokens",
        "key tokens\n3 patches", "after layer 0\n5 of 22 tokens", "dropped here",
        "merged into one token", "key token",
    ):  # fmt: skip
        assert text in told, text
    # the cache of layers 0, 1 and 2 holds 22, 5 and 4 tokens
    assert "KV cache, per layer\n10.33 tokens" in told
    lives = joint_fates(filtered(), range(FRAMES))
    image = Image.new("RGB", (16, 8), (200, 10, 10))
    rows = film.film_rows([image] * FRAMES, lives, range(FRAMES))
    assert [list(row.numbers) for row in rows[:4]] == [[8, 8, 8], [6, 8, 8], [3, 0, 0], [2, 1, 2]]
    assert list(rows[4].numbers) == pytest.approx([10 / 3 - 1 / 3, 10 / 3, 4])
    assert sum(map(float, rows[4].numbers)) == pytest.approx(31 / 3)


def test_kept_cells_are_bright_and_dropped_cells_are_not():
    ledger = filtered()
    lives = joint_fates(ledger, range(FRAMES))
    image = Image.new("RGB", (16, 8), (200, 10, 10))
    rows = film.film_rows([image] * FRAMES, lives, range(FRAMES))
    original = np.asarray(image, dtype=float) / 255
    for frame in range(FRAMES):
        left = np.zeros(SIZE, dtype=bool)
        left[list(kept(ledger, 1, frame))] = True
        same = np.isclose(rows[3].pictures[frame].picture, original).all(-1)
        assert (same == spread(left.reshape(GRID), original)).all()


def test_a_strip_of_a_plain_run_shows_frames_and_cache_alone():
    figure = film.figure(video_ledger(ALL, ALL), [], [("vanilla", "black")])
    told = texts(figure)
    assert {"vanilla", "frame", "1", "2", "3", "frames\n24 patches"} <= set(told)
    assert "KV cache, per layer\n24 tokens" in told and "dropped earlier" not in told
    assert len(figure.axes) == 2 * FRAMES


def test_pictures_belong_to_the_frames_of_the_video_not_to_images_in_front():
    ledger = video_ledger(ALL, ALL, before=2)
    pictures = [Image.new("RGB", (8, 4), (n * 40,) * 3) for n in range(2 + FRAMES)]
    figure = film.figure(ledger, pictures, [("x", "black")])
    shown = [float(ax.images[0].get_array()[0, 0, 0]) * 255 for ax in figure.axes[:FRAMES]]
    assert shown == pytest.approx([80, 120, 160])
    with pytest.raises(ValueError, match=r"video must be in \[0, 1\), got 1"):
        film.figure(ledger, pictures, [("x", "black")], 1)


def test_a_long_video_shows_some_frames_and_counts_all():
    many = 30
    everything = tuple(range(many * SIZE))
    ledger = video_ledger(everything, everything[: many * SIZE // 2], frames=many)
    figure = film.figure(ledger, [], [("x", "black")], shown=2 * many)
    told = texts(figure)
    assert "12 of 30 frames are shown; the numbers on the left are of all" in told
    assert "after layer 0\n120 of 240 tokens" in told
    assert {"1–2", "59–60"} <= set(told) and "3–4" not in told
    assert len(figure.axes) == 3 * film.MOST_FRAMES


def test_names_of_frames_say_which_frames_a_model_encodes_together():
    assert frame_names(3, None) == frame_names(3, 3) == ["1", "2", "3"]
    assert frame_names(4, 8) == ["1–2", "3–4", "5–6", "7–8"]
    assert frame_names(3, 5) == ["1–2", "3–4", "5"]
    assert frame_names(4, 1) == ["1", "2", "3", "4"]


def test_survival_is_counted_frame_by_frame(samples):
    for method, ledger in (("mustdrop", filtered()), ("keep_last", last_frame())):
        shares = frames.frame_shares([sample.trace for sample in samples[method]])
        assert shares.by_frame.shape == (2, 3, FRAMES) and shares.by_position.shape == (2, *GRID)
        for layer in range(3):
            for frame in range(FRAMES):
                expected = len(kept(ledger, layer, frame)) / SIZE
                assert shares.by_frame[0, layer, frame] == pytest.approx(expected)
        last = [kept(ledger, 2, frame) for frame in range(FRAMES)]
        for patch in range(SIZE):
            expected = sum(patch in alive for alive in last) / FRAMES
            assert shares.by_position[0].flat[patch] == pytest.approx(expected)


def test_off_grid_slots_are_not_counted(samples):
    """The [CLS] of each frame lives on; without any patch the share is 0."""
    ledger = samples["keep_last"][0].trace.ledger
    slots = ledger.vision.nonzero().flatten()
    assert torch.isin(slots[ledger.cells == OFF_GRID], ledger.alive[2]).all()
    assert frames.frame_shares([Trace(ledger)]).by_frame[0, 2].tolist() == [0, 0, 1]


def test_frames_of_several_sizes_are_shown_on_the_smallest_grid():
    wide = (GRID[0], 2 * GRID[1])
    places = tuple(range(FRAMES * 2 * SIZE))
    right = tuple(place for place in places if place % wide[1] >= GRID[1])
    ledgers = [last_frame(), video_ledger(places, places, right, grid=wide)]
    shares = frames.frame_shares([Trace(ledger) for ledger in ledgers])
    assert shares.by_position.shape == (2, *GRID)
    assert shares.by_position[1].tolist() == [[0, 0, 1, 1]] * 2
    assert shares.by_frame[1, 2].tolist() == [0.5] * FRAMES
    values = np.random.default_rng(0).random((5, 7))
    assert (frames.resampled(values, (5, 7)) == values).all()
    assert frames.resampled(values, (1, 1)).item() == pytest.approx(values.mean())
    assert not np.isnan(frames.resampled(values, (4, 5))).any()


def test_survival_refuses_samples_that_do_not_compare():
    with pytest.raises(ValueError, match="no traced sample to count"):
        frames.frame_shares([])
    with pytest.raises(ValueError, match="numbers of layers and frames differ between samples"):
        frames.frame_shares([Trace(last_frame()), Trace(last_frame(layers=4))])
    with pytest.raises(ValueError, match="trace 1 shows no video"):
        frames.frame_shares([Trace(last_frame()), fastv()])


def test_the_line_by_frame_has_students_interval(tmp_path):
    ledgers = {"random": [last_frame(), filtered(), filtered()]}
    write_videos(tmp_path, ledgers=ledgers)
    cell = next(cell for cell in load(tmp_path) if cell["method"] == "random")
    ax = frames.draw([list(traced(cell))]).axes[1]
    shares = np.array(
        [[len(kept(ledger, 2, frame)) / SIZE for frame in range(FRAMES)] for ledger in
         ledgers["random"]]
    )  # fmt: skip
    assert ax.lines[0].get_ydata() == pytest.approx(100 * shares.mean(0))
    low, high = stats.t.interval(0.95, 2, shares[:, 2].mean(), stats.sem(shares[:, 2]))
    band = ax.collections[0].get_paths()[0].vertices
    ends = [y for x, y in band if x == 2]
    assert (min(ends), max(ends)) == pytest.approx((100 * max(low, 0), 100 * min(high, 1)))


def test_figures_of_one_image_do_not_show_the_first_frame_as_if_it_were_all(samples, monkeypatch):
    shown = []
    monkeypatch.setattr(stages, "framed", lambda *given, **more: shown.append(given))
    stages.draw(samples["mustdrop"][0])
    assert shown == []


@pytest.fixture
def quick(monkeypatch):
    def touch(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    monkeypatch.setattr(command, "save", touch)


def stems(out):
    return sorted(path.stem for path in out.glob("*.png"))


def test_the_command_draws_videos_and_says_why_it_draws_no_overlay(tmp_path, quick, capsys):
    write_videos(tmp_path / "runs")
    names = ("film", "frames", "overlays", "survival")
    out = tmp_path / "out"
    assert command.main([*names, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert stems(out) == ["film_mustdrop_t192_0", "frames_t192"]
    said = capsys.readouterr().err
    for name in names[2:]:
        assert f"{name}: every traced sample shows a video: film and frames are its" in said
    more = ["--methods", "keep_last", "mustdrop", "--sample", "0", "1"]
    chosen = tmp_path / "chosen"
    assert (
        command.main(["film", "--runs", str(tmp_path / "runs"), "--out", str(chosen), *more]) == 0
    )
    assert stems(chosen) == [
        f"film_{method}_t192_{doc}" for method in ("keep_last", "mustdrop") for doc in (0, 1)
    ]


def test_samples_of_both_kinds_are_drawn_each_by_its_figures(tmp_path, quick, capsys):
    """Sample 0 of the run shows a video, sample 5 an image."""
    folder = write_videos(tmp_path / "runs", ledgers={"mustdrop": [filtered()]})[-1]
    keep(folder, fastv(), 5)
    out = tmp_path / "out"
    names = ("film", "frames", "overlays", "survival")
    assert command.main([*names, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert stems(out) == [
        "film_mustdrop_t192_0", "frames_t192", "overlays_mustdrop_t192_5", "survival_t192",
    ]  # fmt: skip
    assert capsys.readouterr().err == ""


def test_a_video_without_pictures_names_the_command(tmp_path, quick, capsys):
    folder = write_videos(tmp_path / "runs", ledgers={"mustdrop": [filtered()]})[-1]
    keep(folder, Trace(filtered()), 0)
    out = tmp_path / "out"
    assert command.main(["film", "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 1
    assert "has no picture: mustdrop trace" in capsys.readouterr().err


def test_print_sizes_and_equal_bytes(samples, tmp_path):
    made = [film.of_trace(samples["mustdrop"][0]), frames.draw([samples["mustdrop"]])]
    for figure in made:
        assert figure.get_figwidth() <= 6.75
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
        assert min(sizes) >= 6.5
    for name in "ab":
        command.save(film.of_trace(samples["mustdrop"][0]), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_slots_of_the_video_are_where_the_ledger_says():
    """Negative control of the helper: tokens stand behind the text and the [CLS] of their frame."""
    ledger = video_ledger(ALL)
    _, slots, _ = ledger.image_tokens(1)
    assert slots.tolist() == [BEFORE + SIZE + 2 + patch for patch in range(SIZE)]
