"""The result table: a row a finished cell, every number with its interval, controls beside each.

Knows nothing about models: a table is a function of the records and their samples.
"""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.cells import CONTROL_NAMES, COUNTS, RunResult, agree, groups, load, load_runs
from analysis.records.variants import alike
from analysis.statistics.intervals import Interval, mean_interval, paired_interval
from mustdrop.runs.folder import RECALL, shared_machine

CONTROLS = ("vanilla", "random")
ENDS = ("", "_low", "_high", "_n")


def summary(root: Path | str, metric: str | None = None) -> pd.DataFrame:
    """One row per finished cell under a results folder, vanilla first, then by budget and method.

    accuracy, low, high, interval: Mean of ``metric``, the ends of its 95 % interval, how they were
        found (see :mod:`analysis.statistics.intervals`).
    vs_vanilla, vs_random (_low, _high, _n): Difference of means over the n samples that both
        answered, with a paired interval. Random tokens leave before the language model: those that
        ran beside the cell, at each sample's own executed average, whether the budget was met or
        not; without such, the random arms whose executed average agrees with the cell's within
        1 %, whatever their budget was called (of several, those of its own name), and that were
        shown the same image. Seeds are averaged sample by sample first; where arms differ in more,
        none is taken.
    vs_schedule (_low, _high, _n): The same against random tokens on the cell's own schedule, which
        ran beside it: as many in every layer. vs_grid, where it ran: an even grid from the input
        on, as many tokens as each sample's executed average.
    nominal, paper_average, executed_average, resident: The four counts, means over samples.
    matched: Whether the executed average is within 1 % of the budget.
    target_recall_input, target_recall: Share of the patches asked about that the tokens carry at
        the language model's input, and in its last layer; where the benchmark knows them.
    floor: The least executed average that the method reaches, where its budget lies below; such a
        cell has no accuracy.
    seconds, setup: Median over the samples, which means something within one setup only.
    shared_machine: Whether something else ran while the cell was timed, so that its seconds compare
        with nothing; None where that is not known.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; also if two cells disagree.
    """
    return summary_of_cells(load(root, metric))


def summary_of_cells(cells: Sequence[RunResult]) -> pd.DataFrame:
    """The same of cells that are loaded already.

    Columns of controls that nobody ran are left out.
    """
    rows = []
    for members in groups(cells).values():
        rows += [_row(cell, members) for cell in members]
    grids = any(row["vs_grid_n"] for row in rows)
    unused = [] if grids else [f"vs_grid{end}" for end in ENDS]
    return pd.DataFrame(rows).drop(columns=unused, errors="ignore")


def summary_of(folders: Sequence[Path], metric: str | None = None) -> pd.DataFrame:
    """The same of these runs alone, those that are finished; empty where none is.

    Raises:
        ValueError: See :func:`summary`.
    """
    return summary_of_cells(load_runs(folders, metric))


