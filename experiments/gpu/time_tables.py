"""Tables of the timed cells: first tokens with their parts, and whole answers."""

from collections.abc import Sequence

from experiments.gpu.runner import rows_of
from experiments.gpu.text_table import Record, aligned, gibibytes, median, ratio

PARTS = ("entry", "encoder", "vision", "key_tokens", "layers", "prefill", "cache", "head")
MODEL_PARTS = ("encoder", "layers", "head")  # the others are decisions
FIRST_TOKEN = "ttft_ms"


def time_tables(record: Record) -> list[str]:
    """Tabulate medians, peak memory, and ratios within a round; tables for each cell."""
    all_rows = [with_decisions(row) for row in rows_of(record, "time")]
    models = {row["cell"]: row["model"] for row in rows_of(record, "model") if "model" in row}
    facts = {
        (models[row["cell"]], row["batch"], row["arm"]): row for row in rows_of(record, "facts")
    }
    tables = []
    for cell in dict.fromkeys(row["cell"] for row in all_rows):
        rows = [row for row in all_rows if row["cell"] == cell]
        counted = {
            arm: row
            for (model, batch, arm), row in facts.items()
            if (model, batch) == (models[cell], rows[0]["batch"])
        }
        arms = list(dict.fromkeys(row["arm"] for row in rows))
        tables.append(_whole(cell, rows, arms, counted))
        if FIRST_TOKEN in rows[0]:
            tables.append(_parts(cell, rows, arms))
    return tables


def with_decisions(row: Record) -> Record:
    """The row with the time of all decisions of the method, where its parts were measured."""
    names = [f"part_{name}_ms" for name in PARTS if name not in MODEL_PARTS]
    if row["way"] != "method" or names[0] not in row:
        return row
    return {**row, "decisions_ms": sum(row[name] for name in names)}


def _of(rows: Sequence[Record], arm: str, way: str) -> list[Record]:
    return [row for row in rows if (row["arm"], row["way"]) == (arm, way)]


def _whole(cell: str, rows: Sequence[Record], arms: Sequence[str], facts: Record) -> str:
    """First tokens or answers next to their reference."""
    answers = [key for key in rows[0] if key.startswith("e2e_")]
    total = answers[0] if answers else FIRST_TOKEN
    extra = total.replace("e2e", "tpot") if answers else "decisions_ms"
    memory = f"_{total.split('_')[1]}" if answers else ""
    vanilla = _of(rows, "vanilla", "method")
    lines = []
    for arm in arms:
        method, reference, fact = (
            _of(rows, arm, "method"),
            _of(rows, arm, "reference"),
            facts.get(arm),
        )
        kernels = ", ".join((fact or {}).get("attention", ())) or "-"
        lines.append(
            (
                arm, f"{fact['executed_average']:.1f}" if fact else "?",
                median(method, total), median(reference, total), ratio(method, reference, total),
                ratio(vanilla, method, total), median(method, extra),
                gibibytes(method, f"peak_bytes{memory}"), gibibytes(method, f"extra_bytes{memory}"),
                kernels,
            )
        )  # fmt: skip
    rounds = max(row["round"] for row in rows)
    title = f"{cell}: milliseconds (medians of up to {rounds} rounds), ratios median [min, max]"
    header = (
        "arm", "executed", "answer" if answers else "first token", "reference", "/ reference",
        "times faster than vanilla", "per later token" if answers else "decisions", "peak GiB",
        "over before", "attention",
    )  # fmt: skip
    return aligned(title, header, lines)


def _parts(cell: str, rows: Sequence[Record], arms: Sequence[str]) -> str:
    """Parts of the first token, and those of the reference."""
    lines = []
    for arm in arms:
        method, reference = _of(rows, arm, "method"), _of(rows, arm, "reference")
        lines.append(
            [
                arm, *(median(method, f"part_{part}_ms") for part in PARTS),
                *(median(reference, f"part_{part}_ms") for part in MODEL_PARTS),
            ]
        )  # fmt: skip
    header = ["arm", *PARTS, *(f"reference {part}" for part in MODEL_PARTS)]
    return aligned(f"{cell}: parts of the first token, milliseconds (medians)", header, lines)
