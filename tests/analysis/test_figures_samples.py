from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from results import write
from small_traces import (
    ALL,
    BEFORE,
    SIDE,
    WINDOW,
    fastv,
    keep,
    ledger,
    mustdrop,
    vanilla,
    write_traced,
)

from analysis.figures import attention, decode_attention, flow, overlays, stages, survival
from analysis.figures.filtering import judged, saving_words
from analysis.figures.palette import look_of
from analysis.figures.style import save
from analysis.figures.traced import Traced, alive, traced
from analysis.records.cells import load
from mustdrop.runs.trace import DecodeAttention, Trace


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {cell["method"]: cell for cell in load(write_traced(tmp_path_factory.mktemp("runs")))}


@pytest.fixture(scope="module")
def sample(runs):
    return {method: next(traced(cell)) for method, cell in runs.items()}


def texts(figure):
    """Every text that can be seen, legends and titles too."""
    from matplotlib.text import Text

    found = (text for text in figure.findobj(Text) if text.get_visible())
    return [text.get_text() for text in found if text.get_text()]


def test_traced_samples_come_with_question_and_answer(runs, sample):
    assert [one.doc_id for one in traced(runs["mustdrop"])] == [1, 2]
    assert [one.doc_id for one in traced(runs["mustdrop"], [2, 9])] == [2]
    assert sample["mustdrop"].question == "q1" and sample["mustdrop"].arm == "mustdrop at 192"
    assert sample["mustdrop"].verdict == "“a”, expected “t1”"
    assert next(traced(runs["mustdrop"], [2])).verdict == "“a”, right"


def test_every_outcome_of_the_two_tests_is_told_apart():
    trace = mustdrop()
    found = judged(trace, 0)
    outcome = dict(
        zip((trace.text_attention[0].positions - BEFORE).tolist(), found.test, strict=True)
    )
    assert (outcome[5], outcome[7], outcome[8], outcome[9]) == (0, 1, 2, 3)
    assert [token for token, test in outcome.items() if test == 0 and token != 5] == [
        token for token, left in zip(outcome, found.left, strict=True) if left
    ]
    assert saving_words(trace, 0) == {"bus": 1}
    with pytest.raises(ValueError, match=r"layer must be one of \[0\], got 3"):
        judged(trace, 3)


def test_the_tests_agree_with_what_a_real_filter_dropped(example):
    """The thresholds say who leaves, key tokens aside: of every look of a recorded run."""
    asked = 0
    for one in example["mustdrop"]:
        for layer in one.trace.text_attention:
            found = judged(one.trace, layer)
            assert (found.left == ((found.test == 0) & ~found.key)).all()
            asked += found.left.sum()
    assert asked > 100


@pytest.fixture(scope="module")
def example():
    """The committed records' traced samples, by method."""
    found = {}
    for cell in load(Path(__file__).parents[2] / "notebooks/records/example"):
        found.setdefault(cell["method"], []).extend(traced(cell))
    return found


def test_a_token_at_a_threshold_is_judged_as_the_equations_have_it():
    trace = mustdrop()
    at = trace.text_attention[0].positions.tolist().index(7 + BEFORE)
    exact = replace(
        trace, values={**trace.values, "gamma": np.array(trace.text_attention[0].share[at], float)}
    )
    assert judged(exact, 0).test[at] == 0  # Eq. 9: at gamma it is low
    at = trace.text_attention[0].positions.tolist().index(8 + BEFORE)
    exact = replace(
        trace,
        values={**trace.values, "alpha": np.array(trace.text_attention[0].largest[at], float)},
    )
    assert judged(exact, 0).test[at] == 2  # Eq. 10: at alpha it is not


def test_a_run_without_thresholds_is_judged_by_what_it_dropped():
    found = judged(fastv(), 0)
    assert found.test.tolist() == [0] * 12 + [3] * 4


def test_attention_tells_counts_thresholds_and_words(sample):
    figure = attention.draw(sample["mustdrop"])
    told = texts(figure)
    for text in ("layer 0: 9 of 13 dropped", "γ", "α", "bus", "key token", "holds the answer"):
        assert text in told
    scatter = figure.axes[0]
    assert {"10", "1"} <= set(told)  # of 13: ten low in both, one each of the rest
    assert scatter.get_xscale() == scatter.get_yscale() == "log"
    crossed = [line.get_xdata() for line in scatter.lines if line.get_linestyle() == "--"]
    assert [list(x) for x in crossed] == [[0.1, 0.1], [0, 1]]  # gamma is upright, alpha lies
    plain = texts(attention.draw(sample["fastv"]))
    assert "dropped" in plain and "γ" not in plain and "key token" not in plain
    with pytest.raises(ValueError, match="the trace has no text attention"):
        attention.draw(sample["vanilla"])


def test_zero_attention_has_a_place_on_a_logarithmic_axis():
    assert attention.positive(np.array([0.0, 0.5, 0.25])).tolist() == [0.25, 0.5, 0.25]
    assert (attention.positive(np.zeros(3)) > 0).all()


