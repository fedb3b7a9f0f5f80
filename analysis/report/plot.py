"""SVG plot of accuracy against executed tokens at the top of the page.

Knows nothing about runs: it draws the points of :mod:`analysis.figures.points`.
"""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

from markupsafe import Markup, escape

from analysis.figures.labels import spread
from analysis.figures.palette import look_of
from analysis.figures.points import Point
from analysis.report.marks import outline

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 52, 180, 14, 44  # pixels; RIGHT is for names
MIN_HEIGHT, LINE_HEIGHT = 240, 15  # pixels, of the panel and of a name
MARGIN = 0.35  # left and right of the points, in powers of two
MARK = 5.0  # size of a mark


class PlotPanel:
    """Coordinates of numbers of tokens and scores in the plot."""

    def __init__(self, x: Sequence[float], y: Sequence[float], height: float) -> None:
        self.most, self.fewest = log2(max(x)) + MARGIN, log2(min(x)) - MARGIN
        margin = 0.06 * (max(y) - min(y)) or 1.0
        self.high, self.low, self.height = max(y) + margin, min(y) - margin, height
        self.end = WIDTH - RIGHT

    def x(self, tokens: float) -> float:
        """Pixels from the left; fewer tokens are further right."""
        share = (self.most - log2(tokens)) / (self.most - self.fewest)
        return LEFT + share * (self.end - LEFT)

    def y(self, score: float) -> float:
        """Pixels from the top."""
        return TOP + (self.high - score) / (self.high - self.low) * self.height


def plot(lines: Mapping[str, Sequence[Point]], metric: str, title: str) -> Markup:
    """Draw one panel as an SVG.

    Args:
        lines: Runs of each method, sorted by cost.
        metric: Name of the score.
        title: Description for screen readers.
    """
    methods = {name: line for name, line in sorted(lines.items()) if name != "vanilla"}
    vanilla = lines.get("vanilla", ())
    all_points = [point for line in lines.values() for point in line]
    drawn = [point for line in methods.values() for point in line] or list(vanilla)
    ends = [value for point in all_points for value in (point.low, point.y, point.high)]
    height = max(MIN_HEIGHT, LINE_HEIGHT * (len(methods) + 1))
    panel = PlotPanel([p.x for p in drawn], [value for value in ends if value == value], height)
    parts = [
        _axes(panel, drawn, metric, all_points),
        *(_vanilla(panel, point) for point in vanilla),
    ]
    parts += [_line(panel, name, line) for name, line in methods.items()]
    labels = [
        (panel.y(end.y), panel.x(end.x), name)
        for name, line in methods.items()
        for end in [next((point for point in line if point.has_budget), line[0])]
    ]
    labels += [(panel.y(point.y), panel.end, "vanilla") for point in vanilla[:1]]
    parts.append(_names(panel, sorted(labels)))
    size = f"0 0 {WIDTH} {TOP + height + BOTTOM:.0f}"
    return _tag("svg", {"viewBox": size, "role": "img", "aria-label": title}, *parts)


def _axes(
    panel: PlotPanel, points: Sequence[Point], metric: str, all_points: Sequence[Point]
) -> Markup:
    """Grid, ticks and labels of both axes."""
    bottom, parts = TOP + panel.height, []
    for tick in _heights(panel.low, panel.high):
        y = f"{panel.y(tick):.1f}"
        ends = {"x1": str(LEFT), "x2": f"{panel.end}", "y1": y, "y2": y, "class": "grid"}
        parts.append(_tag("line", ends))
        at = {"x": str(LEFT - 8), "y": y, "text-anchor": "end", "dy": "0.35em"}
        parts.append(_tag("text", at, f"{tick:g}"))
    for tick in _tokens(points):
        x = f"{panel.x(tick):.1f}"
        at = {"x1": x, "x2": x, "y1": f"{bottom:.1f}", "y2": f"{bottom + 4:.1f}", "class": "tick"}
        parts.append(_tag("line", at))
        at = {"x": x, "y": f"{bottom + 17:.1f}", "text-anchor": "middle"}
        parts.append(_tag("text", at, f"{tick:.0f}"))
    middle = {"x": f"{(LEFT + panel.end) / 2:.1f}", "y": f"{bottom + 36:.1f}"}
    words = "vision tokens per layer, executed average (fewer →)"
    parts.append(_tag("text", {**middle, "text-anchor": "middle"}, words))
    share = all(point.y <= 100 for point in all_points)
    turned = f"translate(12 {TOP + panel.height / 2:.1f}) rotate(-90)"
    words = f"{metric}, %" if share else metric
    parts.append(_tag("text", {"transform": turned, "text-anchor": "middle"}, words))
    return Markup("").join(parts)


