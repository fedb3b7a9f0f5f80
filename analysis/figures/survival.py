"""Survival of patches by position in the picture: position bias of a method over traced samples.

Shows the probability that a token carries a patch into a layer, by grid position, and its means
over rows and columns. A method that reads the attention of the last token tends to keep the bottom
of the picture (FEATHER, arXiv:2412.13180). Knows nothing about models.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy import stats

from analysis.figures.style import DOUBLE, GREY, HEAT, SMALL, look, sheet, styled
from analysis.figures.traced import Traced, alive

MAPS = 3
ROWS, COLUMNS = ("top", "bottom"), ("left", "right")  # ends of the axes of a picture


def lives(samples: Sequence[Traced]) -> Float[np.ndarray, "samples layers rows columns"]:
    """Whether each patch of the first image is alive at the input of each layer.

    Raises:
        ValueError: If there is no sample, or the grids or depths of the samples differ.
    """
    if not samples:
        raise ValueError("no traced sample to count")
    masks = [
        np.stack([alive(sample.trace, layer) for layer in range(sample.trace.ledger.depth)])
        for sample in samples
    ]
    if len({mask.shape for mask in masks}) != 1:
        raise ValueError(f"grids differ between samples: {sorted({m.shape[1:] for m in masks})}")
    return np.stack(masks).astype(float)


@styled
def draw(arms: Sequence[Sequence[Traced]]) -> Figure:
    """Draw one row per arm: maps at some layers, then the means over rows and over columns.

    Args:
        arms: Traced samples of each run.

    Raises:
        ValueError: See :func:`lives`.
    """
    masks = [lives(samples) for samples in arms]
    figure = sheet(DOUBLE, len(arms) * 1.12 + 0.6)
    axes = figure.subplots(
        len(arms), MAPS + 2, squeeze=False, width_ratios=[*[1.0] * MAPS, 1.0, 1.35]
    )
    norm = PowerNorm(0.5, 0.0, 1.0)
    for row, samples, patches in zip(axes, arms, masks, strict=True):
        rates = patches.mean(0)
        layers = _chosen(rates.mean((1, 2)))
        for ax, layer in zip(row, layers, strict=False):
            ax.imshow(rates[layer], cmap=HEAT, norm=norm, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_title(f"layer {layer}: {100 * rates[layer].mean():.3g} %")
        for ax in row[len(layers) : MAPS]:
            ax.set_visible(False)
        row[0].set_ylabel(f"{samples[0].arm}\nn = {len(samples)}")
        last = patches[:, -1]
        colour = look(samples[0].cell["method"])["color"]
        marginal(row[MAPS], last.mean(2), colour, ROWS, upright=True)
        marginal(row[MAPS + 1], last.mean(1), colour, COLUMNS)
    top = 105 * max(patches[:, -1].mean(0).mean(axis).max() for patches in masks for axis in (0, 1))
    for row in axes:
        row[MAPS].set_xlim(0, max(top, 1.0))
        row[MAPS + 1].set_ylim(0, max(top, 1.0))
    axes[0, MAPS].set_title("by row, last layer, %")
    axes[0, MAPS + 1].set_title("by column, last layer, %")
    shade_bar(figure, axes[:, :MAPS], "patches alive, % of samples (square-root scale)")
    return figure


def shade_bar(figure: Figure, axes: np.ndarray, label: str) -> None:
    """Draw the scale of shares below axes, of which the first holds a picture of shares."""
    shades = figure.colorbar(
        axes.flat[0].images[0], ax=axes, orientation="horizontal", aspect=40, fraction=0.05
    )
    shades.set_ticks([0, 0.04, 0.25, 0.5, 1], labels=["0", "4", "25", "50", "100"])
    shades.ax.tick_params(labelsize=SMALL, length=2)
    shades.set_label(label, size=SMALL)


def _chosen(rates: Float[np.ndarray, " layers"]) -> list[int]:
    """First layer, last layer, and the layer between with the largest drop before it."""
    last = len(rates) - 1
    falls = -np.diff(rates)
    between = int(falls[:-1].argmax()) + 1 if last > 1 else last
    return sorted({0, between, last})


def marginal(
    ax: Axes,
    shares: Float[np.ndarray, "samples cells"],
    colour: str,
    ends: tuple[str, str],
    upright: bool = False,
) -> None:
    """Draw the mean over samples with its 95 % Student interval, along an axis of the picture.

    Args:
        ax: Axes to draw in.
        shares: Share of each sample at each position of the axis.
        colour: Colour of the line.
        ends: Names of the first and the last position.
        upright: Whether the axis of the picture is drawn from top to bottom.
    """
    cells = np.arange(shares.shape[1])
    count, mean = len(shares), 100 * shares.mean(0)
    margin = np.zeros_like(mean)
    if count > 1:
        margin = 100 * stats.t.ppf(0.975, count - 1) * shares.std(0, ddof=1) / np.sqrt(count)
    low, high = (mean - margin).clip(0), (mean + margin).clip(max=100)
    if upright:
        ax.fill_betweenx(cells, low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(mean, cells, color=colour)
        ax.axvline(mean.mean(), color=GREY, lw=0.7, ls=":")
        ax.set(ylim=(len(cells) - 0.5, -0.5), yticks=[0, len(cells) - 1])
        ax.set_yticklabels(ends)
    else:
        ax.fill_between(cells, low, high, color=colour, alpha=0.18, lw=0)
        ax.plot(cells, mean, color=colour)
        ax.axhline(mean.mean(), color=GREY, lw=0.7, ls=":")
        ax.set(xlim=(-0.5, len(cells) - 0.5), xticks=[0, len(cells) - 1])
        ax.set_xticklabels(ends)