def by_type(root: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Accuracy of every finished cell per question type: a row per cell and type.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; also if no sample has a type.
    """
    found = by_type_of_cells(load(root, metric))
    if found.empty:
        raise ValueError(f"no sample under {root} has a question type")
    return found


def by_type_of_cells(cells: Sequence[RunResult]) -> pd.DataFrame:
    """The same of cells that are loaded already; empty where no sample has a type."""
    rows = []
    for cell in cells:
        if cell.metric is None:
            continue
        for kind, samples in cell.samples.groupby("type", sort=True):
            found = mean_interval(samples["score"], samples["image"])
            rows.append({**_names(cell), "type": str(kind), **_accuracy(cell, found)})
    return pd.DataFrame(rows)


def _names(cell: RunResult) -> dict[str, Any]:
    names = ("experiment", "model", "benchmark", "method", "preset", "budget")
    return {
        **{name: cell[name] for name in names},
        "image": cell.image or "",
        "variant": cell.variant,
    }


def _accuracy(cell: RunResult, found: Interval) -> dict[str, Any]:
    return {
        "n": found.n,
        "metric": cell.metric,
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "interval": found.method,
    }


def _row(cell: RunResult, members: Sequence[RunResult]) -> dict[str, Any]:
    record = cell.record
    scored = (cell.samples["score"], cell.samples["image"]) if cell.metric else ((), ())
    row = {**_names(cell), "floor": _number(record["floor"])}
    row |= _accuracy(cell, mean_interval(*scored))
    differences = {name: against(cell, _arms(cell, members, name)) for name in CONTROLS}
    beside = {name: _beside(cell, name) for name in CONTROL_NAMES.values()}
    flat = beside.pop("flat")
    differences |= beside | ({"random": flat} if flat.n else {})
    for name, found in differences.items():
        values = found.value, found.low, found.high, found.n
        row |= {f"vs_{name}{end}": value for end, value in zip(ENDS, values, strict=True)}
    counts = record["counts"] or {}
    row |= {name: _number(counts.get(name)) for name in COUNTS}
    row |= {name: _number(record.get(name)) for name in RECALL}
    ran = cell.metric is not None
    return row | {
        "matched": agree(cell.executed, cell.budget) if ran and cell.budget else None,
        "flops_ratio": _number(record["flops_ratio"]) if ran else nan,
        "kv_bytes": _number(record["kv_bytes"]) if ran else nan,
        "kv_ratio": record["kv_bytes"] / record["vanilla_kv_bytes"] if ran else nan,
        "seconds": cell.samples["seconds"].median() if ran else nan,
        "shared_machine": shared_machine(record) if ran else None,
        "setup": cell.setup,
    }


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


def _arms(cell: RunResult, members: Sequence[RunResult], control: str) -> list[RunResult]:
    """The runs of a control that this cell may be held against: seeds of one setting, or none."""
    # what an image is worth is told against vanilla on its own, what a selection is worth against
    # random on the same image
    image = cell.image if control == "random" else None
    if cell.metric is None or (cell["method"] == control and cell.image == image):
        return []
    found = [
        other
        for other in members
        if other["method"] == control
        and other.image == image
        and other.metric == cell.metric
        and other["config"]["model"] == cell["config"]["model"]
        and (control == "vanilla" or agree(other.executed, cell.executed))
    ]
    named = [other for other in found if other["budget"] == cell["budget"]]
    arms = named or found
    one = all(alike(arms[0]["config"], arm["config"], but=("seed",)) for arm in arms)
    return arms if one else []


def _beside(cell: RunResult, name: str) -> Interval:
    """Difference to what ran beside the cell, over the samples that it answered too."""
    if cell.metric is None:
        return Interval(nan, nan, nan, "none", 0)
    both = cell.samples[cell.samples[name].notna()]
    return paired_interval(both["score"], both[name], both["image"])


def against(cell: RunResult, arms: Sequence[RunResult]) -> Interval:
    """Difference to the arms' mean over the samples that all of them answered; none without arms.

    Raises:
        ValueError: If they were not asked the same.
    """
    if not arms:
        return Interval(nan, nan, nan, "none", 0)
    shared = cell.samples.index
    for arm in arms:
        shared = shared.intersection(arm.samples.index)
    for arm in arms:
        for field in ("question", "target"):
            ours, theirs = (each.samples.loc[shared, field].astype(str) for each in (cell, arm))
            if (ours != theirs).any():
                which = shared[(ours != theirs).to_numpy()][0]
                raise ValueError(
                    f"{cell['method']} and {arm['method']} disagree about the {field} of sample "
                    f"{which[1]} of {which[0]}: they were not run on the same data"
                )
    theirs = sum(arm.samples.loc[shared, "score"].to_numpy() for arm in arms) / len(arms)
    own = cell.samples.loc[shared]
    return paired_interval(own["score"], theirs, own["image"])
