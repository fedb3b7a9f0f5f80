"""Film strips and survival by frame of real runs, whose models are tiny and random.

What the models answer means nothing; the counts are those of the runs' own samples.
"""

import pytest
from hub_checkpoints import save
from video_files import write_video

from analysis.figures import __main__ as command
from analysis.figures import film
from analysis.figures.frames import frame_shares
from analysis.figures.traced import traced
from analysis.records.cells import load
from analysis.report.page_data import gather
from experiments.run import run
from experiments.trace import main as trace_runs
from mustdrop.presets.compose import composed

FAMILIES = {
    "video_llava": ("video_llava_7b", 3, []),
    "qwen2_5_vl": ("qwen2_5_vl_7b", 4, ["model.min_pixels=256", "model.max_pixels=4096"]),
}
KEPT = 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "encoded", "names"),
    [
        ("video_llava", 4, ["1", "2", "3", "4"]),
        ("qwen2_5_vl", 2, ["1–2", "3–4"]),  # two frames in one
    ],
)
def test_figures_and_page_of_a_traced_run_count_what_its_samples_count(
    family, encoded, names, tmp_path
):
    model, merging_blocks, more = FAMILIES[family]
    files = tmp_path / "files"
    files.mkdir()
    for number, size in enumerate(((48, 32), (64, 64))):
        write_video(files / f"{number}.mp4", size=size)
    root = tmp_path / "outputs"
    run(
        composed(
            f"model={model}", f"model.pretrained={save(family, tmp_path / family)}",
            "model.layers=6", f"model.merging_blocks={merging_blocks}", "model.dtype=float32",
            "model.frames=4", *more, "method=fastv", f"prefill.keep={KEPT}", "budget=none",
            "benchmark=pocket_vqa", "benchmark.name=files", "benchmark.limit=null",
            "benchmark.task._target_=video_files.FileQuestions", "~benchmark.task.split",
            f"+benchmark.task.folder={files}", "benchmark.calibration=null", "controls=none",
            "batch_size=2", "workers=0", f"output_root={root}",
        )
    )  # fmt: skip
    trace_runs([str(root), "--samples", "0-1"])
    (cell,) = load(root)
    samples = list(traced(cell))
    assert len(samples) == 2
    for sample in samples:
        ledger = sample.trace.ledger
        assert ledger.videos == [(0, encoded)] and len(sample.trace.pictures) == encoded
        off_grid = int(ledger.vision.sum()) - ledger.shown_cells
        patches, left = ledger.shown_cells, sample["vision_tokens"][-1]
        shown = [text.get_text() for text in film.of_trace(sample).texts]
        assert f"frames\n{patches} patches" in shown and set(names) <= set(shown)
        (row,) = [text for text in shown if text.startswith("after layer")]
        counted = int(row.split("\n")[1].split()[0])
        assert left == KEPT and left - off_grid <= counted <= left
        shares = frame_shares([sample.trace], 4)
        assert shares.names == names
        assert shares.by_frame[0, -1].sum() * patches / encoded == pytest.approx(counted)
    out = tmp_path / "out"
    assert command.main(["film", "frames", "--runs", str(root), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == [
        "film_fastv_none_0.png", "frames_none.png",
    ]  # fmt: skip
    (arm,) = gather(root).content["arms"]
    for trace in arm["traces"].values():
        assert [image["label"] for image in trace["images"]] == [f"frame {name}" for name in names]
        assert trace["videos"][0]["count"] == encoded
