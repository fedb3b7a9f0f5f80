import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.contour import ContourSet
from results import draws, floor, write, write_three

from analysis.figures import layers, sweep, tradeoff
from analysis.figures.labels import spread
from analysis.figures.learning import learning
from analysis.figures.points import families, points
from analysis.figures.tradeoff import tradeoff as tradeoff_of_folder
from analysis.records.cells import load


@pytest.fixture
def root(tmp_path):
    return write_three(tmp_path)


def names_of(place):
    return {text.get_text() for text in place.texts}


def test_the_tradeoff_draws_what_the_table_says(root, tmp_path):
    write(root, "mustdrop", "t64", 64.0, draws(5, p=0.5))
    for path in ("a.png", "b.png"):
        tradeoff_of_folder(root, tmp_path / path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    axes = tradeoff.draw(load(root)).axes[0]
    assert axes.get_xscale() == "log"
    lines = {len(c.lines[0].get_xdata()): c.lines[0] for c in axes.containers}
    assert lines[2].get_xdata() == pytest.approx([64, 193], rel=0.06)
    assert lines[2].get_ydata() == pytest.approx(
        [100 * np.mean(draws(5, p=0.5)), 100 * np.mean(draws(2))]
    )
    assert names_of(axes) == {"mustdrop", "random", "vanilla"}
    assert axes.xaxis_inverted()  # fewer tokens stand right


def test_points_carry_intervals_and_say_whether_the_budget_was_met(root):
    write(root, "fastv", "t64", 66.0, draws(3))
    found = points(load(root), "tokens")
    assert [point.met for point in found["fastv"]] == [False]
    assert [point.met for point in found["mustdrop"]] == [True]  # 193 for 192
    point = found["mustdrop"][0]
    assert point.low < point.y < point.high and point.x == 193
    assert point.y == pytest.approx(100 * np.mean(draws(2)))


def test_costs_are_those_of_the_record(root):
    flops, latency = (points(load(root), cost)["random"][0].x for cost in ("flops", "latency"))
    assert flops == pytest.approx(100 * 192 / 576)
    assert latency == pytest.approx(np.median([0.1 * (n + 1) for n in range(40)]))


def test_latency_of_two_setups_is_refused_and_of_one_drawn(root):
    assert tradeoff.draw(load(root), "latency").axes
    write(root, "fastv", fingerprint="f2")
    with pytest.raises(ValueError, match="measured on 2 setups, which cannot be compared"):
        tradeoff.draw(load(root), "latency")
    assert tradeoff.draw(load(root), "flops").axes


def test_what_was_missed_or_not_reached_is_told(root):
    write(root, "fastv", "t64", 66.0, draws(3))
    floor(root, "tome", "t64", 96.0)
    floor(root, "tome", "s5", "16.7%")
    figure = tradeoff.draw(load(root))
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert told == [
        "hollow: more than 1 % off its budget",
        "tome cannot reach 64: at least 96",
        "tome cannot reach 5 %: at least 16.7%",
    ]
    faces = {
        line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "s"
    }
    assert "white" not in faces
    assert any(line.get_markerfacecolor() == "white" for line in figure.axes[0].lines)


def test_runs_of_a_sweep_stand_pale_beside_those_with_a_budget(root):
    write(root, "mustdrop", "t64", 64.0, draws(5))
    for number in range(3):
        config = {"prefill": {"gamma": number}}
        write(root, "mustdrop", "none", 100.0 + number, draws(6), config=config, key=f"s{number}")
    figure = tradeoff.draw(load(root))
    (line,) = [c.lines[0] for c in figure.axes[0].containers if len(c.lines[0].get_xdata()) == 2]
    assert line.get_linestyle() == "-"
    pale = [one.get_xdata()[0] for one in figure.axes[0].lines if one.get_alpha() == 0.35]
    assert sorted(pale) == [100, 101, 102]
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert told == ["pale: runs without a budget"]


def test_many_methods_are_told_apart_by_the_stages_that_drop(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0)
    stages = {"tome": ("vision",), "fastv": ("prefill",), "mustdrop": ("vision", "prefill")}
    for method, own in stages.items():
        for copy in ("", "_b", "_c"):
            write(tmp_path, method + copy, config={stage: {"x": 1} for stage in own})
    flat = write(tmp_path, "random", config={"prefill": {"x": 1}})
    lines = (flat / "samples.jsonl").read_text()
    (flat / "samples.jsonl").write_text(lines.replace("[576, 64, 64, 64]", "[192, 192, 192, 192]"))
    cells = load(tmp_path)
    assert families(cells) == {
        "vision encoding": ["tome", "tome_b", "tome_c"],
        "input of the language model": ["random"],
        "prefill": ["fastv", "fastv_b", "fastv_c"],
        "several stages": ["mustdrop", "mustdrop_b", "mustdrop_c"],
    }
    panels = [place for place in tradeoff.draw(cells).axes if place.get_visible()]
    assert [place.get_title(loc="left") for place in panels] == list(families(cells))
    assert names_of(panels[2]) == {"fastv", "fastv_b", "fastv_c", "vanilla"}
    few = tradeoff.draw([cell for cell in cells if cell["method"] in (*stages, "vanilla")])
    assert len(few.axes) == 1


def test_layers_draw_the_means_and_equal_methods_once(root):
    write(root, "fastv", executed=210.0)
    cells = load(root)
    assert [names for names, _ in layers.panels(cells)] == [["fastv"], ["mustdrop", "random"]]
    figure = layers.draw(cells)
    titles = [place.get_title(loc="left") for place in figure.axes]
    assert titles == ["fastv", "mustdrop = random"]
    drawn = [line.get_ydata().tolist() for line in figure.axes[1].lines]
    # 192 and 193 over 4 layers, of which the first holds all; the cache; vanilla
    assert drawn == [[576, 65, 65, 65], [193] * 4, [576] * 4]


def test_a_profile_has_the_middle_of_the_samples(root):
    cell = next(cell for cell in load(root) if cell["method"] == "random")
    cell.samples["vision_tokens"] = [[576, n] for n in range(40)]
    cell.samples["resident_tokens"] = [[n, 0] for n in range(40)]
    mean, low, high, resident = layers.profile(cell)
    assert mean.tolist() == [576, 19.5] and resident.tolist() == [19.5, 0]
    assert low[1] == pytest.approx(3.9) and high[1] == pytest.approx(35.1)


def swept(root, settings, method="mustdrop"):
    """A run for each (gamma, alpha, tau, executed, share of right answers)."""
    for number, (gamma, alpha, tau, executed, right) in enumerate(settings):
        scores = [1.0] * round(40 * right) + [0.0] * round(40 * (1 - right))
        config = {"prefill": {"gamma": gamma, "alpha": alpha}, "vision": {"tau": tau}}
        write(root, method, "none", executed, scores, config=config, key=f"k{number}")
    return load(root)


GRID = [
    (gamma, alpha, tau, 100.0 / (1 + 50 * gamma) + tau, 0.9 - 10 * gamma * (alpha > 0.01))
    for gamma in (0.001, 0.003, 0.01)
    for alpha in (0.01, 0.02)
    for tau in (50.0, 60.0)
]


def test_a_sweep_is_found_by_what_differs(tmp_path):
    found = sweep.sweeps(swept(tmp_path, GRID))
    assert len(found) == 1 and found[0].settings[0] == "prefill.gamma"
    assert set(found[0].settings) == {"prefill.gamma", "prefill.alpha", "vision.tau"}
    assert found[0].values("prefill.gamma") == ["0.001", "0.003", "0.01"]
    assert sweep.entries_of("a.b=1, c=[2, 3], d.e_f=x y") == {
        "a.b": "1", "c": "[2, 3]", "d.e_f": "x y"
    }  # fmt: skip


def test_one_swept_setting_is_no_map(tmp_path):
    assert not sweep.sweeps(swept(tmp_path, [(g, 0.1, 50.0, 99.0, 0.5) for g in (0.1, 0.2)]))


def test_a_map_puts_each_run_in_its_field(tmp_path):
    (found,) = sweep.sweeps(swept(tmp_path, GRID))
    figure = sweep.draw(found, "prefill.gamma", "prefill.alpha")
    maps = [place for place in figure.axes if place.images]
    assert [place.get_title(loc="left") for place in maps] == ["τ = 50", "τ = 60"]
    image = maps[0].images[0].get_array()
    for (row, alpha), (column, gamma) in itertools.product(
        enumerate((0.01, 0.02)), enumerate((0.001, 0.003, 0.01))
    ):
        right = round(40 * (0.9 - 10 * gamma * (alpha > 0.01))) / 40
        assert image[row, column] == pytest.approx(100 * right)
    # of six equals in the lower row the one with the fewest tokens: the largest gamma
    (frame,) = maps[0].patches
    assert frame.get_x() == pytest.approx(2 - 0.48) and frame.get_y() == pytest.approx(-0.48)
    assert (maps[0].get_xlabel(), maps[0].get_ylabel()) == ("γ", "α")


def test_lines_of_equal_budget_run_where_the_budget_is_equal(tmp_path):
    # 96 tokens lie half way between the first two columns, whatever alpha is
    settings = [
        (gamma, alpha, 50.0, executed, 0.5)
        for gamma, executed in ((0.001, 100.0), (0.002, 92.0), (0.003, 80.0))
        for alpha in (0.01, 0.02)
    ]
    (found,) = sweep.sweeps(swept(tmp_path, settings))
    place = sweep.draw(found).axes[0]
    lines = [child for child in place.get_children() if isinstance(child, ContourSet)]
    levels = {level for each in lines for level in each.levels}
    assert levels == {96.0}
    path = np.concatenate(
        [vertices for vertices in lines[-1].get_paths()[0].to_polygons(closed_only=False)]
    )
    assert path[:, 0] == pytest.approx(0.5) and path[:, 1].min() == -0.5 and path[:, 1].max() == 1.5


def test_two_runs_in_one_field_are_refused(tmp_path):
    cells = swept(tmp_path, GRID)
    (found,) = sweep.sweeps(cells)
    twice = sweep.Swept(
        [*found.cells, found.cells[0]], [*found.entries, found.entries[0]], found.settings
    )
    with pytest.raises(ValueError, match="expected one run per field"):
        sweep.draw(twice)
    with pytest.raises(ValueError, match=r"expected one of .* got prefill\.x"):
        sweep.draw(found, "prefill.x")


def test_labels_stand_apart_and_move_no_more_than_they_must():
    rng = np.random.default_rng(0)
    for _ in range(50):
        heights = sorted(rng.random(7))
        moved = spread(heights, 0.05)
        assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert spread([0.1, 0.3, 0.9], 0.05) == [0.1, 0.3, 0.9]
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_figures_of_nothing_are_one_clear_message(tmp_path):
    floor(tmp_path, "fastv", "t64", 144.0)
    with pytest.raises(ValueError, match=r"no run .* has an accuracy"):
        tradeoff_of_folder(tmp_path, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"no run has an accuracy"):
        tradeoff.draw(load(tmp_path))
    with pytest.raises(ValueError, match=r"no run has samples"):
        layers.draw(load(tmp_path))


def test_vanilla_alone_can_be_drawn(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    assert tradeoff_of_folder(tmp_path, tmp_path / "x.png").exists()
    assert [line.get_ydata().tolist() for line in layers.draw(load(tmp_path)).axes[0].lines] == [
        [576.0] * 4
    ]


def test_a_training_curve_shows_every_type_and_stage(tmp_path):
    lines = [
        {"stage": stage, "step": step, "done": step, "seconds": 60.0 * step, "loss": 1.0,
         "right": 0.5, "color": None if step % 2 else step / 10, "two_hop": step / 20}
        for step, stage in enumerate(["vision", "few", "few", "many"])
    ]  # fmt: skip
    pd.DataFrame(lines).to_csv(tmp_path / "curve.csv", index=False)
    first = learning(tmp_path / "curve.csv", tmp_path / "one.svg").read_text()
    for told in ("vision", "few", "many", "color", "two_hop", "mean of types"):
        assert f"<!-- {told} -->" in first
    assert first == learning(tmp_path / "curve.csv", tmp_path / "two.svg").read_text()
    pd.DataFrame(lines).assign(color=None, two_hop=None).to_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="has no validation yet"):
        learning(tmp_path / "none.csv", tmp_path / "none.svg")


def test_all_fields_that_are_best_are_framed_and_numbers_stand_over_lines(tmp_path):
    settings = [
        (gamma, alpha, 50.0, executed, 0.5 if (gamma, alpha) != (0.003, 0.02) else 0.4)
        for gamma, executed in ((0.001, 100.0), (0.002, 92.0), (0.003, 80.0))
        for alpha in (0.01, 0.02)
    ]
    (found,) = sweep.sweeps(swept(tmp_path, settings))
    figure = sweep.draw(found)
    place = figure.axes[0]
    (solid,) = place.patches
    assert (solid.get_x(), solid.get_y()) == pytest.approx((2 - 0.48, -0.48))
    (dotted,) = (each for each in place.collections if isinstance(each, PatchCollection))
    corners = {tuple(path.vertices.min(0).round(2)) for path in dotted.get_paths()}
    assert corners == {(x - 0.48, y - 0.48) for x in (0, 1) for y in (0, 1)}
    assert dotted.get_linestyle() != [(0, None)]
    lines = [each.get_zorder() for each in place.get_children() if isinstance(each, ContourSet)]
    numbers = [text for text in place.texts if "." in text.get_text()]
    assert len(numbers) == 6 and all(text.get_bbox_patch() is not None for text in numbers)
    assert min(text.get_zorder() for text in numbers) > max(lines)
    head = figure.get_suptitle()
    assert "ties dotted; solid: fewest tokens" in head
    figure.canvas.draw()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_a_single_best_field_has_no_equals(tmp_path):
    settings = [
        (gamma, alpha, 50.0, 90.0, 0.5 + 10 * gamma + alpha)
        for gamma in (0.001, 0.02) for alpha in (0.05, 0.1)
    ]  # fmt: skip
    (found,) = sweep.sweeps(swept(tmp_path, settings))
    assert "ties" not in sweep.draw(found).get_suptitle()


def test_many_equal_methods_are_counted_and_named_below(tmp_path):
    for method in ("tome", "fastv", "anti_oracle", "cls_topk"):
        write(tmp_path, method)
    figure = layers.draw(load(tmp_path))
    title = figure.axes[0].get_title(loc="left")
    assert " ".join(title.split()) == "4 methods alike: anti_oracle, …"
    (legend,) = figure.legends
    assert legend.get_title().get_text() == ("4 methods alike: anti_oracle, cls_topk, fastv, tome")


def test_panels_of_families_share_random_tokens_and_no_other_line(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0)
    for stage, names in (("vision", "abcde"), ("prefill", "fghi")):
        for name in names:
            write(tmp_path, name, config={stage: {"x": 1}})
    write(tmp_path, "random", "t64", 64.0, config={"prefill": {"x": 1}})
    write(tmp_path, "random", config={"prefill": {"x": 1}})
    write(tmp_path, "random", "none", 300.0, config={"prefill": {"x": 1}})
    figure = tradeoff.draw(load(tmp_path))
    panels = {place.get_title(loc="left"): place for place in figure.axes}
    pale = {
        name: [sorted(line.get_xdata()) for line in place.lines if line.get_alpha() == 0.4]
        for name, place in panels.items()
    }
    assert pale == {"vision encoding": [[64, 192]], "prefill": []}
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["dashed, without markers: random", "pale: runs without a budget"]


def test_controls_on_the_image_are_drawn_and_a_run_without_tokens_has_no_cost(root):
    write(root, "vanilla", "none", 576.0, config={"image": {"name": "wrong"}}, key="w")
    bare = {"config": {"image": {"name": "none"}}, "key": "n"}
    write(root, "vanilla", "none", 0.0, changed=lambda doc: {"vision_tokens": [0] * 4}, **bare)
    cells = load(root)
    drawn = [names for names, _ in layers.panels(cells)]
    assert drawn[1:] == [["vanilla, none image"], ["vanilla, wrong image"]]
    assert len(layers.draw(cells).axes[1].lines) == 2
    assert names_of(tradeoff.draw(cells).axes[0]) == {
        "mustdrop", "random", "vanilla", "vanilla, wrong image"
    }  # fmt: skip
