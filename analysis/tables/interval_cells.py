"""Text of a table's cells with an interval. Knows nothing about runs."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from analysis.tables.sheets import span


def points_cell(row: Mapping[Any, Any], name: str, sign: str = "") -> str:
    """Share as percent, or difference in points, with its interval; a dash for NaN.

    Args:
        row: Row with the columns ``name``, ``name_low`` and ``name_high``.
        name: Name of the column.
        sign: ``+`` for a difference.
    """
    if isnan(row[name]):
        return "–"
    low, high = 100 * row[f"{name}_low"], 100 * row[f"{name}_high"]
    return span(100 * row[name], low, high, sign)


def percent(share: float) -> str:
    """Share as percent; a dash for NaN."""
    return "–" if isnan(share) else f"{100 * share:.1f}"
