"""Vision tokens by decoder layer: the number that enters it and the number in its KV cache.

One panel per method, one line per budget; methods with equal lines share a panel. Knows nothing
about models.
"""

import textwrap
from collections.abc import Mapping, Sequence
from math import ceil

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import BLACK, DOUBLE, GREY, SINGLE, SMALL, rule, sheet, styled
from analysis.records.budgets import budget_label
from analysis.records.cells import RunResult

COLUMNS = 4
NAMED = 3  # methods that fit in a title
ALIKE = 2.0  # tokens: lines that differ by less in every layer count as equal
Profile = Float[np.ndarray, "lines layers"]  # see profile()


def profile(cell: RunResult) -> Profile:
    """Tokens entering each layer (mean, 10 % and 90 % quantile), and mean resident tokens."""
    entering, resident = (
        np.array(cell.samples[name].tolist(), dtype=float)
        for name in ("vision_tokens", "resident_tokens")
    )
    quantiles = np.quantile(entering, (0.1, 0.9), axis=0)
    return np.stack([entering.mean(0), *quantiles, resident.mean(0)])


def panels(cells: Sequence[RunResult]) -> list[tuple[list[str], list[tuple[RunResult, Profile]]]]:
    """Group methods by equal lines; vanilla is left out.

    Returns:
        Names of the methods of each panel, and the cells of the first one with their profiles.
    """
    methods: dict[str, list[tuple[RunResult, Profile]]] = {}
    for cell in cells:
        if cell.metric is not None and (cell["method"] != "vanilla" or cell.image):
            name = f"{cell['method']}, {cell.image} image" if cell.image else cell["method"]
            methods.setdefault(name, []).append((cell, profile(cell)))
    out: list[tuple[list[str], list[tuple[RunResult, Profile]]]] = []
    for name, lines in methods.items():
        same = next((names for names, other in out if _same(lines, other)), None)
        if same is None:
            out.append(([name], lines))
        else:
            same.append(name)
    return out


def _same(
    ours: Sequence[tuple[RunResult, Profile]], theirs: Sequence[tuple[RunResult, Profile]]
) -> bool:
    """Whether the lines of two methods agree at every budget."""
    if [cell["budget"] for cell, _ in ours] != [cell["budget"] for cell, _ in theirs]:
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(a.shape == b.shape and np.abs(a - b).max() < ALIKE for (_, a), (_, b) in pairs)


@styled
def draw(cells: Sequence[RunResult]) -> Figure:
    """Draw one panel per method of one experiment, model and benchmark.

    Raises:
        ValueError: If no run has samples.
    """
    ran = [cell for cell in cells if cell.metric is not None]
    if not ran:
        raise ValueError("no run has samples to draw")
    shown = panels(ran)
    plain = [profile(cell) for cell in ran if cell["method"] == "vanilla" and not cell.image]
    columns = min(COLUMNS, max(len(shown), 1))
    rows = max(ceil(len(shown) / columns), 1)
    wide = SINGLE if columns < 3 else DOUBLE
    figure = sheet(wide, rows * 1.28 + 0.75)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    budgets = list(dict.fromkeys(cell["budget"] for _, lines in shown for cell, _ in lines))
    colours = _shades(budgets)
    for ax, (names, lines) in zip(axes.flat, shown, strict=False):
        _panel(ax, names, lines, colours, 28 if wide == DOUBLE else 24)
    for ax in axes.flat[len(shown) or 1 :]:
        ax.set_visible(False)
    for ax in axes.flat:
        for line in plain:
            ax.plot(line[0], color=BLACK, lw=0.7, ls=":")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylim(0, None)
    for number, ax in enumerate(axes.flat):
        ax.tick_params(labelbottom=number + columns >= len(shown))
        if number + columns >= len(shown):
            ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel("vision tokens")
    first = ran[0]
    figure.suptitle(" · ".join(first.group), size=7.5, weight="bold", x=0.01, ha="left")
    figure.legend(
        handles=_legend(budgets, colours, bool(plain)), loc="outside lower center",
        ncols=3 if wide == SINGLE else 5, fontsize=SMALL, title=_shared_panels(shown) or None,
        title_fontsize=SMALL,
    )  # fmt: skip
    return figure


def _title(names: Sequence[str]) -> str:
    """Names of the methods of a panel; many methods are counted here and named below the figure."""
    return (
        " = ".join(names) if len(names) <= NAMED else f"{len(names)} methods alike: {names[0]}, …"
    )


def _shared_panels(shown: Sequence[tuple[Sequence[str], object]]) -> str:
    """Names of the methods of each panel whose title only counts them."""
    lines = [
        f"{len(names)} methods alike: {', '.join(names)}"
        for names, _ in shown
        if len(names) > NAMED
    ]
    return "\n".join(textwrap.fill(line, 110) for line in lines)


def _shades(budgets: Sequence[str]) -> Mapping[str, str]:
    """Colour of each budget, from light (first) to dark (last)."""
    heat = matplotlib.colormaps["viridis"]
    shades = [0.3] if len(budgets) == 1 else np.linspace(0.75, 0.1, len(budgets))
    return {name: to_hex(heat(shade)) for name, shade in zip(budgets, shades, strict=True)}


def _panel(
    ax: Axes,
    names: Sequence[str],
    lines: Sequence[tuple[RunResult, Profile]],
    colours: Mapping[str, str],
    letters: int,
) -> None:
    ax.set_title(textwrap.fill(_title(names), letters), size=SMALL, loc="left")
    several = len({cell["budget"] for cell, _ in lines}) < len(lines)
    for cell, (mean, low, high, resident) in lines:
        colour, layers = colours[cell["budget"]], np.arange(len(mean))
        ax.plot(layers, mean, drawstyle="steps-mid", color=colour, lw=0.8 if several else 1.3)
        if not several:
            ax.fill_between(layers, low, high, step="mid", color=colour, alpha=0.18, lw=0)
        if np.abs(mean - resident).max() >= ALIKE:
            ax.plot(layers, resident, drawstyle="steps-mid", color=colour, lw=1, ls="--")
    rule(ax)


def _legend(budgets: Sequence[str], colours: Mapping[str, str], plain: bool) -> list[Line2D]:
    entries = [
        Line2D([], [], color=colours[name], label=_budget_label(name), lw=1.6) for name in budgets
    ]
    entries.append(Line2D([], [], color=GREY, ls="--", lw=1, label="KV cache, if different"))
    if plain:
        entries.append(Line2D([], [], color=BLACK, ls=":", lw=0.7, label="vanilla"))
    return entries


def _budget_label(budget: str) -> str:
    return "no budget" if budget == "none" else f"budget {budget_label(budget)}"
