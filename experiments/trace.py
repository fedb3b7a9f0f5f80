"""Answer chosen samples of finished runs again and keep traces, which figures and the page need.

mustdrop trace outputs/demo                            # the first twelve samples
mustdrop trace outputs/demo --samples 0-49,117
mustdrop trace outputs/run --methods vanilla,mustdrop --disagree 20

Writes ``traces/<doc_id>.npz`` into each run's folder. After a stop, the same command resumes. A
sample whose answer differs from its record (other code, other arithmetic) gets no trace and is
reported.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.cli.errors import leave
from experiments.run import built
from mustdrop.presets.compose import resolved
from mustdrop.runs.disk import writing
from mustdrop.runs.folder import read_records, read_samples, trace_path
from mustdrop.runs.repair import read_config
from mustdrop.runs.trace import Trace

FIRST = "0-11"


@dataclass(frozen=True, eq=False)
class Work:
    """Samples of one run that are to be traced.

    Attributes:
        folder: Folder of the run.
        record: Record of the run.
        lines: Recorded samples to trace, by doc_id.
        had: Number of chosen samples that have a trace already.
    """

    folder: Path
    record: Mapping[str, Any]
    lines: Mapping[int, Mapping[str, Any]]
    had: int = 0

    @property
    def name(self) -> str:
        return f"{self.record['method']} {self.record['budget']}"


def runs(roots: Sequence[Path], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Read the records of the finished runs under some folders, sorted by model and benchmark.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If no run is finished, or no finished run has one of these methods.
    """
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(
                f"no results folder {root}: give the folder that a run wrote to"
            )
    records = [record for root in roots for record in read_records(root)]
    records = [record for record in records if record["floor"] is None]
    if not records:
        raise ValueError(f"no finished run (record.json) under {', '.join(map(str, roots))}")
    known = sorted({record["method"] for record in records})
    for method in methods:
        if not any(fnmatch(name, method) for name in known):
            raise ValueError(f"method must be one of {', '.join(known)}, got {method!r}")
    chosen = [
        record
        for record in records
        if not methods or any(fnmatch(record["method"], method) for method in methods)
    ]
    return sorted(chosen, key=lambda record: (record["model"], record["benchmark"]))


def parsed(text: str) -> list[int]:
    """Parse numbers and ranges like ``0-11,40``.

    Raises:
        ValueError: If the text is no list of numbers and ranges.
    """
    out: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ValueError(f"samples must be numbers and ranges like 0-11,40, got {text!r}")
        out += range(int(first), int(last or first) + 1)
    return sorted(set(out))


def disagreed(records: Sequence[Mapping[str, Any]], count: int) -> dict[str, list[int]]:
    """Choose, for each benchmark, the samples on which the runs disagree most evenly.

    Raises:
        ValueError: If ``count`` is less than 1, or the runs agree on every sample.
    """
    if count < 1:
        raise ValueError(f"disagree must be a count of samples, 1 or more, got {count}")
    scores_by_benchmark: dict[str, dict[int, list[float]]] = {}
    for record in records:
        scores_of = scores_by_benchmark.setdefault(record["benchmark"], {})
        for line in read_samples(Path(record["folder"])):
            scores_of.setdefault(line["doc_id"], []).append(line["scores"][record["metric"]])
    chosen: dict[str, list[int]] = {}
    for benchmark, docs in scores_by_benchmark.items():
        spread = {doc: abs(sum(s) / len(s) - (max(s) + min(s)) / 2) for doc, s in docs.items()}
        split = [doc for doc, scores in docs.items() if max(scores) > min(scores)]
        chosen[benchmark] = sorted(sorted(split, key=lambda doc: (spread[doc], doc))[:count])
    if not any(chosen.values()):
        raise ValueError("no sample splits these runs into right and wrong: choose by --samples")
    return chosen


def work(record: Mapping[str, Any], samples: Sequence[int]) -> Work:
    """Find which of these samples a run has answered and still needs a trace of."""
    folder = Path(record["folder"])
    answered = {line["doc_id"]: line for line in read_samples(folder)}
    lines = {doc: answered[doc] for doc in samples if doc in answered}
    left = {doc: line for doc, line in lines.items() if not traced(folder, doc)}
    return Work(folder, record, left, len(lines) - len(left))


def traced(folder: Path, doc: int) -> bool:
    """Whether a sample has a complete trace.

    A ledger alone, as ``traces=N`` writes it, does not count, nor does a file that is torn or was
    written by older code: these are replaced.
    """
    try:
        return Trace.load(trace_path(folder, doc)).answer is not None
    except (ValueError, FileNotFoundError):
        return False


def follow(run: Work, keep: bool = True) -> Iterator[tuple[int, str | None]]:
    """Trace the remaining samples of a run; yield each doc_id and how its answer differs, or None.

    Args:
        run: Samples to trace.
        keep: Whether traces are written.
    """
    from mustdrop.evaluation.trace import trace

    cfg = OmegaConf.create(read_config(run.folder))
    assert isinstance(cfg, DictConfig)
    for doc, made in trace(built(cfg, resolved(cfg)), list(run.lines)):
        difference = other(made, run.lines[doc])
        if difference is None and keep:
            path = trace_path(run.folder, doc)
            with writing(run.folder):
                path.parent.mkdir(exist_ok=True)
                made.save(path)
        yield doc, difference


def other(made: Trace, line: Mapping[str, Any]) -> str | None:
    """Describe how a trace differs from the recorded sample; None if it does not."""
    if made.answer != line["answer"]:
        return f"answered {made.answer!r}, but the record has {line['answer']!r}"
    for name, now in (
        ("vision_tokens", made.ledger.vision_per_layer()),
        ("resident_tokens", made.ledger.resident_per_layer()),
    ):
        if now != line[name]:
            return f"{name} is {now}, but the record has {line[name]}"
    return None


def main(arguments: Sequence[str]) -> int:
    """Trace; return exit code 0 if all is traced, 1 if answers differ, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("roots", nargs="+", type=Path, metavar="folder")
    parser.add_argument("--samples", help=f"doc_ids and ranges (default: {FIRST})")
    parser.add_argument("--disagree", type=int, help="number of samples on which the runs differ")
    parser.add_argument(
        "--methods", default="", help="comma-separated names or globs (default: all)"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.samples is not None and options.disagree is not None:
        raise ValueError("give --samples or --disagree, not both")
    records = runs(options.roots, [name for name in options.methods.split(",") if name])
    if options.disagree is None:
        listed = parsed(options.samples or FIRST)
        samples = {record["benchmark"]: listed for record in records}
    else:
        samples = disagreed(records, options.disagree)
    todo = [work(record, samples[record["benchmark"]]) for record in records]
    total, had = sum(len(run.lines) for run in todo), sum(run.had for run in todo)
    lacking = sum(len(samples[record["benchmark"]]) for record in records) - total - had
    if not total and not had:
        raise ValueError("none of these runs answered any of these samples")
    wrong: list[str] = []
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=12), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("traces", total=total, rate="starting")
        for run in todo:
            progress.update(bar, description=run.name)
            for doc, difference in follow(run) if run.lines else ():
                speed = progress.tasks[bar].speed
                progress.update(bar, advance=1, rate=f"{speed:.1f}/s" if speed else "")
                if difference is not None:
                    wrong.append(f"{run.folder}: sample {doc}: {difference}")
    for line in wrong:
        print(f"not traced: {line}", file=sys.stderr)
    unanswered = f", {lacking} were never asked" if lacking else ""
    print(
        f"{total - len(wrong)} samples traced in {len(records)} runs, {had} were there before"
        + unanswered
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
