"""One colour and mark for each method, whatever is drawn and whatever stands beside it."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle
from results import draws, write

from analysis.figures import pareto, tradeoff
from analysis.figures.palette import FAMILIES, KNOWN, MARKS, MethodLook, look_of
from analysis.figures.style import look
from analysis.records.cells import load

METHODS = sorted(path.stem for path in Path("conf/method").glob("*.yaml"))


def test_every_method_preset_is_listed_and_no_two_look_alike():
    assert set(METHODS) == set(KNOWN)
    looks = [(each.color, each.marker) for each in KNOWN.values()]
    assert len(set(looks)) == len(looks)
    assert len({each.color for each in KNOWN.values()}) == len(KNOWN)
    assert sum(len(family) for family in FAMILIES.values()) == len(KNOWN)
    for each in KNOWN.values():
        assert re.fullmatch("#[0-9a-f]{6}", each.color) and MarkerStyle(each.marker).is_filled()


def hue(color):
    red, green, blue = to_rgb(color)
    return np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))


def test_a_family_shares_a_hue_and_controls_are_grey():
    for name, family in FAMILIES.items():
        colors = [each.color for each in family.values()]
        grey = [np.ptp(to_rgb(color)) == 0 for color in colors]
        assert all(grey) if name == "controls and bounds" else not any(grey)
        assert all(each.grey == (name == "controls and bounds") for each in family.values())
        if not grey[0]:
            apart = [(hue(color) - hue(colors[0]) + 180) % 360 - 180 for color in colors]
            assert np.abs(apart).max() < 15, name
    assert {"vanilla", "random", "uniform_grid", "keep_last", "keep_centre", "average_pool"} <= set(
        FAMILIES["controls and bounds"]
    )


def contrast(color):
    parts = np.array(to_rgb(color))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05)


def test_an_unlisted_method_has_a_look_of_its_own_that_stays():
    assert look_of("dart") == MethodLook("#544084", "h")
    names = [f"method_{number}" for number in range(500)]
    looks = [look_of(name) for name in names]
    assert not {(each.color, each.marker) for each in looks} & {
        (each.color, each.marker) for each in KNOWN.values()
    }
    assert not {each.color for each in looks} & {each.color for each in KNOWN.values()}
    assert len({(each.color, each.marker) for each in looks}) >= 498
    assert {each.marker for each in looks} == set(MARKS) and not any(each.grey for each in looks)
    for each in [*looks, *KNOWN.values()]:
        assert contrast(each.color) > 2.9


def drawn(figure):
    """Colour and mark of each line of points, by the label at its end."""
    axes = figure.axes[0]
    labels = {to_hex(text.get_color()): text.get_text() for text in axes.texts}
    return {
        labels[to_hex(line.get_markeredgecolor())]: (
            to_hex(line.get_markeredgecolor()),
            line.get_marker(),
        )
        for line in axes.lines
        if line.get_zorder() == 3
    }


@pytest.mark.parametrize("others", [(), ("fastv",), ("aaa", "fastv", "tome", "zzz")])
def test_a_method_looks_the_same_whatever_stands_beside_it(tmp_path, others):
    for number, method in enumerate(("mustdrop", "random", *others)):
        write(tmp_path, method, scores=draws(number))
    found = drawn(tradeoff.draw(load(tmp_path)))
    assert set(found) == {"mustdrop", "random", *others}
    for method, (color, marker) in found.items():
        assert (color, marker) == (look_of(method).color, look_of(method).marker)


def test_the_front_and_its_controls_have_the_looks_of_the_tradeoff(tmp_path, monkeypatch):
    seen = {}
    line = pareto._line
    monkeypatch.setattr(
        pareto, "_line",
        lambda place, cells, label, **how: seen.update({label: how}) or line(
            place, cells, label, **how
        ),
    )  # fmt: skip
    for number, gamma in enumerate((0.1, 0.2)):
        config = {"prefill": {"gamma": gamma}}
        write(tmp_path, "mustdrop", "none", 100.0 + number, draws(6 + number), config=config,
              key=f"s{number}")  # fmt: skip
    write(tmp_path, "cls_topk", scores=draws(1))
    write(tmp_path, "vanilla", "none", 576.0)
    figures = []
    monkeypatch.setattr(pareto, "save", lambda figure, path: figures.append(figure))
    pareto.draw(pareto.read(tmp_path, "vqa", "mustdrop"), tmp_path / "pareto.svg")
    place = figures[0].axes[0]
    told = [text.get_text() for text in place.get_legend().get_texts()]
    # vanilla is named where no interval crosses it
    assert "vanilla, 576 tokens" in told and not place.texts
    for label, method in (("mustdrop, Pareto front", "mustdrop"), ("cls_topk", "cls_topk")):
        assert seen[label]["color"] == look_of(method).color
        assert seen[label]["marker"] == look_of(method).marker


@pytest.mark.parametrize("against", ["tokens", "flops", "latency"])
def test_every_point_of_a_tradeoff_stands_at_what_was_measured(tmp_path, against):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    methods = METHODS[:7] if against == "tokens" else METHODS[:4]
    for number, method in enumerate(methods):
        for budget in ("t192", "t64"):
            write(tmp_path, method, budget, float(budget[1:]), draws(number + 1))
    figure = tradeoff.draw(load(tmp_path), against)
    axes = figure.axes[0]
    expected = {"tokens": {64.0, 192.0}, "flops": {100 * (64 / 576), 100 * (192 / 576)}}.get(
        against
    )
    expected = expected or {float(np.median([0.1 * (n + 1) for n in range(40)]))}
    marks = [float(x) for line in axes.lines if line.get_zorder() == 3 for x in line.get_xdata()]
    assert len(marks) == 2 * len(methods) and set(marks) == expected
    for container in axes.containers:
        assert set(container.lines[0].get_xdata()) <= expected
        (bars,) = container.lines[2]
        assert {x for segment in bars.get_segments() for x, _ in segment} <= expected


def test_a_control_on_the_image_is_dotted_in_the_methods_colour():
    plain, blank = look("mustdrop"), look("mustdrop, blank image")
    assert (plain["color"], plain["marker"]) == (blank["color"], blank["marker"])
    assert (plain["linestyle"], blank["linestyle"]) == ("-", ":")
    assert look("random")["linestyle"] == "--" and look("vanilla")["linestyle"] == "-"