def test_concentration_is_what_the_top_tenth_gets():
    even = DecodeAttention(np.arange(20), np.full(20, 0.04), 0.2)
    assert decode_attention.concentration(even) == pytest.approx(0.1)
    one = DecodeAttention(np.arange(20), np.eye(20)[3], 0.0)
    assert decode_attention.concentration(one) == 1
    few = DecodeAttention(np.arange(3), np.array([0.1, 0.3, 0.1]), 0.5)  # never less than one token
    assert decode_attention.concentration(few) == pytest.approx(0.6)
    assert np.isnan(decode_attention.concentration(DecodeAttention(np.arange(0), np.zeros(0), 1.0)))


def test_attention_to_a_merged_token_is_shared_by_its_patches():
    trace = mustdrop()
    heat = decode_attention.density(trace, 0)
    assert np.nansum(heat) == pytest.approx(0.9)
    of = dict(
        zip(
            trace.decode_attention[0].positions - BEFORE,
            trace.decode_attention[0].vision,
            strict=True,
        )
    )
    for patch in WINDOW:
        assert heat.flat[patch] == pytest.approx(of[5] / 4)
    assert heat.flat[7] == pytest.approx(of[7])
    gone = decode_attention.density(trace, 1)
    assert [patch for patch in ALL if np.isfinite(gone.flat[patch])] == [0, 1, 4, 5, 7, 8, 9]


def test_gaze_draws_each_arm_and_refuses_other_samples(runs, sample):
    figure = decode_attention.draw([sample["vanilla"], sample["mustdrop"]])
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["vanilla"] == pytest.approx([90] * 3)
    assert set(lines) == {"vanilla", "mustdrop at 192"}
    with pytest.raises(ValueError, match="expected traces of one sample"):
        decode_attention.draw([sample["vanilla"], next(traced(runs["mustdrop"], [2]))])
    silent = Traced(runs["fastv"], "vqa", 1, Trace(fastv().ledger))
    with pytest.raises(ValueError, match="the trace of sample 1 has no decode attention"):
        decode_attention.draw([sample["vanilla"], silent])


def test_a_flow_counts_tokens_wherever_they_are():
    merged = flow.of_ledger(mustdrop().ledger)
    assert (merged.encoder, merged.patches, merged.key) == ([16, 13, 13], 16, 1)
    assert merged.entering == [13, 4, 4] and merged.resident == [13, 4, 4]
    left_alone = flow.of_ledger(ledger(ALL, (1,), cached=((1,), ())))
    assert (left_alone.encoder, left_alone.key) == ([16, 16], 0)
    assert left_alone.entering == [16, 1] and left_alone.resident == [1, 0]


def test_a_run_without_traces_flows_as_its_samples_do_on_average(runs):
    mean = flow.of_cell(runs["mustdrop"])
    assert mean.encoder == [] and mean.entering == [576, 64, 64, 64]
    assert mean.resident == [192] * 4 and mean.patches == 576


def test_the_diagram_is_that_of_the_run(sample, runs):
    told = texts(stages.draw(sample["mustdrop"]))
    assert "after the encoder\n13 tokens" in told and "after layer 0\n4 tokens" in told
    assert "−3" in told and "−9" in told and "1 key tokens always stay" in told
    assert any("γ = 0.1 and largest from a word < α = 0.2" in text for text in told)
    plain = texts(stages.draw(sample["fastv"]))
    assert "−12" in plain and "key token" not in plain
    assert not any("encoder" in text or "γ" in text for text in plain)
    mean = texts(stages.draw(runs["mustdrop"]))
    assert "mustdrop at 192 · mean of 40 samples" in mean and "−512" in mean


def test_a_band_is_as_high_as_the_tokens_are_many(sample):
    figure = stages.draw(sample["mustdrop"])
    band = figure.axes[0]
    heights = [part.get_paths()[0].get_extents().y1 for part in band.collections]
    assert band.get_ylim() == (0, 16) and max(heights) == 16 and 13 in heights and 4 in heights


def test_overlays_are_drawn_from_a_trace_alone(sample):
    figure = overlays.of_trace(sample["mustdrop"])
    told = texts(figure)
    assert told.count("mustdrop at 192") == 1 and "q1" in told
    assert "answer: “a”, expected “t1”" in told and "holds the answer" in told
    with pytest.raises(ValueError, match=r"picture must be in \[0, 1\), got 1"):
        overlays.of_trace(sample["mustdrop"], 1)


def test_survival_is_counted_patch_by_patch(runs):
    samples = list(traced(runs["mustdrop"]))
    found = survival.lives(samples)
    assert found.shape == (2, 3, SIDE, SIDE)
    for number, one in enumerate(samples):  # the slow way: ask every token of every layer
        grid, slots, carries = one.trace.ledger.image_tokens()
        for layer in range(3):
            there = set(one.trace.ledger.alive[layer].tolist())
            for patch in range(grid[0] * grid[1]):
                lives = any(
                    int(slot) in there and bool(carries[token, patch])
                    for token, slot in enumerate(slots)
                )
                assert found[number, layer].flat[patch] == lives
                assert alive(one.trace, layer).flat[patch] == lives


