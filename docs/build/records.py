"""Tables and single values of the records under experiments/records, as markdown.

Every table names its record file. Knows nothing about models and methods.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

RECORDS = Path(__file__).parents[2] / "experiments" / "records"
Row = dict[str, object]


def read(name: str) -> pd.DataFrame:
    """Rows of a record; method and budget are text also where they look like numbers."""
    return pd.read_csv(RECORDS / f"{name}.csv", keep_default_na=False, na_values=[""])


def percent(row: Row, name: str = "accuracy", low: str = "low", high: str = "high") -> str:
    """A share of the row in per cent, with its interval."""
    if missing(row, name):
        return "–"
    return interval(*(f"{100 * row[column]:.1f}" for column in (name, low, high)))


def points(row: Row, name: str) -> str:
    """A difference of the row in points, with its interval."""
    if missing(row, name):
        return "–"
    columns = (name, f"{name}_low", f"{name}_high")
    return interval(*(f"{100 * row[column]:+.1f}" for column in columns))


def interval(value: str, low: str, high: str) -> str:
    """A value with its interval; no line breaks inside."""
    return f"{value} [{low}, {high}]".replace(" ", "&nbsp;")


def number(row: Row, name: str, form: str = ".1f", factor: float = 1.0) -> str:
    """A number of the row."""
    return "–" if missing(row, name) else format(factor * row[name], form)


def text(row: Row, name: str) -> str:
    """A text of the row, safe inside a table."""
    return "–" if missing(row, name) else str(row[name]).replace("|", "\\|")


def missing(row: Row, name: str) -> bool:
    """Whether the row has no such value."""
    return name not in row or pd.isna(row[name])


Column = tuple[str, Callable[[Row], str]]


def column(title: str, function: Callable[..., str], *args: object) -> Column:
    """A column of a table: its title, and the function of a row that gives its text."""
    return title, lambda row: function(row, *args)


METHOD, BUDGET = column("method", text, "method"), column("budget", text, "budget")
VARIANT = column("variant", text, "variant")
ACCURACY = column("exact match, %", percent)
EXECUTED = column("executed average", number, "executed_average")
RANDOM = column("Δ random, points", points, "vs_random")
SCHEDULE = column("Δ schedule, points", points, "vs_schedule")
FLOPS = column("FLOPs", number, "flops_ratio", ".3f")
TABLES: dict[str, list[Column]] = {
    "demo": [
        METHOD, BUDGET, ACCURACY, RANDOM, SCHEDULE,
        column("target recall, %", number, "target_recall", ".1f", 100.0),
        column("nominal", number, "nominal"), column("paper average", number, "paper_average"),
        EXECUTED, column("resident", number, "resident"), FLOPS,
        column("KV cache, kB", number, "kv_bytes", ".0f", 1e-3),
    ],
    "standard": [
        METHOD, BUDGET, ACCURACY, EXECUTED, SCHEDULE, RANDOM,
        column("Δ even grid, points", points, "vs_grid"),
    ],
    "images": [METHOD, column("image", text, "image"), ACCURACY, EXECUTED, RANDOM],
    "presets": [
        column("experiment", text, "experiment"), METHOD, BUDGET, VARIANT, ACCURACY, EXECUTED,
    ],
    "pareto": [METHOD, VARIANT, column("n", number, "n", ".0f"), ACCURACY, EXECUTED, FLOPS],
    "separation": [
        METHOD, BUDGET, VARIANT, column("image", text, "image"), ACCURACY, EXECUTED,
        column("target recall, %", number, "target_recall", ".1f", 100.0),
    ],
    "separation_bars": [
        column("bar", text, "name"), column("required", text, "asked"),
        column("measured, % or points", percent, "value"), column("reached", text, "reached"),
    ],
    "smol": [
        METHOD, BUDGET, column("image", text, "image"), column("items, %", percent), EXECUTED,
        RANDOM, SCHEDULE,
    ],
    "claims": [
        column("claim", text, "says"), column("verdict", text, "verdict"),
        column("difference, points", lambda row: _claim(row)),
        column("Holm's p", lambda row: _p_value(row)), column("n", number, "n", ".0f"),
    ],
}  # fmt: skip
# Records of PocketSmol have the columns of PocketLLaVA's.
TABLES |= {
    "smol_bars": TABLES["separation_bars"], "smol_claims": TABLES["claims"],
    "smol_positions": [entry for entry in TABLES["presets"] if entry[0] != "experiment"],
}  # fmt: skip


def table(name: str, *filters: str) -> str:
    """Markdown table of a record.

    Args:
        name: Name of the record. ``rivals`` and ``smol`` have one column per budget if there is no
            filter, ``smol_types`` one per type of question; ``bench`` is a json file.
        filters: Conditions such as ``experiment=table3`` or ``method=random|fastv``.
    """
    if name == "bench":
        return _bench()
    rows = read(name)
    for condition in filters:
        key, _, wanted = condition.partition("=")
        rows = rows[rows[key].astype(str).isin(wanted.split("|"))]
    if name == "smol_types":
        return _by_type(rows) + _source(name, rows)
    if name in ("rivals", "smol") and not filters:
        rows = rows[rows.benchmark == "pocket_vqa"]
        return _by_budget(rows) + _source(name, rows)
    if name == "pareto":
        rows = rows.sort_values("executed_average", kind="stable")
    columns = [item for item in TABLES[name] if filters == () or item[0] != "experiment"]
    return _markdown(columns, rows.to_dict("records")) + _source(name, rows)


def value(name: str, method: str, budget: str, field: str = "accuracy") -> str:
    """Value of one run of a record, in per cent or as a number, without its interval."""
    rows = read(name)
    rows = rows[(rows.method == method) & (rows.budget == budget) & rows.variant.isna()]
    (row,) = rows[rows.image.isna()].to_dict("records")
    return number(row, field, ".1f", 100.0 if field in ("accuracy", "target_recall") else 1.0)


def _markdown(columns: list[Column], rows: list[Row]) -> str:
    # A column that is empty in every row is left out.
    cells = [[function(row) for row in rows] for _, function in columns]
    used = [index for index, column in enumerate(cells) if set(column) != {"–"}]
    titles = [columns[index][0] for index in used]
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in used) + " |"]
    for position in range(len(rows)):
        lines.append("| " + " | ".join(cells[index][position] for index in used) + " |")
    return "\n".join(lines)


def _source(name: str, rows: pd.DataFrame) -> str:
    """Line below a table: its record, and the setups in which the rows were measured."""
    line = f"\n\nRecord: `experiments/records/{name}.csv`, {len(rows)} rows"
    if "n" in rows and rows.n.nunique() == 1:
        line += f", {rows.n.iloc[0]:.0f} questions each"
    if "setup" in rows:
        setups = set(rows.setup.dropna().str.partition(" · ")[2])
        # a floor names versions and no hardware
        versions = {setup.rpartition(" · ")[0] for setup in setups}
        line += "; " + "; ".join(sorted(setups - versions))
    return line + "."


def _by_budget(rows: pd.DataFrame) -> str:
    """One row per method, one column per budget: accuracy, gain over random on its schedule."""
    rows = rows[rows.variant.isna() & (rows.budget != "none")]
    budgets = sorted(rows.budget.unique(), key=lambda budget: -float(budget[1:]))
    cells = {(row["method"], row["budget"]): row for row in rows.to_dict("records")}
    # methods that ran at every budget first
    order = rows.groupby("method").accuracy.agg(["size", "mean"])
    order = order.sort_values(["size", "mean"], ascending=False, kind="stable")
    lines = ["| method | " + " | ".join(budgets) + " |", "| --- " * (len(budgets) + 1) + "|"]
    for method in order.index:
        parts = [_cell(cells.get((method, budget))) for budget in budgets]
        lines.append(f"| {method} | " + " | ".join(parts) + " |")
    return "\n".join(lines)


def _by_type(rows: pd.DataFrame) -> str:
    """One row per run, one column per type of question; without intervals."""
    names = ["method", "budget", "image", "variant"]
    rows = rows.assign(**rows[names].fillna("–"), score=100 * rows.accuracy)
    rows = rows.pivot(index=[*names, "n"], columns="type", values="score")
    rows = rows.assign(mean=rows.mean(axis=1)).sort_values("mean", ascending=False, kind="stable")
    columns = [column(title, text, title) for title in (*names, "n")]
    columns += [column(title, number, title) for title in rows.columns]
    return _markdown(columns, rows.reset_index().to_dict("records"))


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    if not missing(row, "floor"):
        return f"floor {row['floor']:g}"
    gain = "" if missing(row, "vs_schedule") else f"; {points(row, 'vs_schedule')}"
    off = abs(row["executed_average"] / float(str(row["budget"])[1:]) - 1) > 0.01
    return percent(row) + gain + (f" ({row['executed_average']:.0f})" if off else "")


def _claim(row: Row) -> str:
    if missing(row, "difference"):
        return text(row, "reason")
    return interval(*(f"{row[column]:+.1f}" for column in ("difference", "low", "high")))


def _p_value(row: Row) -> str:
    return number(row, "p_holm", ".3f").replace("0.000", "< 0.001")


def _bench() -> str:
    record = json.loads((RECORDS / "bench.json").read_text(encoding="utf-8"))
    lines = [
        "| shapes of | case | median | quartiles | rounds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        quartiles = f"{row['q1']:.3f}, {row['q3']:.3f}"
        cells = [row["shape"], row["case"], f"{row['median']:.3f}", quartiles, str(row["rounds"])]
        lines.append(f"| {' | '.join(cells)} |")
    harness = json.loads((RECORDS / "harness.json").read_text(encoding="utf-8"))
    wall = harness["wall"]
    return "\n".join(lines) + (
        f"\n\nRecord: `experiments/records/bench.json`; torch {record['torch']}, transformers "
        f"{record['transformers']}, {record['threads']} thread, {record['cpu']}.\n\n"
        "`mustdrop run` over a bare loop of `generate` on the same prepared inputs: "
        f"{wall['median']:.3f} (quartiles {wall['q1']:.3f} to {wall['q3']:.3f}), "
        f"{harness['questions']} questions, batches of {harness['batch_size']}, one model thread "
        f"and {harness['workers']} worker process. Record: `experiments/records/harness.json`."
    )
