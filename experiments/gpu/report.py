"""The table of a record: measurements, errors, and steps that were not reached."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.gpu.environment import describe
from experiments.gpu.runner import rows_of

Record = Mapping[str, Any]
GIB = 2**30
DEFINITIONS = {
    "encoder_ms": "from pixels on the device to the language model's input, projector included",
    "prefill_ms": "decoder layers and last norm, with a method's decisions and its cache cut",
    "total_ms": "from pixels and ids on the device to the first token, or to the last one of an "
    "answer; preparing picture and text is left out, and so is attaching, once for many prompts",
    "reference": "the model's own blocks and layers on sequences cut to the arm's executed "
    "lengths, without hooks, scores and selection; an answer is a bare loop without generate()",
    "batch": "the prompts of a timed batch have one length, one picture and equal counts; batches "
    "whose prompts keep different numbers of tokens need masks and are not timed",
    "counts": "MustDrop merges the scheduled number of windows, by a threshold chosen on the "
    "picture; its filter decides by its own thresholds, then the scheduled number of its best "
    "scores is kept instead, so that its time is an upper bound. FastV needs no such change",
    "noise": "distance of the masked model in bfloat16 from the same masked model in float32",
    "effect": "distance of the first token's logits from those of the model that drops nothing",
    "weights": "random, drawn on the device from the shapes alone",
}


def table(record: Record) -> str:
    """Format the whole table as text."""
    parts = [
        "\n".join(describe(record)), cell_table(record), *equality_tables(record),
        *waits_tables(record), *time_tables(record), *errors(record), *not_reached(record),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


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
    return f"Dropping against masking, {dtype}: relative error (noise of the masked model itself)"


def _errors(row: Record | None) -> str:
    if row is None:
        return "-"
    error = f"{float(row['error']):.1e}"
    if row["passed"] is None:
        return f"{error} ({float(row['noise']):.1e})"
    shown = f"{error} ({float(row['effect']):.1e})"
    return shown if row["passed"] else f"{shown} FAILED"


def waits_tables(record: Record) -> list[str]:
    """Tabulate the waits of a prefill, per method and batch, and the lines that cause them."""
    rows = list(rows_of(record, "waits"))
    if not rows:
        notes = [row for row in rows_of(record, "note") if row["cell"] == "device waits"]
        return [f"Device waits: {row['note']}" for row in notes]
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
                str(decisions), share,
            )
        )  # fmt: skip
        if row["method"] != "vanilla":
            for line, count in row["lines"].items():
                lines[line] = lines.get(line, 0) + count
    header = ("method", "batch", "waits", "over vanilla", "places", "each place and prompt")
    ranked = sorted(lines.items(), key=lambda item: -item[1])
    return [
        aligned("Device waits of a prefill", header, shown),
        "\n".join(["Lines that wait, all methods", *(f"{n:5}  {line}" for line, n in ranked)]),
    ]


def time_tables(record: Record) -> list[str]:
    """Tabulate medians, peak memory, and ratios within a round; one table for each cell."""
    all_rows = list(rows_of(record, "time"))
    lengths = {(row["cell"], row["arm"]): row for row in rows_of(record, "lengths")}
    tables = []
    for cell in dict.fromkeys(row["cell"] for row in all_rows):
        rows = [row for row in all_rows if row["cell"] == cell]
        arms = dict.fromkeys(row["arm"] for row in rows)
        lines = [_time_line(rows, arm, lengths.get((cell, arm))) for arm in arms]
        rounds = max(row["round"] for row in rows)
        title = f"{cell}: milliseconds (medians of up to {rounds} rounds), ratios median [min, max]"
        header = (
            "arm", "executed", "encoder", "prefill", "total", "reference", "total/reference",
            "prefill/reference", "times faster than vanilla", "peak GiB", "over weights",
        )  # fmt: skip
        tables.append(aligned(title, header, lines))
    return tables


def _time_line(rows: Sequence[Record], arm: str, lengths: Record | None) -> Sequence[str]:
    method = [row for row in rows if row["arm"] == arm and row["way"] == "method"]
    reference = [row for row in rows if row["arm"] == arm and row["way"] == "reference"]
    vanilla = [row for row in rows if row["arm"] == "vanilla" and row["way"] == "method"]
    peaks = [row for row in method if row["peak_bytes"] is not None]
    peak = max((row["peak_bytes"] for row in peaks), default=0)
    over = max((row["peak_bytes"] - row["bytes_before"] for row in peaks), default=0)
    return (
        arm, f"{lengths['executed_average']:.1f}" if lengths else "?",
        median(method, "encoder_ms"), median(method, "prefill_ms"), median(method, "total_ms"),
        median(reference, "total_ms"), ratio(method, reference, "total_ms"),
        ratio(method, reference, "prefill_ms"), ratio(vanilla, method, "total_ms"),
        f"{peak / GIB:.2f}" if peaks else "-", f"{over / GIB:.2f}" if peaks else "-",
    )  # fmt: skip


def median(rows: Sequence[Record], key: str) -> str:
    """Format the median of a time; a dash if it was not measured."""
    values = [row[key] for row in rows if key in row]
    return f"{statistics.median(values):.2f}" if values else "-"


def ratio(above: Sequence[Record], below: Sequence[Record], key: str) -> str:
    """Format the ratios within a round: median, smallest and largest."""
    under = {row["round"]: row[key] for row in below if key in row}
    values = [row[key] / under[row["round"]] for row in above if row["round"] in under]
    if not values:
        return "-"
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def errors(record: Record) -> list[str]:
    """List every error with its steps and the line of mustdrop that led to it."""
    steps: dict[tuple[str, str], list[str]] = {}
    for entry in record["cells"]:
        for error in entry.get("errors", ()):
            lines_of_ours = [
                line for line in error["where"] if line.startswith(("mustdrop/", "experiments/"))
            ]
            line = (lines_of_ours or error["where"])[-1]
            steps.setdefault((entry["cell"], f"{error['error']} ({line})"), []).append(
                error["step"]
            )
    lines = []
    for (cell, text), names in steps.items():
        more = f" and {len(names) - 1} more steps" if len(names) > 1 else ""
        lines.append(f"- {cell} · {names[0]}{more}: {text}")
    return ["\n".join(["Errors", *lines])] if lines else []


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
    """Count the steps that raised an error or missed the bar of float32."""
    raised = sum(len(entry.get("errors", ())) for entry in record["cells"])
    return raised + sum(row["passed"] is False for row in rows_of(record, "equality"))
