"""Summary of a profile for the terminal: a table per batch, and where the method pays."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mustdrop.profiling.break_even import ANSWER, AXES, BATCH, COSTS, LENGTH
from mustdrop.profiling.parts import PARTS

WIDTH = 140
MIB = 2**20
NAMES = {LENGTH: "length", BATCH: "batch", ANSWER: "answer"}
WORDS: Mapping[str, Callable[[int], str]] = {
    LENGTH: "{} vision tokens".format,
    BATCH: "batch {}".format,
    ANSWER: "{} new tokens".format,
}


def shown(record: Mapping[str, Any]) -> str:
    """Describe a finished profile."""
    text = StringIO()
    console = Console(file=text, width=WIDTH, highlight=False)
    hardware, settings = record["hardware"], record["settings"]
    console.print(
        f"{record['model']} x {record['method']} at {record['budget']} on {hardware['name']}, "
        f"{settings['dtype']}, {settings['weights']} weights, {settings['prompts']} prompts",
        markup=False,
    )
    for cell in record["cells"]:
        if "summary" not in cell:
            continue
        console.print(
            f"{cell['vision_tokens']} vision tokens{_frames(cell)}, batch {cell['batch']}, "
            f"{cell['rounds']} rounds; processor {median(cell['processor_ms']):.1f} ms; "
            f"counts: {cell['counts']}",
            markup=False,
        )
        console.print(_times(cell, settings["new_tokens"]))
        console.print(_parts(cell))
        console.print(_limits(cell), markup=False)
    for row in record["break_even"]:
        measured = ", ".join(
            f"{point['at']}: {point['ratio']:.2f} ({point['verdict']})" for point in row["points"]
        )
        fixed = ", ".join(WORDS[axis](row[axis]) for axis in AXES if axis != row["axis"])
        console.print(f"{fixed}: {_pays(row)} ({measured})", markup=False)
    console.print(record["folder"], markup=False, soft_wrap=True)
    return text.getvalue().rstrip()


def _frames(cell: Mapping[str, Any]) -> str:
    return f" of {cell['frames']} frames" if cell["frames"] else ""


def _pays(row: Mapping[str, Any]) -> str:
    if row["from"]:
        return f"pays from {WORDS[row['axis']](row['from'])} on"
    verdicts, axis = {point["verdict"] for point in row["points"]}, NAMES[row["axis"]]
    return f"costs time at every {axis}" if verdicts == {COSTS} else f"no {axis} is sure to pay"


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    return table


def _times(cell: Mapping[str, Any], new_tokens: Sequence[int]) -> Table:
    longest = max(new_tokens)
    answers = (f"ms/token ({longest})", f"answer of {longest}") if longest > 1 else ()
    table = _table(
        "arm", "executed", "first token, ms", "/ vanilla", "/ reference", *answers, "peak MiB",
        "KV MiB", "GFLOPs",
    )  # fmt: skip
    for name, summary in cell["summary"].items():
        facts, ratios = cell["arms"][name]["facts"], summary["ratios"]
        times = [f"tpot_{longest}_ms", f"e2e_{longest}_ms"] if answers else []
        table.add_row(
            name, f"{facts['executed_average']:.1f}", _median(summary.get("ttft_ms")),
            _ratio(ratios.get("ttft_ms/vanilla")), _ratio(ratios.get("ttft_ms/reference")),
            *(_median(summary.get(key)) for key in times),
            _size(summary.get("peak_bytes", {}).get("median")),
            _size(facts.get("kv_bytes")),
            f"{facts['flops'] / 1e9:.2f}",
        )  # fmt: skip
    return table


def _parts(cell: Mapping[str, Any]) -> Table:
    """Median milliseconds of the parts of the time to the first token."""
    table = _table("part, ms", *PARTS, "all decisions")
    for name, summary in cell["summary"].items():
        cells = [_median(summary.get(f"part_{part}_ms")) for part in PARTS]
        table.add_row(name, *cells, _median(summary.get("decisions_ms")))
    return table


def _limits(cell: Mapping[str, Any]) -> str:
    """Say how near the plain model comes to the measured rates of the device."""
    rates = cell["summary"]["vanilla"]["reached"]
    text = f"vanilla reaches {rates['flops_share']:.0%} of the rate of a matrix product"
    if "bytes_share" in rates:
        text += f", and while decoding {rates['bytes_share']:.0%} of the rate of a copy"
    return text


def _median(summary: Mapping[str, Any] | None) -> str:
    return f"{summary['median']:.2f}" if summary else ""


def _ratio(summary: Mapping[str, Any] | None) -> str:
    if not summary:
        return ""
    interval = "" if summary["low"] is None else f" [{summary['low']:.2f}, {summary['high']:.2f}]"
    return f"{summary['median']:.2f}{interval}"


def _size(count: float | None) -> str:
    return "" if count is None else f"{count / MIB:.1f}"
