"""Read and check the finished runs of a results folder.

A run (a cell of a table) is one model x method x budget x benchmark: a record and its samples. The
samples are indexed by (task, doc_id), on which comparisons pair. Knows nothing about tables or
figures.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.fields import COUNTS as COUNTS
from analysis.records.fields import check_record
from analysis.records.judgements import by_judge, judged_lines
from analysis.records.left_out import leave_out
from analysis.records.sample_rows import CONTROL_NAMES as CONTROL_NAMES
from analysis.records.sample_rows import sample_row
from analysis.records.variants import variants
from mustdrop.runs.folder import MATCH as MATCH
from mustdrop.runs.folder import SCHEMA, TornFile, read_record, read_samples
from mustdrop.runs.folder import agree as agree
from mustdrop.runs.judgements import judgement_files


class NothingLeft(ValueError):
    """None of the runs in a folder can be read."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished run.

    Attributes:
        record: Content of record.json.
        metric: Name of the score in ``samples``; None if the budget could not be reached.
        samples: One row per sample, indexed by (task, doc_id): score, type, question, target,
            answer, image (name of the picture; None in old runs), prompt_tokens (None in old runs),
            seconds, confidence (probability of the answer; NaN in old runs), and the lists
            vision_tokens and resident_tokens with one number per layer. The columns schedule, flat
            and grid hold the scores of the control passes, averaged over seeds; NaN without them.
        variant: Config entries that distinguish this run from others of its method and budget.
    """

    record: dict[str, Any]
    metric: str | None
    samples: pd.DataFrame
    variant: str = ""

    def __getitem__(self, name: str) -> Any:
        """A field of the record."""
        return self.record[name]

    @property
    def group(self) -> tuple[str, str, str]:
        """Experiment, model and benchmark, which must agree for two runs to be compared."""
        return self["experiment"], self["model"], self["benchmark"]

    @property
    def budget(self) -> float | None:
        """Requested executed average, for a share the mean; None for a run without a budget."""
        chosen = self["config"].get("budget")
        if chosen and "tokens" in chosen:
            return float(chosen["tokens"])
        if chosen:
            return None if self["counts"] is None else self["counts"]["nominal"]
        match = re.fullmatch(r"t?(\d+(?:\.\d+)?)", str(self["budget"]))
        return float(match[1]) if match else None

    @property
    def executed(self) -> float:
        """Number of vision tokens that entered a layer, mean over layers and samples."""
        return float(self["counts"]["executed_average"])

    @property
    def image(self) -> str | None:
        """Name of the control on the input image (blank, wrong, ...); None: unchanged image."""
        control = self["config"].get("image")
        return str(control["name"]) if control else None

    @property
    def calibrated_on(self) -> str:
        """Other benchmarks on whose prompts the thresholds were searched; else empty."""
        return ", ".join(self.record.get("calibrated_on") or ())

    @property
    def setup(self) -> str:
        """Code and machine as text; timings of two setups cannot be compared."""
        parts = [self[name] for name in ("fingerprint", "versions", "hardware")]
        return " · ".join(text for part in parts if (text := _as_text(part)))


def load(root: Path | str, metric: str | None = None) -> list[RunResult]:
    """Read all finished runs under a folder, sorted: vanilla first, then by budget and method.

    Args:
        root: Results folder: ``outputs`` or any folder in it.
        metric: Name of the score to read; by default the metric of each benchmark.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it contains no finished run, if none of its runs can be read, or if a sample
            lacks the score.

    Warns:
        LeftOut: For each run that cannot be read and is left out: a torn record or line, fewer
            samples than its record says, or a sample that occurs twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no results folder {root}: give the folder that a run wrote to")
    folders = [path.parent for path in sorted(root.rglob("record.json"))]
    if not folders:
        raise ValueError(f"no finished run (record.json) under {root}")
    return load_runs(folders, metric)


def load_runs(folders: Sequence[Path], metric: str | None = None) -> list[RunResult]:
    """Read the finished runs among these folders, as :func:`load` does; may return no run.

    Raises:
        ValueError: See :func:`load`.

    Warns:
        LeftOut: See :func:`load`.
    """
    cells, reasons = [], []
    for folder in folders:
        try:
            record = read_record(folder)
            if record is not None:
                cells.append(_cell({**record, "folder": str(folder)}, metric))
        except TornFile as error:
            reasons.append(error)
    if reasons and not cells:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise NothingLeft(f"no run can be read, all are torn: {reasons[0]}{more}")
    for reason in reasons:
        leave_out(reason)
    return sorted(_with_variants(cells), key=cell_order)


