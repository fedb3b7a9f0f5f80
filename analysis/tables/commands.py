"""The command lines that fill missing cells, as few as say it.

They are of ``experiments/run.py`` and ``experiments/calibrate.py``. Knows nothing about results.
"""

from collections.abc import Iterable, Mapping, Sequence

from analysis.tables.layouts import threshold, uncalibrated

Cell = tuple[str, str, str]  # method, budget, benchmark


def command(
    table: str, model: str, cells: Iterable[Cell], limits: Mapping[str, int | None]
) -> list[str]:
    """What to type for these cells of one model, each a product of methods, budgets, benchmarks.

    Args:
        table: The experiment.
        model: Of all the cells.
        cells: Those that are missing.
        limits: By benchmark, the samples that its other runs were limited to.
    """
    lines = []
    for methods, budgets, benchmarks in products(cells):
        chosen = [f"model={model}"]
        for name, values in (("method", methods), ("budget", budgets), ("benchmark", benchmarks)):
            chosen.append(f"{name}={','.join(values)}")
        run = [f"python experiments/run.py -m experiment={table}", *chosen]
        limit = limits.get(benchmarks[0])
        lines.append(" ".join([*run, *([f"benchmark.limit={limit}"] if limit else [])]))
    return lines


def calibration(model: str, cells: Iterable[Cell]) -> list[str]:
    """What finds the thresholds of these cells, for those whose method has one."""
    asked: dict[tuple[str, str | None], list[Cell]] = {}
    for method, budget, benchmark in cells:
        found = threshold(method)
        if found is not None and budget != "none" and benchmark not in uncalibrated():
            asked.setdefault(found, []).append((method, budget, benchmark))
    return [
        f"python experiments/calibrate.py -m model={model} method={','.join(methods)} "
        f"budget={','.join(budgets)} benchmark={','.join(benchmarks)} calibration.field={field}"
        + (f" {fixed}" if fixed else "")
        for (field, fixed), wanted in asked.items()
        for methods, budgets, benchmarks in products(wanted)
    ]


def borrowed(cells: Iterable[Cell]) -> list[str]:
    """What must be said of cells whose benchmark has no split to choose thresholds on."""
    found: dict[str, dict[str, None]] = {}
    for method, budget, benchmark in cells:
        told = threshold(method)
        if told is not None and budget != "none" and benchmark in uncalibrated():
            found.setdefault(benchmark, {})[f"{told[0]} ({method})"] = None
    return [
        f"{benchmark} has no calibration split: give another benchmark's {', '.join(fields)} with "
        "its command."
        for benchmark, fields in found.items()
    ]


def products(cells: Iterable[Cell]) -> list[tuple[Sequence[str], Sequence[str], Sequence[str]]]:
    """Cells as products that hold each of them once and no other: benchmarks, budgets, methods."""
    rows: dict[tuple[str, str], dict[str, None]] = {}
    for method, budget, benchmark in cells:
        rows.setdefault((method, budget), {})[benchmark] = None
    by_method: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, budget), benchmarks in rows.items():
        by_method.setdefault((method, tuple(benchmarks)), []).append(budget)
    made: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (method, benchmarks), budgets in by_method.items():
        made.setdefault((tuple(budgets), benchmarks), []).append(method)
    return [(methods, budgets, benchmarks) for (budgets, benchmarks), methods in made.items()]
