"""Tables of ablations: rows of an experiment, each with its paired difference to a reference row.

``analysis/reference/tables.yaml`` says which row is the reference. Knows nothing about the layout
of a table.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.records.cells import RunResult, agree
from analysis.records.variants import variants
from analysis.tables.grid import measured
from analysis.tables.layouts import layouts, read
from analysis.tables.notes import DIFFERENCE_TEXT
from analysis.tables.paper import difference
from analysis.tables.sheets import Sheet, span
from analysis.tables.summary import arm_difference

Ablation = Mapping[str, Any]  # an entry of the ablations in tables.yaml


def ablations(cells: Sequence[RunResult]) -> pd.DataFrame:
    """Table with one row per run of the ablations: change, score, difference to the reference.

    Columns: experiment, title, model, benchmark, method, budget, changed, reference (whether the
    row is the reference), n, metric, accuracy, low, high (on the papers' scale), executed_average,
    matched, difference, difference_low, difference_high (points), difference_n. An experiment
    without a run has one row with n = 0 and, in ``command``, the command that fills it.
    """
    rows = []
    for ablation in read()["ablations"]:
        selected = _select(ablation, [cell for cell in cells if cell.image is None and cell.metric])
        if not selected:
            rows.append({**_names(ablation), "n": 0, "command": _command(ablation["experiment"])})
        groups: dict[tuple, list[RunResult]] = {}
        for cell in selected:
            key = (cell["model"], cell["benchmark"], *(cell[name] for name in ablation["per"]))
            groups.setdefault(key, []).append(cell)
        for group in groups.values():
            rows += _group(ablation, group)
    return pd.DataFrame(rows)


def _select(ablation: Ablation, cells: Sequence[RunResult]) -> list[RunResult]:
    """Select the runs of an ablation's experiment, or its methods from another experiment.

    If the experiment has no runs, the experiment with most of the methods is used. A method with
    several runs is then left out, because the choice would be arbitrary, and so is a method without
    another one to compare with.
    """
    selected = [cell for cell in cells if cell["experiment"] == ablation["experiment"]]
    if selected or "methods" not in ablation:
        return selected
    settings: dict[tuple, dict[tuple, dict[str, RunResult]]] = {}
    for cell in cells:
        if cell["method"] in ablation["methods"] and cell["budget"] in ablation["budgets"]:
            setting = tuple(cell[name] for name in ("model", "benchmark", "budget"))
            arm = cell["experiment"], cell["method"]
            settings.setdefault(setting, {}).setdefault(arm, {})[cell["key"]] = cell
    for arms in settings.values():
        unique = {arm: next(iter(same.values())) for arm, same in arms.items() if len(same) == 1}
        most = Counter(experiment for experiment, _ in unique).most_common(1)
        if most and most[0][1] > 1:
            selected += [cell for (name, _), cell in unique.items() if name == most[0][0]]
    return selected


def _names(ablation: Ablation) -> dict[str, Any]:
    return {"experiment": ablation["experiment"], "title": ablation["title"]}


def _command(experiment: str) -> str:
    """Command that runs an ablation's experiment."""
    line = f"mustdrop run -m experiment={experiment}"
    if experiment in layouts():
        line += " model=pocket benchmark=pocket_vqa benchmark.limit=320"
    return line


def _group(ablation: Ablation, group: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Rows of comparable runs: the reference first, then the others by the number of changes."""
    references = [cell for cell in group if _matches(cell, ablation["reference"])]
    reference = references[0] if len(references) == 1 else None
    changes = {id(cell): _changed(reference, cell) for cell in group}
    order = sorted(
        group,
        key=lambda cell: (cell is not reference, len(changes[id(cell)].split(", ")), cell["key"]),
    )
    rows, previous = [], reference
    for cell in order:
        metric, scale, score = measured(cell)
        changed = changes[id(cell)]
        if ablation.get("chain") and previous is not None and cell is not reference:
            changed = f"and {_changed(previous, cell)}"
        paired = arm_difference(cell, [] if reference in (None, cell) else [reference])
        scale_of_samples = 100.0 if cell.samples["score"].between(0, 1).all() else 1.0
        rows.append(
            {
                **_names(ablation),
                **{name: cell[name] for name in ("model", "benchmark", "method", "budget")},
                "changed": changed,
                "reference": cell is reference,
                "n": score.n,
                "metric": metric,
                "accuracy": score.value * scale,
                "low": score.low * scale,
                "high": score.high * scale,
                "executed_average": cell.executed,
                "matched": agree(cell.executed, cell.budget) if cell.budget else None,
                "difference": paired.value * scale_of_samples,
                "difference_low": paired.low * scale_of_samples,
                "difference_high": paired.high * scale_of_samples,
                "difference_n": paired.n,
                "said": difference(paired, scale_of_samples),
                "command": "",
            }
        )
        previous = cell
    return rows


def _matches(cell: RunResult, wanted: Mapping[str, Any]) -> bool:
    """Whether a run has this method and these config entries, given by dotted path."""
    return all(
        cell["method"] == value if path == "method" else _entry(cell["config"], path) == value
        for path, value in wanted.items()
    )


def _entry(config: Mapping[str, Any], path: str) -> Any:
    """Config entry at a dotted path; None if a part of the path is missing."""
    value: Any = config
    for name in path.split("."):
        value = value[name] if isinstance(value, Mapping) and name in value else None
    return value


def _changed(reference: RunResult | None, cell: RunResult) -> str:
    """Config entries of a run that differ from a reference of the same method."""
    if reference is None or reference is cell or reference["method"] != cell["method"]:
        return ""
    return variants([reference["config"], cell["config"]])[1]


def ablation_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """Make one sheet per experiment."""
    sheets = []
    rows = frame.to_dict("records")
    for experiment, title in dict.fromkeys((row["experiment"], row["title"]) for row in rows):
        members = [row for row in rows if row["experiment"] == experiment]
        ran = [row for row in members if row["n"]]
        if not ran:
            line = members[0]["command"]
            notes = ("The given folders contain no run of this table. This command fills it:", line)
            sheets.append(Sheet(f"{experiment} · {title}", ("method",), (), frozenset(), notes))
            continue
        shared = [n for n in ("model", "benchmark") if len({row[n] for row in ran}) == 1]
        names = [n for n in ("model", "benchmark", "method", "budget") if n not in shared]
        has_variants = any(row["changed"] for row in ran)
        keys = [tuple(row[name] for name in ("model", "benchmark", "budget")) for row in ran]
        sheets.append(
            Sheet(
                title=" · ".join(
                    [experiment, title, *(ran[0][name] for name in shared), f"n = {_sizes(ran)}"]
                ),
                heads=(
                    *names,
                    *(["variant"] if has_variants else []),
                    "score [95 %]",
                    "executed average",
                    "Δ reference [95 %]",
                ),
                rows=tuple(
                    (
                        *(row[name] for name in names),
                        *([row["changed"] or "reference"] if has_variants else []),
                        span(row["accuracy"], row["low"], row["high"]),
                        f"{row['executed_average']:.1f}" + "≠" * (row["matched"] is False),
                        "reference" if row["reference"] else row["said"],
                    )
                    for row in ran
                ),
                breaks=frozenset(p for p in range(1, len(ran)) if keys[p] != keys[p - 1]),
                notes=(f"Δ: difference in points {DIFFERENCE_TEXT}",),
            )
        )
    return sheets


def _sizes(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Number of samples of the rows, or its range."""
    sizes = sorted({row["n"] for row in rows})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
