"""The table of a record: measurements, errors, and steps that were not reached."""

from collections.abc import Sequence

from experiments.gpu.environment import describe
from experiments.gpu.runner import rows_of
from experiments.gpu.text_table import Record, aligned
from experiments.gpu.time_tables import time_tables

DEFINITIONS = {
    "arm": "method and budget: 192/576 is the share of the vision tokens that 192 are of "
    "LLaVA-1.5's 576, executed on average over the layers",
    "first token": "from pixels and ids on the device to the choice of the first token; preparing "
    "picture and text is left out, and so is attaching, once for many prompts",
    "parts": "encoder, layers and head are the model's own work; vision, key_tokens and prefill "
    "are decisions; entry: checks and emptied slots; cache: deferred checks and the cut of the KV "
    "cache; they sum to the first token",
    "reference": "the model's own blocks and layers on sequences cut to the arm's executed "
    "lengths, without hooks, scores and selection; an answer is a bare loop without generate()",
    "batch": "the prompts of a timed batch are equal; batches whose prompts keep different numbers "
    "of tokens need masks and are not timed",
    "counts": "MustDrop merges the scheduled number of windows, by a threshold chosen on the "
    "picture; its filter decides by its own thresholds, then the scheduled number of its best "
    "scores is kept instead, so that its time is an upper bound. SparseVLM keeps fixed counts. The "
    "counts of the other methods follow from the budget in closed form",
    "waits": "the bar is the plain model's waits, one for each place where the method decides, and "
    "a few for reading: ids, key-token counts, pixels of a random draw, checks at the end",
    "noise": "distance of the masked model in bfloat16 from the same masked model in float32; the "
    "bar in bfloat16 is four times the noise",
    "effect": "distance of the first token's logits from those of the model that drops nothing",
    "weights": "random, drawn on the device from the shapes alone",
}


