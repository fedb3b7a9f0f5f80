"""Measure what only trained weights can show; after a stop, the same command resumes.

python -m experiments.real_weights
python -m experiments.real_weights --n 4 --methods fastv cls_topk --out outputs/quick
python -m experiments.real_weights --model pocket

Writes record.json (one row per question), tables.txt and figure.png into the output folder. Parts:
attention (where text looks, sinks, massive activations), batch and masking (dropping equals
masking, beside the plain model's own difference between batch shapes), stability (kept tokens that
change with dtype, batch and noise), withdrawal (layers without vision tokens).
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.figures.style import save
from experiments.cli.errors import leave
from experiments.real_weights.attention import attention_row
from experiments.real_weights.prompts import StudyPrompts
from experiments.real_weights.report import figure, tables
from experiments.real_weights.rounding import DTYPES, batch_row, masking_row, stability_row
from experiments.real_weights.withdrawal import SHARES, withdrawal_row
from experiments.sweeps.forecast import spoken
from experiments.threads import set_threads
from mustdrop.provenance.fingerprint import library_versions
from mustdrop.runs.disk import write_json

METHODS = (
    "mustdrop", "mustdrop_official", "fastv", "sparsevlm", "pyramiddrop", "cls_topk", "visionzip",
    "vispruner", "divprune", "prumerge_plus", "text_topk",
)  # fmt: skip
PARTS = ("attention", "batch", "masking", "stability", "withdrawal")
FEW = 4  # a masked model recomputes every token of every dtype, so it gets n / FEW questions
Step = tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]


def steps(study: StudyPrompts, methods: Sequence[str], n: int) -> Iterator[Step]:
    """List all rows to measure: the part, the fields that name the row, and its measurement."""
    few = max(1, n // FEW)
    for index in range(n):
        yield "attention", {"index": index}, lambda i=index: attention_row(study, methods, i)
    for share in SHARES:
        layers = round(share * study.checkpoint.layers)
        for index in range(n):
            names = {"index": index, "layers": layers}
            yield "withdrawal", names, lambda s=share, i=index: withdrawal_row(study, s, i)
    for method in methods:
        for index in range(n):
            names = {"index": index, "method": method}
            yield "stability", names, lambda m=method, i=index: stability_row(study, m, i)
    for dtype in DTYPES:
        for index in range(few):
            names = {"index": index, "dtype": dtype}
            yield "batch", names, lambda i=index, d=dtype: batch_row(study, i, d)
        for method in methods:
            for index in range(few):
                names = {"index": index, "dtype": dtype, "method": method}
                yield (
                    "masking",
                    names,
                    lambda m=method, i=index, d=dtype: masking_row(study, m, i, d),
                )


def measure(study: StudyPrompts, options: argparse.Namespace, path: Path) -> Mapping[str, Any]:
    """Measure the rows that the record lacks; it is written after each of them.

    Raises:
        ValueError: If the record in the folder was made with other settings, or a method lacks a
            threshold.
    """
    for method in options.methods:
        study.dropper(method)
    settings = {
        "model": options.model, "weights": study.mark, "budget": options.budget,
        "methods": list(options.methods), "split": study.split,
        "layers": study.checkpoint.layers, "versions": library_versions(),
    }  # fmt: skip
    record: dict[str, Any] = {**settings, "rows": {part: [] for part in PARTS}}
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if record[name] != value:
                raise ValueError(
                    f"{path} was made with {name} {record[name]}, here {value}: give another --out"
                )
    planned = [
        step for step in steps(study, options.methods, options.n) if step[0] in options.parts
    ]
    missing = [
        step
        for step in planned
        if not any(step[1].items() <= row.items() for row in record["rows"][step[0]])
    ]
    start = shown = time.monotonic()
    for number, (part, _, measured) in enumerate(missing, 1):
        record["rows"][part].append(measured())
        write_json(path, record)
        now = time.monotonic()
        if now - shown > 30 or number == len(missing):
            left = spoken((now - start) / number * (len(missing) - number))
            print(f"{number}/{len(missing)} {part}: {left} left", file=sys.stderr, flush=True)
            shown = now
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write its record, tables and figure."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_weights", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", default="pocket_smol", help="preset of conf/model")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="METHOD")
    parser.add_argument("--budget", default="t64")
    parser.add_argument("--n", type=int, default=16, help="number of questions of crowded_test")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch decides)")
    parser.add_argument("--out", type=Path, default=Path("outputs/real_weights"))
    options = parser.parse_args(arguments)
    if options.n < 1:
        raise ValueError(f"n must be a count of 1 or more, got {options.n}")
    set_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    study = StudyPrompts(options.model, options.budget)
    record = measure(study, options, options.out / "record.json")
    text = tables(record)
    (options.out / "tables.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    if {*PARTS} <= {*options.parts}:
        print(save(figure(record), options.out / "figure.png"))
    return 0


if __name__ == "__main__":
    leave(lambda: main())
