"""Summary of a profile for the terminal: a table per batch, and where the method pays."""

from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mustdrop.profiling.break_even import COSTS
from mustdrop.profiling.parts import PARTS

WIDTH = 140
MIB = 2**20


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
            f"{cell['vision_tokens']} vision tokens, batch {cell['batch']}, {cell['rounds']} "
            f"rounds; processor {median(cell['processor_ms']):.1f} ms; counts: {cell['counts']}",
            markup=False,
        )
        console.print(_times(cell, settings["new_tokens"]))
        console.print(_parts(cell))
        console.print(_limits(cell), markup=False)
    for row in record["break_even"]:
        where = _pays(row)
        measured = ", ".join(
            f"{point['vision_tokens']}: {point['ratio']:.2f} ({point['verdict']})"
            for point in row["points"]
        )
        console.print(
            f"batch {row['batch']}, {row['new_tokens']} new tokens: {where} ({measured})",
            markup=False,
        )
    console.print(record["folder"], markup=False, soft_wrap=True)
    return text.getvalue().rstrip()


def _pays(row: Mapping[str, Any]) -> str:
    if row["from_tokens"]:
        return f"pays from {row['from_tokens']} vision tokens on"
    verdicts = {point["verdict"] for point in row["points"]}
    return "costs time at every length" if verdicts == {COSTS} else "no length is sure to pay"


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
            _size(summary.get("peak_bytes", {}).get("median")), _size(facts.get("kv_bytes")),
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
