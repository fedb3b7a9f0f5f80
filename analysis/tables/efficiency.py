"""Table of profiles: time to the first token and its parts, answers, memory, operations.

The text of the cells follows from the frame of :mod:`analysis.records.profiles` alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import isnan
from typing import Any

import pandas as pd

from analysis.records.profiles import PARTS
from analysis.tables.notes import SHARED, UNKNOWN
from analysis.tables.sheets import Sheet, number, quantity, span

Row = Mapping[Any, Any]
GROUP = ("model", "device", "dtype", "vision_tokens", "batch")
REFERENCE = "reference"


def efficiency_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """Sheets of the whole times, and of the parts of the time to the first token."""
    ordered = frame.sort_values([*GROUP, "budget", "method"], kind="stable")
    rows: list[Row] = list(ordered.to_dict("records"))
    return [_whole(rows), _parts(rows)]


def _whole(rows: Sequence[Row]) -> Sheet:
    longest = sorted({row["new_tokens"] for row in rows})
    answer = "/".join(map(str, longest))
    heads = (
        *_names(rows), "executed average", "first token, ms", "/ vanilla", "/ reference",
        "ms per token", f"answer of {answer}, ms", "answer / vanilla", "prompts per s", "peak",
        "KV cache", "FLOPs", "FLOPs, formula",
    )  # fmt: skip
    body = []
    for row in rows:
        mark = {True: SHARED, False: "", None: UNKNOWN}[row["shared_machine"]]
        body.append(
            (
                *_named(row, rows), number(row["executed_average"], ".1f"),
                f"{_span(row, 'ttft_ms')}{mark}", _span(row, "vs_vanilla", 2),
                _span(row, "vs_reference", 2), number(row["tpot_ms"], ".2f"),
                number(row["e2e_ms"], ".1f"), _span(row, "e2e_vs_vanilla", 2),
                number(row["prompts_per_second"], ".3g"), quantity(row["peak_bytes"], "B"),
                quantity(row["kv_bytes"], "B"), quantity(row["flops"]),
                quantity(row["flops_formula"]),
            )
        )  # fmt: skip
    return Sheet("Efficiency", heads, tuple(body), _breaks(rows), tuple(_notes(rows)))


def _parts(rows: Sequence[Row]) -> Sheet:
    heads = (*_names(rows), *(f"{part}, ms" for part in PARTS), "decisions, ms")
    body = tuple(
        (
            *_named(row, rows),
            *(number(row[f"part_{part}_ms"], ".2f") for part in PARTS),
            number(row["decisions_ms"], ".2f"),
        )
        for row in rows
    )
    notes = (
        "encoder and layers: the model's own work. vision, key_tokens, prefill: decisions of the "
        "stages. entry: emptied slots leave the prompt. cache: deferred checks, and the cut of the "
        "KV cache. The parts are medians, so their sum is near the time to the first token.",
    )
    return Sheet("Parts of the time to the first token", heads, body, _breaks(rows), notes)


def _names(rows: Sequence[Row]) -> list[str]:
    """Heads of the columns that name a row; a device and dtype that all rows share go to a note."""
    varied = [name for name in ("device", "dtype") if len({row[name] for row in rows}) > 1]
    return ["model", *varied, "vision tokens", "batch", "method", "budget", "arm"]


def _named(row: Row, rows: Sequence[Row]) -> list[str]:
    return [str(row[name.replace(" ", "_")]) for name in _names(rows)]


def _span(row: Row, name: str, digits: int = 1) -> str:
    """Median with its interval; a dash where it was not measured."""
    if isnan(row[name]):
        return "–"
    return span(row[name], row[f"{name}_low"], row[f"{name}_high"], "", digits)


def _breaks(rows: Sequence[Row]) -> frozenset[int]:
    keys = [[row[name] for name in (*GROUP, "method", "budget")] for row in rows]
    return frozenset(index for index, (a, b) in enumerate(pairwise(keys), 1) if a != b)


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "Medians of rounds with the 95 % interval between order statistics, which needs six "
        "rounds. Ratios are of times within a round."
    )
    yield (
        "reference: the model's own layers on sequences cut to the method's lengths, without "
        "scores, selection and hooks. random: random tokens with the method's counts."
    )
    yield (
        "first token: from pixels and ids on the device; the processor's time is not in it. FLOPs: "
        "by torch's counter; formula: by mustdrop.cost, three matrices, scoring and head included."
    )
    for device in sorted({row["device"] for row in rows}):
        here = [row for row in rows if row["device"] == device]
        dtypes = ", ".join(sorted({row["dtype"] for row in here}))
        weights = ", ".join(sorted({row["weights"] for row in here}))
        yield f"{device}: {dtypes}; weights: {weights}."
    yield "peak: bytes of torch's allocator on a GPU, the resident set of the process on a CPU."
    extrapolated = [row for row in rows if not isnan(row["full_ttft_ms"])]
    for row in extrapolated:
        yield (
            f"{row['model']}, {row['arm']}, batch {row['batch']}: a model of reduced depth was "
            f"measured; extrapolated to all layers, the first token takes "
            f"{row['full_ttft_ms']:.0f} ms."
        )
    states = {row["shared_machine"] for row in rows}
    if True in states:
        yield f"{SHARED}: the profile got less than 90 % of the CPU that it could use."
    if None in states:
        yield f"{UNKNOWN}: it is unknown whether other work ran on the machine."