def _vanilla(panel: PlotPanel, point: Point) -> Markup:
    """Horizontal line at the score of vanilla, with the band of its interval."""
    y, (high, low) = panel.y(point.y), (panel.y(point.high), panel.y(point.low))
    across = {"x": str(LEFT), "width": str(panel.end - LEFT)}
    line = {"x1": str(LEFT), "x2": str(panel.end), "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
    band = Markup("")
    if low == low:
        vertical = {"y": f"{high:.1f}", "height": f"{max(low - high, 0):.1f}", "class": "band"}
        band = _tag("rect", {**across, **vertical})
    tooltip = _tag("title", {}, f"vanilla: {_score_text(point)}")
    return band + _tag("line", {**line, "stroke": look_of("vanilla").color}, tooltip)


def _line(panel: PlotPanel, name: str, line: Sequence[Point]) -> Markup:
    """Marks of one method; runs with a budget are joined, other runs are pale."""
    look, parts = look_of(name), []
    budgeted = [point for point in line if point.has_budget]
    if len(budgeted) > 1 and len({point.x for point in budgeted}) == len(budgeted):
        path = " ".join(f"{panel.x(p.x):.1f},{panel.y(p.y):.1f}" for p in budgeted)
        broken = {"stroke-dasharray": "5 4"} if look.grey or "," in name else {}
        parts.append(_tag("polyline", {"points": path, "stroke": look.color, **broken}))
    for point in line:
        x, pale = f"{panel.x(point.x):.1f}", not point.has_budget and bool(budgeted)
        if point.low == point.low and not pale:
            ends = {"y1": f"{panel.y(point.high):.1f}", "y2": f"{panel.y(point.low):.1f}"}
            bar = {"x1": x, "x2": x, "class": "bar", "stroke": look.color}
            parts.append(_tag("line", {**bar, **ends}))
        mark = {
            "d": outline(look.marker), "class": "mark pale" if pale else "mark",
            "transform": f"translate({x} {panel.y(point.y):.1f}) scale({MARK:g})",
            "fill": look.color if point.met else "#ffffff", "stroke": look.color,
            "data-method": name, "data-tokens": f"{point.x:.10g}",
        }  # fmt: skip
        text = f"{name}: {_score_text(point)}, {point.x:.1f} tokens"
        text += "" if point.met else ", more than 1 % off its budget"
        parts.append(_tag("path", mark, _tag("title", {}, text)))
    return Markup("").join(parts)


def _names(panel: PlotPanel, labels: Sequence[tuple[float, float, str]]) -> Markup:
    """Names of the methods right of the panel, each joined to the last point of its line."""
    heights = spread([y for y, _, _ in labels], LINE_HEIGHT)
    lowest = TOP + panel.height
    moved = max(0.0, TOP + 4 - heights[0]) - max(0.0, heights[-1] - lowest) if heights else 0.0
    parts = []
    for (y, x, name), free in zip(labels, heights, strict=True):
        at, color = free + moved, look_of(name).color
        away = f"{x + 8:.1f},{y:.1f} {panel.end + 12:.1f},{at:.1f}"
        parts.append(_tag("polyline", {"points": away, "stroke": color, "class": "lead"}))
        position = {"x": f"{panel.end + 16:.1f}", "y": f"{at:.1f}", "dy": "0.35em", "class": "name"}
        parts.append(_tag("text", position, name))
    return Markup("").join(parts)


def _score_text(point: Point) -> str:
    """Score with its interval."""
    interval = f" [{point.low:.1f}, {point.high:.1f}]" if point.low == point.low else ""
    return f"{point.y:.1f}{interval}"


def _heights(low: float, high: float) -> list[float]:
    """About six round scores between two scores."""
    rough = (high - low) / 6
    power = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 0.1
    step = next((s * power for s in (1, 2, 5) if s * power >= rough), 10 * power)
    first = -(-low // step)
    return [round(step * (first + n), 6) for n in range(int((high - step * first) // step) + 1)]


def _tokens(points: Sequence[Point]) -> list[float]:
    """Round token counts in the range of the points, with room between their labels."""
    low, high = (end(point.x for point in points) for end in (min, max))
    ticks: list[float] = []
    for tick in (192, 128, 64, 576, 288, 320, 96, 48, 32, 16, 640, 1152, 2304, high, low):
        inside = low / 1.15 <= tick <= high * 1.15
        if inside and all(abs(log2(tick / other)) > 0.3 for other in ticks):
            ticks.append(float(tick))
    return ticks


def _tag(name: str, attributes: Mapping[str, Any], *children: Any) -> Markup:
    """SVG element with escaped attributes and children."""
    attribute_text = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{attribute_text}>{inside}</{name}>")