def judged(cell: RunResult, metric: str) -> RunResult | None:
    """The same run with a judge's score; None if no judge has read it.

    Args:
        cell: Run. If its score is a judge's, the same judge's other score is read.
        metric: ``judge_accuracy`` or ``judge_score``.

    Raises:
        ValueError: If several judges have read the run and the run's score names none.
    """
    if cell.metric is None:
        return cell
    folder, judge = Path(cell["folder"]), (cell.metric if by_judge(cell.metric) else "")
    if not judgement_files(folder):
        return None
    return rescored(cell, metric + "".join(judge.partition("@")[1:]))


def rescored(cell: RunResult, metric: str) -> RunResult:
    """The same run with another score.

    Raises:
        ValueError: If a sample lacks the score.
    """
    return replace(_cell(cell.record, metric), variant=cell.variant)


def groups(cells: Sequence[RunResult]) -> dict[tuple[str, str, str], list[RunResult]]:
    """Group runs by experiment, model and benchmark."""
    out: dict[tuple[str, str, str], list[RunResult]] = {}
    for cell in cells:
        out.setdefault(cell.group, []).append(cell)
    return out


def _cell(record: dict[str, Any], metric: str | None) -> RunResult:
    folder = Path(record["folder"])
    if record.get("schema") != SCHEMA:
        raise TornFile(
            folder / "record.json",
            f"expected a record of schema {SCHEMA}, got {record.get('schema')}",
        )
    check_record(record, folder)
    if record["floor"] is not None and not record["n"]:
        return RunResult(record, None, pd.DataFrame())
    # More than n samples: the run is being extended, and its record covers the first n only.
    lines = read_samples(folder)[: record["n"]]
    path = folder / "samples.jsonl"
    if not lines or len(lines) < record["n"]:
        raise TornFile(path, f"the record says {record['n']} samples, the file has {len(lines)}")
    chosen = metric or record["metric"]
    if by_judge(chosen):
        lines = judged_lines(folder, lines, chosen)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if chosen not in line["scores"]:
                known, doc = sorted(line["scores"]), line["doc_id"]
                reason = f"sample {doc} has no score {chosen!r}, it has {known}"
                if metric is None:
                    raise TornFile(path, reason, number)
                raise ValueError(f"{folder}: {reason}")
            rows.append(sample_row(line, chosen))
        except (AttributeError, KeyError, TypeError) as error:
            raise TornFile(path, f"the sample is incomplete ({error!r})", number) from error
        if not isfinite(rows[-1]["score"]):
            raise TornFile(path, f"the score is {rows[-1]['score']}", number)
    frame = pd.DataFrame(rows).set_index(["task", "doc_id"])
    if frame.index.has_duplicates:
        repeated = frame.index.duplicated()
        task, doc = frame.index[repeated][0]
        reason = f"sample {doc} of {task} occurs twice"
        raise TornFile(path, reason, int(repeated.argmax()) + 1)
    return RunResult(record, chosen, frame.astype({"score": float}).sort_index())


def _with_variants(cells: Sequence[RunResult]) -> list[RunResult]:
    """Runs with their ``variant``, which is empty for a run whose name is unique."""
    by_name: dict[tuple, list[RunResult]] = {}
    for cell in cells:
        name = cell.group, cell["method"], cell["budget"], cell.image
        by_name.setdefault(name, []).append(cell)
    return [
        replace(cell, variant=variant)
        for same in by_name.values()
        for cell, variant in zip(same, variants([c["config"] for c in same]), strict=True)
    ]


def cell_order(cell: RunResult) -> tuple:
    """Key by which runs are sorted: vanilla first, then by budget and method."""
    plain = cell["method"] == "vanilla" and cell.image is None
    rank = (
        not plain,
        -(cell.budget or 0.0),
        cell["method"],
        cell["budget"],
        cell.image or "",
        cell.variant,
    )
    return *cell.group, *rank, cell["key"]


def _as_text(part: Any) -> str:
    """Field of a record as text; a mapping becomes its entries, sorted by name."""
    if isinstance(part, dict):
        return ", ".join(f"{name} {part[name]}" for name in sorted(part) if part[name] is not None)
    return "" if part is None else str(part)
