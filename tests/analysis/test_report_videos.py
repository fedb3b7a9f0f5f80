"""The page shows the frames of a video: one by one, and all together in the order of time."""

import re

import numpy as np
import pytest
from traced_runs import picture
from video_traces import ALL, FRAMES, GRID, SIZE, filtered, last_frame, video_ledger, write_videos

from analysis.records.patches import patch_fates
from analysis.report.packing import PLANES
from analysis.report.page import page as html
from analysis.report.page_data import gather
from analysis.report.tracing import Traces, columns_of
from mustdrop.runs.trace import Trace

ROWS, COLUMNS = GRID
TOGETHER = 3  # frames in a row
ADDRESS = "#sample=vqa:0&arm=mustdrop-t192-k&other=keep_last-t192-k"


def shown(ledger, frames=None, pictures=()):
    made = Traces()
    entry = made._shown(Trace(ledger, pictures=pictures), frames)
    assert entry is not None
    return entry


def test_every_frame_is_an_entry_and_the_video_names_them():
    entry = shown(filtered(), FRAMES, [picture(seed) for seed in range(FRAMES)])
    assert [image["label"] for image in entry["images"]] == ["frame 1", "frame 2", "frame 3"]
    assert [image["picture"] for image in entry["images"]] == [0, 1, 2]
    assert [image["start"] for image in entry["images"]] == [
        number * SIZE * len(PLANES) for number in range(FRAMES)
    ]
    assert entry["videos"] == [{"first": 0, "count": FRAMES, "columns": TOGETHER}]
    assert entry["slots"] == FRAMES * (SIZE + 1)


def test_frames_that_a_model_encodes_together_have_one_name():
    entry = shown(last_frame(), 2 * FRAMES)
    assert [image["label"] for image in entry["images"]] == [
        f"frame {n}" for n in ("1–2", "3–4", "5–6")
    ]


def test_images_in_front_of_a_video_are_no_frames():
    entry = shown(video_ledger(ALL, before=2))
    assert [image["label"] for image in entry["images"]][:3] == ["", "", "frame 1"]
    assert entry["videos"] == [{"first": 2, "count": FRAMES, "columns": TOGETHER}]


def test_one_frame_is_a_picture_and_no_video():
    assert shown(video_ledger(range(SIZE), frames=1))["videos"] == []


def test_rows_of_frames_are_full_and_not_shorter_than_high():
    assert [columns_of(n) for n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 32)] == [
        1,
        2,
        3,
        2,
        5,
        3,
        4,
        4,
        4,
        8,
    ]
    for count in range(1, 70):
        columns = columns_of(count)
        assert count % columns == 0 and count // columns <= columns


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_videos(root, shown=2 * FRAMES)
    out = root / "report.html"
    out.write_text(html(gather(root)))
    return out


def test_the_page_carries_the_number_of_frames_of_the_run(made):
    traces = gather(made.parent).content["arms"][1]["traces"]
    assert traces[0]["images"][0]["label"] == "frame 1–2"


@pytest.fixture
def tab(chromium, made):
    """A page that says nothing on the console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(made.as_uri() + ADDRESS)
    opened.wait_for_selector(".frame canvas")
    yield opened
    assert said == []
    context.close()


def joined(ledger, name):
    """Values of all frames, three in a row: the slow way."""
    frames = [getattr(patch_fates(Trace(ledger), n), name).reshape(GRID) for n in range(FRAMES)]
    return np.concatenate(frames, 1).ravel().tolist()


@pytest.mark.browser
def test_all_frames_together_have_the_fates_of_each(tab):
    fates = tab.evaluate(
        "view.panels.map(({ fates }) => ({ ...fates, region: fates.region && [...fates.region] }))"
    )
    for drawn, ledger in zip(fates, (filtered(), last_frame()), strict=True):
        assert (drawn["rows"], drawn["columns"], drawn["size"]) == (
            ROWS,
            3 * COLUMNS,
            FRAMES * SIZE,
        )
        assert drawn["left"] == joined(ledger, "left")
        assert drawn["resident"] == joined(ledger, "resident")
        assert drawn["key"] == joined(ledger, "key")
        carried = joined(ledger, "carried")
        assert [group > 0 for group in drawn["group"]] == [count > 1 for count in carried]
        assert drawn["region"] is None


@pytest.mark.browser
def test_the_slider_moves_all_frames_and_the_texts_count_the_video(tab):
    slider, said = tab.locator("#layer"), []
    for value in (1, 2):
        slider.evaluate(
            "(slider, value) => { slider.value = value;"
            " slider.dispatchEvent(new Event('input', { bubbles: true })); }", str(value),
        )  # fmt: skip
        said.append(tab.locator("#step").inner_text())
    assert said[0].startswith("input, before layer 0: A 25 of 27 tokens · B 27 of 27 tokens")
    assert said[1].startswith("after layer 0: A 8 of 27 tokens · B 11 of 27 tokens")
    label = tab.locator(".frame canvas").nth(1).get_attribute("aria-label")
    assert f"of {FRAMES * SIZE} patches {SIZE} alive, {2 * SIZE} dropped here" in label


@pytest.mark.browser
def test_a_patch_of_all_frames_names_its_frame(tab):
    frame, fate = tab.locator(".frame").nth(1), tab.locator(".fate").nth(1)
    box = frame.locator("canvas").bounding_box()
    frame.hover(position={"x": box["width"] * 0.99, "y": box["height"] * 0.9})
    assert fate.inner_text().startswith("Frame 5–6, row 2, column 4; kept to the last layer")
    frame.hover(position={"x": box["width"] * 0.35, "y": box["height"] * 0.1})
    assert fate.inner_text().startswith("Frame 3–4, row 1, column 1; dropped after layer 0")


@pytest.mark.browser
def test_the_menu_shows_all_frames_first_and_then_each(tab):
    menu = tab.locator(".panel select").first
    names = re.split(r"\n", menu.inner_text())
    frames = ("2 of 4: frame 1–2", "3 of 4: frame 3–4", "4 of 4: frame 5–6")
    assert names == ["1 of 4: all frames", *frames]
    menu.select_option("3")
    tab.wait_for_function("view.panels.every((panel) => panel.shown === 3 && !panel.fates.tiles)")
    assert "image=3" in tab.url
    assert (
        tab.evaluate("view.panels[1].fates.left")
        == patch_fates(Trace(last_frame()), 2).left.tolist()
    )


@pytest.mark.browser
def test_the_pictures_of_all_frames_stand_in_the_order_of_time(tab):
    """The colour in the middle of each third of the picture is that of its frame's picture."""
    colours = tab.evaluate("""async () => {
      const [panel] = view.panels, data = await readData();
      const pictures = panel.trace.images.map((image) => pictureOf(data, image.picture));
      const frames = await Promise.all(pictures);
      const colour = (picture, x) => {
        const pen = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
        pen.drawImage(picture, 0, 0);
        return [...pen.getImageData(x, 9, 1, 1).data];
      };
      const wide = frames[0].width;
      return frames.map((frame, at) => [colour(frame, 9), colour(panel.picture, at * wide + 9)]);
    }""")
    assert len({tuple(single) for single, _ in colours}) == FRAMES
    assert all(single == whole for single, whole in colours)
