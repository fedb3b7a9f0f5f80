"""Summary table: one row per finished run, with intervals and differences to controls.

Knows nothing about models: a table depends only on the records and their samples.
"""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.cells import CONTROL_NAMES, COUNTS, RunResult, agree, groups, load, load_runs
from analysis.records.judgements import by_judge
from analysis.records.variants import alike
from analysis.statistics.intervals import Interval, mean_interval, paired_interval
from mustdrop.runs.folder import RECALL, shared_machine

CONTROLS = ("vanilla", "random")
ENDS = ("", "_low", "_high", "_n")


def summary(root: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Table with one row per finished run in a folder, vanilla first, then by budget and method.

    accuracy, low, high, interval: Mean of ``metric``, ends of its 95 % interval, and the method of
        the interval (see :mod:`analysis.statistics.intervals`).
    vs_vanilla, vs_random (_low, _high, _n): Difference of means over the n samples that both runs
        answered, with a paired interval. Random tokens are dropped before the language model. The
        control pass on the run's own batches is used, which has each sample's executed average
        even if the budget was missed. Without it, the separate random runs with the same image are
        used whose executed average is within 1 % of the run's, with any budget name (if several,
        those with the run's budget name). Seeds are first averaged sample by sample; if the random
        runs differ in more than the seed, none is used.
    vs_schedule (_low, _high, _n): The same against the control pass with random tokens, as many in
        each layer as in the run. vs_grid, if present: against an even grid at the input, with as
        many tokens as each sample's executed average.
    nominal, paper_average, executed_average, resident: The four counts, means over samples.
    matched: Whether the executed average is within 1 % of the budget.
    target_recall_input, target_recall: Share of the patches that the question is about and that the
        tokens carry at the language model's input, and in its last layer, if they are known.
    unjudged: Number of samples without a verdict, which ``accuracy`` leaves out; only with a
        judge's score as the metric.
    calibrated_on: Benchmark on whose prompts the thresholds were searched, if it is another one.
    floor: Smallest executed average that the method can reach, if the budget is below it: a number
        of tokens, or a share ("9.1%") where prompts differ in size. Such a run has no accuracy.
    seconds, setup: Median over the samples, which can be compared only within one setup.
    shared_machine: Whether the machine was shared during the run, so that its seconds cannot be
        compared; None if unknown.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; also if runs disagree about a sample.
    """
    return summary_of_cells(load(root, metric))


def summary_of_cells(cells: Sequence[RunResult]) -> pd.DataFrame:
    """Summary of runs that are already loaded, as :func:`summary`; without unused grid columns."""
    rows = []
    for members in groups(cells).values():
        rows += [_row(cell, members) for cell in members]
    grids = any(row["vs_grid_n"] for row in rows)
    unused = [] if grids else [f"vs_grid{end}" for end in ENDS]
    return pd.DataFrame(rows).drop(columns=unused, errors="ignore")


def summary_of(folders: Sequence[Path], metric: str | None = None) -> pd.DataFrame:
    """Summary of the finished runs among these folders; empty if none is finished.

    Raises:
        ValueError: See :func:`summary`.
    """
    return summary_of_cells(load_runs(folders, metric))


def by_type(root: Path | str, metric: str | None = None) -> pd.DataFrame:
    """Accuracy by question type: one row per finished run and type.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; also if no sample has a type.
    """
    frame = by_type_of_cells(load(root, metric))
    if frame.empty:
        raise ValueError(f"no sample under {root} has a question type")
    return frame


def by_type_of_cells(cells: Sequence[RunResult]) -> pd.DataFrame:
    """Accuracy by question type of loaded runs; empty if no sample has a type."""
    rows = []
    for cell in cells:
        if cell.metric is None:
            continue
        for kind, samples in cell.samples.groupby("type", sort=True):
            interval = mean_interval(samples["score"], samples["image"])
            rows.append({**run_names(cell), "type": str(kind), **_accuracy(cell, interval)})
    return pd.DataFrame(rows)


def run_names(cell: RunResult) -> dict[str, Any]:
    """Names of a run, as the first columns of a table."""
    names = ("experiment", "model", "benchmark", "method", "preset", "budget")
    return {
        **{name: cell[name] for name in names},
        "image": cell.image or "",
        "variant": cell.variant,
    }


def _accuracy(cell: RunResult, interval: Interval) -> dict[str, Any]:
    return {
        "n": interval.n,
        "metric": cell.metric,
        "accuracy": interval.value,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
    }


def _row(cell: RunResult, members: Sequence[RunResult]) -> dict[str, Any]:
    """Row of one run, compared with the controls among the members of its group."""
    record = cell.record
    scored = (cell.samples["score"], cell.samples["image"]) if cell.metric else ((), ())
    row = {**run_names(cell), "floor": nan if record["floor"] is None else record["floor"]}
    row |= _accuracy(cell, mean_interval(*scored))
    for name, interval in control_differences(cell, members).items():
        row |= ends(f"vs_{name}", interval)
    counts = record["counts"] or {}
    row |= {name: _number(counts.get(name)) for name in COUNTS}
    row |= {name: _number(record.get(name)) for name in RECALL}
    ran = cell.metric is not None
    if ran and by_judge(str(cell.metric)):
        row["unjudged"] = record["n"] - len(cell.samples)
    return row | {
        "calibrated_on": cell.calibrated_on,
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


def ends(name: str, interval: Interval) -> dict[str, Any]:
    """Columns of an interval: value, ends and number of samples."""
    values = interval.value, interval.low, interval.high, interval.n
    return {f"{name}{end}": value for end, value in zip(ENDS, values, strict=True)}


def control_differences(cell: RunResult, members: Sequence[RunResult]) -> dict[str, Interval]:
    """Difference of a run to each control, as the columns ``vs_`` of :func:`summary`.

    Args:
        cell: Run; the differences are over its samples.
        members: Runs of its group.
    """
    differences = {
        name: arm_difference(cell, control_runs(cell, members, name)) for name in CONTROLS
    }
    controls = {name: _control_difference(cell, name) for name in CONTROL_NAMES.values()}
    flat = controls.pop("flat")
    return differences | controls | ({"random": flat} if flat.n else {})


def control_runs(cell: RunResult, members: Sequence[RunResult], control: str) -> list[RunResult]:
    """Separate runs of a control to compare a run with: the seeds of one setting, or none."""
    # The value of an image is measured against vanilla on the unchanged image, the value of a
    # selection against random on the same image.
    image = cell.image if control == "random" else None
    if cell.metric is None or (cell["method"] == control and cell.image == image):
        return []
    matches = [
        other
        for other in members
        if other["method"] == control
        and other.image == image
        and other.metric == cell.metric
        and other["config"]["model"] == cell["config"]["model"]
        and (control == "vanilla" or agree(other.executed, cell.executed))
    ]
    same_budget = [other for other in matches if other["budget"] == cell["budget"]]
    arms = same_budget or matches
    same_setting = all(alike(arms[0]["config"], arm["config"], but=("seed",)) for arm in arms)
    return arms if same_setting else []


def _control_difference(cell: RunResult, name: str) -> Interval:
    """Difference to a control pass of the run, over the samples that both answered."""
    if cell.metric is None:
        return Interval(nan, nan, nan, "none", 0)
    both = cell.samples[cell.samples[name].notna()]
    return paired_interval(both["score"], both[name], both["image"])


def arm_difference(cell: RunResult, arms: Sequence[RunResult]) -> Interval:
    """Difference to the mean of the arms, over the samples that all answered; NaN without arms.

    Raises:
        ValueError: If a sample has another question or target in one of the arms.
    """
    if not arms:
        return Interval(nan, nan, nan, "none", 0)
    shared = cell.samples.index
    for arm in arms:
        shared = shared.intersection(arm.samples.index)
    for arm in arms:
        for field in ("question", "target"):
            ours, theirs = (run.samples.loc[shared, field].astype(str) for run in (cell, arm))
            if (ours != theirs).any():
                task, doc = shared[(ours != theirs).to_numpy()][0]
                raise ValueError(
                    f"{cell['method']} and {arm['method']} disagree about the {field} of sample "
                    f"{doc} of {task}: they were not run on the same data"
                )
    theirs = sum(arm.samples.loc[shared, "score"].to_numpy() for arm in arms) / len(arms)
    samples = cell.samples.loc[shared]
    return paired_interval(samples["score"], theirs, samples["image"])
