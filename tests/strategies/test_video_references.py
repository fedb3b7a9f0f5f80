"""Controls that choose among the frames of a video, on models that read videos.

What they keep is recomputed by loops over (video, frame, cell), from the prompts alone.
"""

import numpy as np
import pytest
import torch
from families import FAMILIES, Video
from models import greedy
from video_prompts import PROMPTS, Slot, kept, model_of, run_of, shapes, slots

from mustdrop import TokenDropper
from mustdrop.functional import even_cells
from mustdrop.prefill.average_frames import AverageFrames
from mustdrop.prefill.every_other_frame import EveryOtherFrame
from mustdrop.prefill.uniform_frames import UniformFrames

KEEPS = (0, 5, 24, 60, 83)


def shares(family: str, parts, keep: int) -> list[int]:
    """Part of ``keep`` of each video; rounded sums, so that the parts add up."""
    sizes = [frames * rows * columns for frames, rows, columns in shapes(family, parts)]
    ends = np.cumsum([0, *sizes])
    keep = min(keep, int(ends[-1]))
    return np.diff([round(keep * end / ends[-1]) for end in ends.tolist()]).tolist()


def in_whole_frames(family: str, parts, keep: int) -> set[Slot]:
    """Slots of as many whole frames as ``keep`` allows, and of a part of one more."""
    wanted = set()
    made = zip(shapes(family, parts), shares(family, parts, keep), strict=True)
    for video, ((frames, rows, columns), share) in enumerate(made):
        count = int(np.ceil(share / (rows * columns)))
        for frame in np.linspace(0, frames - 1, count).astype(int).tolist():
            cells = min(share, rows * columns)
            share -= cells
            wanted |= {Slot(video, frame, c) for c in even_cells(rows, columns, cells).tolist()}
    return wanted


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("family", PROMPTS)
def test_uniform_frames_keeps_fewer_frames_and_a_part_of_the_last(family, keep):
    run = run_of(family, TokenDropper(prefill=UniformFrames(keep)))
    for parts, ledger in zip(PROMPTS[family], run.ledgers, strict=True):
        given = slots(family, parts)
        wanted = in_whole_frames(family, parts, keep)
        expected = [number for number, slot in enumerate(given) if slot in wanted]
        assert kept(ledger) == expected and len(expected) == keep


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("family", PROMPTS)
def test_every_other_frame_keeps_the_even_ones(family, layer):
    run = run_of(family, TokenDropper(prefill=EveryOtherFrame(layer)))
    for parts, ledger in zip(PROMPTS[family], run.ledgers, strict=True):
        given = slots(family, parts)
        expected = [
            n for n, slot in enumerate(given) if not slot.frame % 2 and slot.cell is not None
        ]
        assert kept(ledger, layer + 1) == expected
        assert layer < 0 or len(kept(ledger, layer)) == len(given)


def mean_groups(family: str, parts, keep: int) -> list[list[int]]:
    """Slots that are averaged into each survivor, in the order of their middle slot."""
    given, groups = slots(family, parts), []
    made = zip(shapes(family, parts), shares(family, parts, keep), strict=True)
    for video, ((frames, rows, columns), share) in enumerate(made):
        cells = rows * columns
        more = {*even_cells(rows, columns, share % cells).tolist()}
        for cell in range(cells):
            count = share // cells + (cell in more)
            for group in range(count):
                members = [frame for frame in range(frames) if frame * count // frames == group]
                groups.append([given.index(Slot(video, frame, cell)) for frame in members])
    return sorted(groups, key=lambda members: members[(len(members) - 1) // 2])


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("family", PROMPTS)
def test_average_frames_is_the_mean_of_neighbouring_frames_cell_by_cell(family, keep):
    run = run_of(family, TokenDropper(prefill=AverageFrames(keep)))
    for number, (parts, ledger) in enumerate(zip(PROMPTS[family], run.ledgers, strict=True)):
        groups = mean_groups(family, parts, keep)
        expected = torch.zeros(len(groups), len(slots(family, parts)))
        for row, members in enumerate(groups):
            expected[row, members] = 1 / len(members)
        decision = run.mixed[-1][number]
        torch.testing.assert_close(decision.mix, expected)
        middles = [members[(len(members) - 1) // 2] for members in groups]
        assert kept(ledger) == middles and len(middles) == keep
        assert decision.sizes.tolist() == [len(members) for members in groups]


def test_average_frames_at_whole_frames_halves_the_time():
    """Six slots in time become three, each the mean of two neighbours."""
    parts = (3, Video(12, 16, 24), 5)
    run = run_of("qwen2_5_vl", TokenDropper(prefill=AverageFrames(18)), [parts])
    mix = run.mixed[-1][0].mix.view(3, 6, 6, 6)
    for group in range(3):
        for frame in range(6):
            weight = 0.5 if frame // 2 == group else 0.0
            torch.testing.assert_close(mix[group, :, frame], weight * torch.eye(6))


@pytest.mark.parametrize("method", [UniformFrames, AverageFrames])
@pytest.mark.parametrize("family", PROMPTS)
def test_a_count_above_all_tokens_changes_nothing(family, method):
    model, made = model_of(family), FAMILIES[family]
    inputs = made.inputs(model, *PROMPTS[family])
    with TokenDropper(prefill=method(10_000)).attach(model):
        held = greedy(model, inputs)
    assert torch.equal(held[1], greedy(model, inputs)[1])
