"""Text tables with aligned columns, medians and ratios. Knows nothing about what is measured."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
GIB = 2**30


def aligned(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align columns: the first on the left, the others on the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([title, *shown])


def median(rows: Sequence[Record], key: str) -> str:
    """Format the median of a number; a dash if it was not measured."""
    values = [row[key] for row in rows if key in row]
    return f"{statistics.median(values):.2f}" if values else "-"


def ratio(above: Sequence[Record], below: Sequence[Record], key: str) -> str:
    """Format the ratios within a round: median, smallest and largest."""
    under = {row["round"]: row[key] for row in below if key in row}
    values = [row[key] / under[row["round"]] for row in above if row["round"] in under]
    if not values:
        return "-"
    middle = f"{statistics.median(values):.3f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.3f}, {max(values):.3f}]"


def gibibytes(rows: Sequence[Record], key: str) -> str:
    """Format the largest number of bytes; a dash if it was not measured."""
    values = [row[key] for row in rows if key in row]
    return f"{max(values) / GIB:.2f}" if values else "-"
