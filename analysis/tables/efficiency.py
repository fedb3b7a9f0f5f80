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
# Parts of the first token that the encoder and the decisions in it take; the others are those of
# the language model. Entry: the slots that the encoder emptied leave the prompt.
ENCODER_SIDE = ("entry", "encoder", "vision", "key_tokens")


def efficiency_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """Sheets: whole times, parts of the time to the first token, and what each side saves."""
    ordered = frame.sort_values([*GROUP, "budget", "method"], kind="stable")
    rows: list[Row] = list(ordered.to_dict("records"))
    return [_whole(rows), _parts(rows), _savings(rows)]


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


def _savings(rows: Sequence[Row]) -> Sheet:
    """Time that a method saves of the first token in the encoder and in the language model."""
    keys = [name for name in _names(rows) if name not in ("budget", "arm")]
    heads = (
        *keys, "budget", "encoder side, ms", "saved of the first token", "language model, ms",
        "saved of the first token", "encoder side of the first token",
    )  # fmt: skip
    body = []
    for plain, method in _compared(rows):
        before, after = _sides(plain), _sides(method)
        total, left = sum(before), sum(after)
        cells = [str(method[name.replace(" ", "_")]) for name in (*keys, "budget")]
        for side in (0, 1):
            cells.append(f"{before[side]:.1f} → {after[side]:.1f}")
            cells.append(number(100 * (before[side] - after[side]) / total, "+.1f", " %"))
        cells.append(f"{before[0] / total:.0%} → {after[0] / left:.0%}")
        body.append(tuple(cells))
    notes = (
        "vanilla → method. Encoder side: encoder, decisions in it, emptied slots that leave the "
        "prompt. Language model: layers, decisions between them, cache and head. saved: in percent "
        "of vanilla's time to the first token; below 0: the method adds time.",
    )
    return Sheet("Time saved on each side", heads, tuple(body), frozenset(), notes)


def _compared(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Rows of vanilla and of the method of each profile and batch."""
    key = (*GROUP, "method", "budget")
    plain = {tuple(row[name] for name in key): row for row in rows if row["arm"] == "vanilla"}
    for row in rows:
        if row["arm"] == "method":
            yield plain[tuple(row[name] for name in key)], row


def _sides(row: Row) -> tuple[float, float]:
    """Milliseconds of the encoder side and of the language model."""
    encoder = sum(row[f"part_{part}_ms"] for part in ENCODER_SIDE)
    return encoder, sum(row[f"part_{part}_ms"] for part in PARTS) - encoder


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
