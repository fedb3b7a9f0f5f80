"""Which places of the picture live how long: position bias of a method, over traced samples.

The probability that some token carries a patch into a layer, by grid position, and its means over
rows and columns. A method that reads the last token's attention tends to keep the bottom of the
picture (FEATHER, arXiv:2412.13180). Knows nothing about models.
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


def lives(samples: Sequence[Traced]) -> Float[np.ndarray, "samples layers rows columns"]:
    """Whether each patch of the first image is alive at the input of each layer.

    Raises:
        ValueError: If there is no sample, or their grids or depths differ.
    """
    if not samples:
        raise ValueError("no traced sample to count")
    each = [
        np.stack([alive(one.trace, layer) for layer in range(one.trace.ledger.depth)])
        for one in samples
    ]
    if len({array.shape for array in each}) != 1:
        raise ValueError(f"grids differ between samples: {sorted({a.shape[1:] for a in each})}")
    return np.stack(each).astype(float)


@styled
def draw(arms: Sequence[Sequence[Traced]]) -> Figure:
    """A row for each arm: maps at some layers, then the means over rows and over columns.

    Args:
        arms: The traced samples of each run.

    Raises:
        ValueError: See :func:`lives`.
    """
    found = [lives(samples) for samples in arms]
    figure = sheet(DOUBLE, len(arms) * 1.12 + 0.6)
    axes = figure.subplots(
        len(arms), MAPS + 2, squeeze=False, width_ratios=[*[1.0] * MAPS, 1.0, 1.35]
    )
    norm = PowerNorm(0.5, 0.0, 1.0)
    for row, samples, patches in zip(axes, arms, found, strict=True):
        rates = patches.mean(0)
        layers = _chosen(rates.mean((1, 2)))
        for place, layer in zip(row, layers, strict=False):
            place.imshow(rates[layer], cmap=HEAT, norm=norm, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
            place.set_title(f"layer {layer}: {100 * rates[layer].mean():.3g} %")
        for place in row[len(layers) : MAPS]:
            place.set_visible(False)
        row[0].set_ylabel(f"{samples[0].arm}\nn = {len(samples)}")
        last = patches[:, -1]
        colour = look(samples[0].cell["method"])["color"]
        _marginal(row[MAPS], last.mean(2), colour, upright=True)
        _marginal(row[MAPS + 1], last.mean(1), colour, upright=False)
    top = 105 * max(patches[:, -1].mean(0).mean(axis).max() for patches in found for axis in (0, 1))
    for row in axes:
        row[MAPS].set_xlim(0, max(top, 1.0))
        row[MAPS + 1].set_ylim(0, max(top, 1.0))
    axes[0, MAPS].set_title("by row, last layer, %")
    axes[0, MAPS + 1].set_title("by column, last layer, %")
    shades = figure.colorbar(
        axes[0, 0].images[0], ax=axes[:, :MAPS], orientation="horizontal", aspect=40, fraction=0.05
    )
    shades.set_ticks([0, 0.04, 0.25, 0.5, 1], labels=["0", "4", "25", "50", "100"])
    shades.ax.tick_params(labelsize=SMALL, length=2)
    shades.set_label("patches alive, % of samples (square-root scale)", size=SMALL)
    return figure


def _chosen(rates: Float[np.ndarray, " layers"]) -> list[int]:
    """The first layer, the last, and between them the one with the most patches gone before it."""
    last = len(rates) - 1
    falls = -np.diff(rates)
    between = int(falls[:-1].argmax()) + 1 if last > 1 else last
    return sorted({0, between, last})


def _marginal(
    place: Axes, shares: Float[np.ndarray, "samples cells"], colour: str, upright: bool
) -> None:
    """Mean over samples with its 95 % interval (Student's), by row (downward) or by column."""
    cells = np.arange(shares.shape[1])
    count, mean = len(shares), 100 * shares.mean(0)
    reach = np.zeros_like(mean)
    if count > 1:
        reach = 100 * stats.t.ppf(0.975, count - 1) * shares.std(0, ddof=1) / np.sqrt(count)
    low, high = (mean - reach).clip(0), (mean + reach).clip(max=100)
    if upright:
        place.fill_betweenx(cells, low, high, color=colour, alpha=0.18, lw=0)
        place.plot(mean, cells, color=colour)
        place.axvline(mean.mean(), color=GREY, lw=0.7, ls=":")
        place.set(ylim=(len(cells) - 0.5, -0.5), yticks=[0, len(cells) - 1])
        place.set_yticklabels(["top", "bottom"])
    else:
        place.fill_between(cells, low, high, color=colour, alpha=0.18, lw=0)
        place.plot(cells, mean, color=colour)
        place.axhline(mean.mean(), color=GREY, lw=0.7, ls=":")
        place.set(xlim=(-0.5, len(cells) - 0.5), xticks=[0, len(cells) - 1])
        place.set_xticklabels(["left", "right"])
