"""Ablations beside one another: rows of an experiment, each with its paired difference to one.

Which row that is stands in ``analysis/reference/tables.yaml``. Knows nothing about how a table
looks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.records.cells import RunResult, agree
from analysis.records.variants import variants
from analysis.tables.grid import measured
from analysis.tables.layouts import layouts, read
from analysis.tables.paper import difference
from analysis.tables.sheets import Sheet, span
from analysis.tables.summary import against

Asked = Mapping[str, Any]


def ablations(cells: Sequence[RunResult]) -> pd.DataFrame:
    """A row per run of the ablations: what was changed, its score, its difference to the reference.

    Columns: experiment, title, model, benchmark, method, budget, changed, reference (whether it is
    the one), n, metric, accuracy, low, high (on the papers' scale), executed_average, matched,
    difference, difference_low, difference_high (points), difference_n. An experiment that has no
    run has one row with n = 0 and the command that fills it in ``command``.
    """
    rows = []
    for asked in read()["ablations"]:
        own = _own(asked, [cell for cell in cells if cell.image is None and cell.metric])
        if not own:
            rows.append({**_named(asked), "n": 0, "command": _command(asked["experiment"])})
        groups: dict[tuple, list[RunResult]] = {}
        for cell in own:
            key = (cell["model"], cell["benchmark"], *(cell[name] for name in asked["per"]))
            groups.setdefault(key, []).append(cell)
        for group in groups.values():
            rows += _group(asked, group)
    return pd.DataFrame(rows)


def _own(asked: Asked, cells: Sequence[RunResult]) -> list[RunResult]:
    """The runs of an experiment; where it has none, its methods in the one that has most of them.

    A method that several runs stand for is left out then: none of them is chosen; and one that
    stands alone tells of no ablation.
    """
    own = [cell for cell in cells if cell["experiment"] == asked["experiment"]]
    if own or "methods" not in asked:
        return own
    found: dict[tuple, dict[tuple, dict[str, RunResult]]] = {}
    for cell in cells:
        if cell["method"] in asked["methods"] and cell["budget"] in asked["budgets"]:
            place = tuple(cell[name] for name in ("model", "benchmark", "budget"))
            arm = cell["experiment"], cell["method"]
            found.setdefault(place, {}).setdefault(arm, {})[cell["key"]] = cell
    out = []
    for arms in found.values():
        alone = {arm: next(iter(same.values())) for arm, same in arms.items() if len(same) == 1}
        most = Counter(experiment for experiment, _ in alone).most_common(1)
        if most and most[0][1] > 1:
            out += [cell for (name, _), cell in alone.items() if name == most[0][0]]
    return out


def _named(asked: Asked) -> dict[str, Any]:
    return {"experiment": asked["experiment"], "title": asked["title"]}


def _command(experiment: str) -> str:
    told = f"python experiments/run.py -m experiment={experiment}"
    if experiment in layouts():
        told += " model=pocket benchmark=pocket_vqa benchmark.limit=320"
    return told


def _group(asked: Asked, group: Sequence[RunResult]) -> list[dict[str, Any]]:
    """The reference first, then the others by how much they change."""
    references = [cell for cell in group if _is(cell, asked["reference"])]
    reference = references[0] if len(references) == 1 else None
    changes = {id(cell): _changed(reference, cell) for cell in group}
    order = sorted(
        group,
        key=lambda cell: (cell is not reference, len(changes[id(cell)].split(", ")), cell["key"]),
    )
    rows, above = [], reference
    for cell in order:
        metric, scale, score = measured(cell)
        told = changes[id(cell)]
        if asked.get("chain") and above is not None and cell is not reference:
            told = f"and {_changed(above, cell)}"
        found = against(cell, [] if reference in (None, cell) else [reference])
        scale_of_samples = 100.0 if cell.samples["score"].between(0, 1).all() else 1.0
        rows.append(
            {
                **_named(asked),
                **{name: cell[name] for name in ("model", "benchmark", "method", "budget")},
                "changed": told,
                "reference": cell is reference,
                "n": score.n,
                "metric": metric,
                "accuracy": score.value * scale,
                "low": score.low * scale,
                "high": score.high * scale,
                "executed_average": cell.executed,
                "matched": agree(cell.executed, cell.budget) if cell.budget else None,
                "difference": found.value * scale_of_samples,
                "difference_low": found.low * scale_of_samples,
                "difference_high": found.high * scale_of_samples,
                "difference_n": found.n,
                "said": difference(found, scale_of_samples),
                "command": "",
            }
        )
        above = cell
    return rows


def _is(cell: RunResult, wanted: Mapping[str, Any]) -> bool:
    return all(
        cell["method"] == value if path == "method" else _entry(cell["config"], path) == value
        for path, value in wanted.items()
    )


def _entry(config: Mapping[str, Any], path: str) -> Any:
    """An entry of a config by its dotted path; None where a stage is not chosen."""
    value: Any = config
    for name in path.split("."):
        value = value[name] if isinstance(value, Mapping) and name in value else None
    return value


def _changed(reference: RunResult | None, cell: RunResult) -> str:
    if reference is None or reference is cell or reference["method"] != cell["method"]:
        return ""
    return variants([reference["config"], cell["config"]])[1]


def ablation_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """A table an experiment and model."""
    sheets = []
    rows = frame.to_dict("records")
    for experiment, title in dict.fromkeys((row["experiment"], row["title"]) for row in rows):
        own = [row for row in rows if row["experiment"] == experiment]
        ran = [row for row in own if row["n"]]
        if not ran:
            line = own[0]["command"]
            notes = ("Nothing of it is under the given folders; this fills it:", line)
            sheets.append(Sheet(f"{experiment} · {title}", ("method",), (), frozenset(), notes))
            continue
        shared = [n for n in ("model", "benchmark") if len({row[n] for row in ran}) == 1]
        names = [n for n in ("model", "benchmark", "method", "budget") if n not in shared]
        told = any(row["changed"] for row in ran)
        keys = [tuple(row[name] for name in ("model", "benchmark", "budget")) for row in ran]
        sheets.append(
            Sheet(
                title=" · ".join(
                    [experiment, title, *(ran[0][name] for name in shared), f"n = {_sizes(ran)}"]
                ),
                heads=(
                    *names,
                    *(["variant"] if told else []),
                    "score [95 %]",
                    "executed average",
                    "Δ reference [95 %]",
                ),
                rows=tuple(
                    (
                        *(row[name] for name in names),
                        *([row["changed"] or "reference"] if told else []),
                        span(row["accuracy"], row["low"], row["high"]),
                        f"{row['executed_average']:.1f}" + "≠" * (row["matched"] is False),
                        "reference" if row["reference"] else row["said"],
                    )
                    for row in ran
                ),
                breaks=frozenset(p for p in range(1, len(ran)) if keys[p] != keys[p - 1]),
                notes=(
                    "Δ: points, on the same samples, 95 % interval of the pairs (Newcombe for 0 "
                    "and 1, else t; by image where samples share one; from exact counts of "
                    "images where fewer than five differ), each by itself, not adjusted for "
                    "their number.",
                ),
            )
        )
    return sheets


def _sizes(rows: Sequence[Mapping[Any, Any]]) -> str:
    sizes = sorted({row["n"] for row in rows})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
