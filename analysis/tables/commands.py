"""Command lines that fill missing cells, as few as possible.

They call ``mustdrop run`` and ``mustdrop calibrate``. Knows nothing about results.
"""

from collections.abc import Iterable, Mapping, Sequence

from analysis.tables.layouts import threshold, typed_budget, uncalibrated
from mustdrop.presets.folders import preset_file

Cell = tuple[str, str, str]  # method, budget, benchmark


def command(
    experiment: str, model: str, cells: Iterable[Cell], limits: Mapping[str, int | None]
) -> list[str]:
    """Commands that run these cells; each covers a product of methods, budgets and benchmarks.

    Args:
        experiment: Name of the preset.
        model: Model of all cells.
        cells: Missing cells.
        limits: Sample limit of the other runs of each benchmark.
    """
    lines = []
    for methods, budgets, benchmarks in products(cells):
        chosen = [
            f"model={model}",
            f"method={','.join(methods)}",
            f"budget={','.join(map(typed_budget, budgets))}",
            f"benchmark={','.join(benchmarks)}",
        ]
        run = [f"mustdrop run -m experiment={experiment}", *chosen]
        limit = limits.get(benchmarks[0])
        lines.append(" ".join([*run, *([f"benchmark.limit={limit}"] if limit else [])]))
    return lines


def calibration(model: str, cells: Iterable[Cell]) -> list[str]:
    """Commands that calibrate the thresholds of these cells, if their methods have any.

    The inputs are those of the presets of the paper's tables: the authors', if the model has any.
    """
    inputs = (
        " inputs=authors" if preset_file("inputs", "authors", f"{model}.yaml").is_file() else ""
    )
    by_threshold: dict[tuple[str, str | None], list[Cell]] = {}
    for method, budget, benchmark in cells:
        searched = threshold(method)
        if searched is not None and budget != "none" and benchmark not in uncalibrated():
            by_threshold.setdefault(searched, []).append((method, budget, benchmark))
    return [
        f"mustdrop calibrate -m model={model}{inputs} method={','.join(methods)} "
        f"budget={','.join(map(typed_budget, budgets))} benchmark={','.join(benchmarks)} "
        f"calibration.field={field}" + (f" {fixed}" if fixed else "")
        for (field, fixed), wanted in by_threshold.items()
        for methods, budgets, benchmarks in products(wanted)
    ]


def uncalibrated_notes(cells: Iterable[Cell]) -> list[str]:
    """Notes about cells that need a threshold but whose benchmark has no calibration split."""
    fields: dict[str, dict[str, None]] = {}
    for method, budget, benchmark in cells:
        searched = threshold(method)
        if searched is not None and budget != "none" and benchmark in uncalibrated():
            fields.setdefault(benchmark, {})[f"{searched[0]} ({method})"] = None
    return [
        f"{benchmark} has no calibration split: add to its command calibrate_with=<benchmark>, or "
        f"another benchmark's {', '.join(names)}."
        for benchmark, names in fields.items()
    ]


def products(cells: Iterable[Cell]) -> list[tuple[Sequence[str], Sequence[str], Sequence[str]]]:
    """Split cells into products of (methods, budgets, benchmarks) that cover each cell once."""
    rows: dict[tuple[str, str], dict[str, None]] = {}
    for method, budget, benchmark in cells:
        rows.setdefault((method, budget), {})[benchmark] = None
    by_method: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, budget), benchmarks in rows.items():
        by_method.setdefault((method, tuple(benchmarks)), []).append(budget)
    by_product: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (method, benchmarks), budgets in by_method.items():
        by_product.setdefault((tuple(budgets), benchmarks), []).append(method)
    return [(methods, budgets, benchmarks) for (budgets, benchmarks), methods in by_product.items()]