def test_keeping_the_bottom_shows_as_position_bias(runs):
    figure = survival.draw([list(traced(runs["fastv"])), list(traced(runs["mustdrop"]))])
    by_row = figure.axes[survival.MAPS].lines[0].get_xdata()
    by_column = figure.axes[survival.MAPS + 1].lines[0].get_ydata()
    assert list(by_row) == [0, 0, 0, 100] and list(by_column) == [25] * 4


def nearly():
    """MustDrop's patches, but for one of them."""
    return Trace(ledger(ALL, (0, 1, 4, 5, 7, 8), (0, 1, 4, 5, 7, 8)))


def test_the_interval_of_a_row_is_students(runs):
    """Of rows of which the samples keep other shares; where all keep the same there is none."""
    first, second = mustdrop(), nearly()
    arms = [
        Traced(runs["fastv"], "vqa", doc, trace) for doc in range(5) for trace in (first, second)
    ]
    place = survival.draw([arms]).axes[survival.MAPS]
    ours, theirs = (alive(trace, 2).mean(1) for trace in (first, second))
    assert 0 < (ours != theirs).sum() < SIDE
    drawn = place.collections[0].get_paths()[0].vertices
    for row in range(SIDE):
        # five of each: a deviation of half the distance, times 10 / 9; Student's t of nine degrees
        half = 2.262157 * abs(ours[row] - theirs[row]) / 2 * np.sqrt(10 / 9) / np.sqrt(10)
        middle = (ours[row] + theirs[row]) / 2
        ends = {float(x) for x, y in drawn if y == row}
        assert max(ends) == pytest.approx(100 * (middle + half), abs=1e-3)
        assert min(ends) == pytest.approx(100 * (middle - half), abs=1e-3)


def test_survival_refuses_grids_that_differ(runs, tmp_path):
    with pytest.raises(ValueError, match="no traced sample"):
        survival.lives([])
    shallow = Traced(runs["fastv"], "vqa", 1, Trace(ledger(ALL, ALL)))
    with pytest.raises(ValueError, match="grids differ between samples"):
        survival.lives([shallow, *traced(runs["fastv"])])


def test_the_same_trace_gives_the_same_bytes(sample, tmp_path):
    for name in ("a", "b"):
        for ending in ("pdf", "png"):
            save(attention.draw(sample["mustdrop"]), tmp_path / f"{name}.{ending}")
    for ending in ("pdf", "png"):
        first, second = (tmp_path / f"{name}.{ending}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()  # fonts are embedded as TrueType


def test_no_letter_is_smaller_than_print_can_carry(sample, runs):
    from matplotlib.text import Text

    figures = [
        stages.draw(sample["mustdrop"]),
        attention.draw(sample["mustdrop"]),
        overlays.of_trace(sample["mustdrop"]),
        decode_attention.draw([sample["vanilla"], sample["mustdrop"]]),
        survival.draw([list(traced(runs["fastv"]))]),
    ]
    for figure in figures:
        assert figure.get_figwidth() <= 6.75
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
        assert min(sizes) >= 6.5


def test_a_vanilla_trace_is_a_band_of_one_height(tmp_path):
    folder = keep(write(tmp_path, "vanilla", "none", 576.0), vanilla(), 0)
    cell = load(folder)[0]
    told = texts(stages.draw(next(traced(cell))))
    assert not any(text.startswith("−") for text in told)


def test_gaze_and_position_bias_have_the_colours_of_their_methods(runs, sample):
    upper = decode_attention.draw([sample["vanilla"], sample["mustdrop"], sample["mustdrop"]]).axes[
        0
    ]
    found = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in upper.lines]
    vanilla, ours = look_of("vanilla"), look_of("mustdrop")
    assert found == [
        (vanilla.color, vanilla.marker, "-"),
        (ours.color, ours.marker, "-"),
        (ours.color, ours.marker, "-."),  # the same method again
    ]
    figure = survival.draw([list(traced(runs["fastv"])), list(traced(runs["mustdrop"]))])
    for row, method in enumerate(("fastv", "mustdrop")):
        for column in (survival.MAPS, survival.MAPS + 1):
            place = figure.axes[row * (survival.MAPS + 2) + column]
            assert place.lines[0].get_color() == look_of(method).color


def test_the_cache_stands_on_the_floor_in_the_scale_of_the_band(sample):
    figure = stages.draw(sample["mustdrop"])
    band, cache = figure.axes[:2]
    bottom, top = cache.get_ylim()
    assert bottom == 0 and top > 0
    assert top / cache.get_position().height == pytest.approx(
        band.get_ylim()[1] / band.get_position().height
    )
    told = texts(figure)
    assert any("vision tokens per layer,\nof " in text for text in told)
    # lines to the pictures pass behind the numbers of what left
    left = [text for text in band.texts if text.get_text().startswith("−")]
    assert left and all(text.get_path_effects() for text in left)
