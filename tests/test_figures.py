import itertools

import numpy as np
import pandas as pd
import pytest
from results import draws, floor, write, write_three

from analysis.figures import plots
from analysis.figures.learning import learning


@pytest.fixture
def root(tmp_path):
    return write_three(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    save = plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, path: figures.append(figure) or save(figure, path)
    )
    return figures


def test_the_tradeoff_draws_what_the_table_says(root, drawn, tmp_path):
    write(root, "mustdrop", "t64", 64.0, draws(5, p=0.5))
    for path in ("a.png", "b.png"):
        plots.tradeoff(root, tmp_path / path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    lines = {len(c.lines[0].get_xdata()): c.lines[0] for c in axes.containers}
    assert lines[2].get_xdata() == pytest.approx([64, 193], rel=0.06)
    assert lines[2].get_ydata() == pytest.approx(
        [100 * np.mean(draws(5, p=0.5)), 100 * np.mean(draws(2))]
    )
    names = {text.get_text() for text in axes.texts}
    assert names == {"mustdrop", "random", "vanilla, 576 tokens"}


def test_tokens_per_layer_draws_the_means_and_equal_ones_once(root, drawn, tmp_path):
    write(root, "fastv", executed=210.0)
    plots.tokens_per_layer(root, tmp_path / "x.svg")
    lines = {line.get_label(): line.get_ydata().tolist() for line in drawn[0].axes[0].lines}
    # 192 and 193 over 4 layers, of which the first holds all
    assert lines == {
        "vanilla": [576] * 4,
        "mustdrop = random": [576, 65, 65, 65],
        "fastv": [576, 88, 88, 88],
    }


def test_labels_stand_apart_and_move_no_more_than_they_must():
    rng = np.random.default_rng(0)
    for _ in range(50):
        heights = sorted(rng.random(7))
        moved = plots.spread(heights, 0.05)
        assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert plots.spread([0.1, 0.3, 0.9], 0.05) == [0.1, 0.3, 0.9]
    assert plots.spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_figures_of_nothing_are_one_clear_message(tmp_path):
    floor(tmp_path, "fastv", "t64", 144.0)
    with pytest.raises(ValueError, match=r"no run .* has an accuracy"):
        plots.tradeoff(tmp_path, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"no run .* has samples"):
        plots.tokens_per_layer(tmp_path, tmp_path / "x.png")


def test_vanilla_alone_can_be_drawn(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    assert plots.tradeoff(tmp_path, tmp_path / "x.png").exists()
    assert plots.tokens_per_layer(tmp_path, tmp_path / "y.png").exists()


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
    with pytest.raises(ValueError, match="holds no validation yet"):
        learning(tmp_path / "none.csv", tmp_path / "none.svg")