def table(record: Record) -> str:
    """Format the whole table as text."""
    parts = [
        "\n".join(describe(record)), cell_table(record), *equality_tables(record),
        *kernel_line(record), *waits_tables(record), *time_tables(record), *errors(record),
        *not_here(record), *not_reached(record),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def cell_table(record: Record) -> str:
    """Tabulate the state of each cell."""
    rows = [
        (
            entry["cell"], entry["state"],
            f"{len(entry.get('rows', ()))}/{entry.get('steps', '?')}",
            str(len(entry.get("errors", ()))), f"{entry.get('seconds', 0):.1f}",
        )
        for entry in record["cells"]
    ]  # fmt: skip
    limit, used = record["options"]["limit"], record.get("seconds")
    ended = f"{used:.0f} s used" if used is not None else "the run did not end"
    title = f"Cells in their order of priority, time limit {limit:g} s, {ended}"
    return aligned(title, ("cell", "state", "steps", "errors", "s"), rows)


def equality_tables(record: Record) -> list[str]:
    """Tabulate the largest relative error of a logit, per method; one table for each dtype."""
    all_rows = list(rows_of(record, "equality"))
    tables = []
    for dtype in dict.fromkeys(row["dtype"] for row in all_rows):
        rows = [row for row in all_rows if row["dtype"] == dtype]
        columns = list(dict.fromkeys((row["attention"], row["batch"]) for row in rows))
        by_key = {(row["method"], row["attention"], row["batch"]): row for row in rows}
        lines = [
            [method, *(_errors(by_key.get((method, *column))) for column in columns)]
            for method in dict.fromkeys(row["method"] for row in rows)
        ]
        header = ["method", *(f"{attention}, {batch}" for attention, batch in columns)]
        tables.append(aligned(_equality_title(dtype, rows), header, lines))
    return tables


def _equality_title(dtype: str, rows: Sequence[Record]) -> str:
    if dtype == "float32":
        bar = rows[0]["bar"]
        return (
            f"Dropping against masking, float32, TF32 off: relative error, bar {bar:.0e} "
            "(effect of dropping at all)"
        )
    return (
        f"Dropping against masking, {dtype}: relative error, bar four times the noise "
        "(noise of the masked model itself)"
    )


def _errors(row: Record | None) -> str:
    if row is None:
        return "-"
    context = row["noise"] if "noise" in row else row["effect"]
    shown = f"{float(row['error']):.1e} ({float(context):.1e})"
    return shown if row["passed"] else f"{shown} FAILED"


def kernel_line(record: Record) -> list[str]:
    """Name the attention kernels that ran for each attention of the checks."""
    kernels: dict[str, set[str]] = {}
    for row in rows_of(record, "equality"):
        key = f"{row['dtype']}, {row['attention']}, {row['batch']}"
        kernels.setdefault(key, set()).update(row["kernels"] or ["none of torch's"])
    lines = [f"- {key}: {', '.join(sorted(names))}" for key, names in kernels.items()]
    return ["\n".join(["Attention kernels of the checks", *lines])] if lines else []


def waits_tables(record: Record) -> list[str]:
    """Tabulate the waits of a prefill, per method and batch, and the lines that cause them."""
    rows = list(rows_of(record, "waits"))
    if not rows:
        return []
    plain = {row["batch"]: row["waits"] for row in rows if row["method"] == "vanilla"}
    lines: dict[str, int] = {}
    shown = []
    for row in rows:
        batch, decisions = row["batch"], row["places"]
        extra = row["waits"] - plain[batch] if batch in plain else None
        share = "" if extra is None or not decisions else f"{extra / decisions / batch:.2f}"
        shown.append(
            (
                row["method"], str(batch), str(row["waits"]), "?" if extra is None else str(extra),
                str(decisions), share, str(row["bar"]), "" if row["passed"] else "FAILED",
            )
        )  # fmt: skip
        if row["method"] != "vanilla":
            for line, count in row["lines"].items():
                lines[line] = lines.get(line, 0) + count
    header = (
        "method",
        "batch",
        "waits",
        "over vanilla",
        "places",
        "each place and prompt",
        "bar",
        "",
    )
    ranked = sorted(lines.items(), key=lambda item: -item[1])
    lines_shown = [f"{number:5}  {line}" for line, number in ranked]
    note = " (on a CPU nothing waits)" if record["options"]["device"] == "cpu" else ""
    return [
        aligned(f"Device waits of a prefill{note}", header, shown),
        *(["\n".join(["Lines that wait, all methods", *lines_shown])] if ranked else []),
    ]


def errors(record: Record) -> list[str]:
    """List every error with its steps and the line of mustdrop that led to it."""
    steps: dict[tuple[str, str], list[str]] = {}
    for entry in record["cells"]:
        for error in entry.get("errors", ()):
            lines_of_ours = [
                line for line in error["where"] if line.startswith(("mustdrop/", "experiments/"))
            ]
            line = "".join(f" ({line})" for line in (lines_of_ours or error["where"])[-1:])
            steps.setdefault((entry["cell"], f"{error['error']}{line}"), []).append(error["step"])
    lines = []
    for (cell, text), names in steps.items():
        more = f" and {len(names) - 1} more steps" if len(names) > 1 else ""
        lines.append(f"- {cell} · {names[0]}{more}: {text}")
    return ["\n".join(["Errors", *lines])] if lines else []


def not_here(record: Record) -> list[str]:
    """List what this machine cannot measure, with the reason."""
    lines = [
        f"- {entry['cell']}: {reason['reason']}"
        for entry in record["cells"]
        for reason in entry.get("not_here", ())
    ]
    return ["\n".join(["Not possible here", *lines])] if lines else []


def not_reached(record: Record) -> list[str]:
    """List the cells and steps that the time limit or the end of the process left out."""
    lines = []
    for entry in record["cells"]:
        steps = entry.get("not_reached", [])
        if entry["state"] == "not reached":
            lines.append(f"- {entry['cell']}: not started")
        elif steps:
            more = f" and {len(steps) - 3} more" if len(steps) > 3 else ""
            lines.append(f"- {entry['cell']}: {'; '.join(steps[:3])}{more}")
    return ["\n".join(["Not reached", *(lines or ["- nothing: every step was reached"])])]


def failures(record: Record) -> int:
    """Count the steps that raised an error or missed their bar."""
    raised = sum(len(entry.get("errors", ())) for entry in record["cells"])
    checked = (*rows_of(record, "equality"), *rows_of(record, "waits"))
    return raised + sum(not row["passed"] for row in checked)
