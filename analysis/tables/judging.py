"""Tables of judges: accuracy and score of their verdicts, and how far two of them agree.

The run's own score (exact match) stands beside the judge's. All numbers of a row are over the
samples with a verdict; the others are counted in a column, and are neither right nor wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.cells import RunResult
from analysis.records.left_out import leave_out
from analysis.statistics.intervals import Interval, mean_interval
from analysis.statistics.kappa import cohens_kappa
from analysis.tables.notes import INTERVALS
from analysis.tables.sheets import Sheet, group_breaks, name_columns, shared_title, span
from analysis.tables.summary import run_names
from mustdrop.runs.folder import TornFile
from mustdrop.runs.judgements import RunJudgements, read_judgements

Row = Mapping[Any, Any]
CORRECT, SCORE, RUN_SCORE = "correct", "score", "run_score"


def judging_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run and judge.

    judged, unjudged, reasons: Number of samples with and without a verdict, and the reasons.
    accuracy, score, run_score (_low, _high): Share of the judged samples that are correct, their
        mean score from 0 to 5, and the mean of the run's own ``metric`` over the same samples; each
        with its 95 % interval.

    Raises:
        ValueError: If no run has verdicts.
    """
    rows = []
    for cell, judge, verdicts in _judged_cells(cells):
        reasons = Counter(verdicts["unjudged"].dropna())
        rated = verdicts[verdicts[CORRECT].notna()]
        samples = cell.samples.loc[rated.index]
        rows.append(
            {
                **run_names(cell), "judge": judge.name, "n": len(verdicts), "judged": len(rated),
                "unjudged": sum(reasons.values()),
                "reasons": ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()),
                **_ends("accuracy", mean_interval(rated[CORRECT].astype(float), samples["image"])),
                **_ends(SCORE, mean_interval(rated[SCORE].astype(float), samples["image"])),
                "metric": cell.metric,
                **_ends(RUN_SCORE, mean_interval(samples["score"], samples["image"])),
            }
        )  # fmt: skip
    return _frame(rows)


def agreement_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run and pair of raters: two judges, or a judge and the run's own score of 0 or 1.

    n: Number of samples that both rated. first_yes, second_yes: Shares that each calls correct.
    agreement: Share on which both agree. kappa (_low, _high): Cohen's kappa with its interval.

    Raises:
        ValueError: If no run has two raters.
    """
    rows = []
    for cell, raters in _raters(cells):
        for (first, ours), (second, theirs) in combinations(raters.items(), 2):
            shared = ours.notna() & theirs.notna()
            x, y = ours[shared].astype(float), theirs[shared].astype(float)
            kappa = cohens_kappa(x, y, cell.samples.loc[shared, "image"])
            rows.append(
                {
                    **run_names(cell), "first": first, "second": second, "n": len(x),
                    "first_yes": x.mean(), "second_yes": y.mean(),
                    "agreement": float((x == y).mean()) if len(x) else np.nan,
                    **_ends("kappa", kappa), "interval": kappa.method,
                }
            )  # fmt: skip
    return _frame(rows)


def judging_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`judging_frame`."""
    rows: list[Row] = list(frame.to_dict("records"))
    names = name_columns(rows)
    metric = " / ".join(dict.fromkeys(str(row["metric"]) for row in rows))
    heads = (
        *names, "judge", "judged", "unjudged", "accuracy, % [95 %]", "score, 0 to 5 [95 %]",
        f"{metric}, same samples [95 %]",
    )  # fmt: skip
    body = tuple(
        (
            *(str(row[name] or "–") for name in names), row["judge"], str(row["judged"]),
            f"{row['unjudged']} ({row['reasons']})" if row["unjudged"] else "0",
            _cell(row, "accuracy", 100), _cell(row, SCORE, 1, 2), _cell(row, RUN_SCORE, 100),
        )
        for row in rows
    )  # fmt: skip
    return Sheet(shared_title(rows), heads, body, group_breaks(rows), tuple(_judging_notes(rows)))


def agreement_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`agreement_frame`."""
    rows: list[Row] = list(frame.to_dict("records"))
    names = name_columns(rows)
    heads = (
        *names, "first", "second", "n", "first yes, %", "second yes, %", "agreement, %",
        "kappa [95 %]",
    )  # fmt: skip
    body = tuple(
        (
            *(str(row[name] or "–") for name in names), row["first"], row["second"],
            str(row["n"]), *(_percent(row[name]) for name in ("first_yes", "second_yes")),
            _percent(row["agreement"]), _cell(row, "kappa", 1, 2),
        )
        for row in rows
    )  # fmt: skip
    notes = (
        "n: samples that both rated. kappa: Cohen's, 1 for full agreement, 0 for the agreement "
        "expected by chance; – if both give the same single answer to all samples.",
        "interval: large-sample t (by image if samples share an image); exact bounds of the "
        "disagreements, at the observed shares of yes, if fewer than five images have one.",
    )
    return Sheet(shared_title(rows), heads, body, group_breaks(rows), notes)


def _judged_cells(
    cells: Sequence[RunResult],
) -> Iterator[tuple[RunResult, RunJudgements, pd.DataFrame]]:
    """Runs with samples, each with its judges and their entries in the order of the samples."""
    for cell in cells:
        if cell.metric is None:
            continue
        try:
            judges = read_judgements(Path(cell["folder"]))
        except TornFile as error:
            leave_out(error)
            continue
        for judge in judges:
            lines = cell.samples.reset_index().to_dict("records")
            entries = pd.DataFrame(
                [judge.entry({str(name): value for name, value in line.items()}) for line in lines],
                index=cell.samples.index, columns=[CORRECT, SCORE, "unjudged"],
            )  # fmt: skip
            yield cell, judge, entries


def _raters(cells: Sequence[RunResult]) -> Iterator[tuple[RunResult, dict[str, Any]]]:
    """Runs with verdicts, each with its raters: the run's own score if it is 0 or 1, and judges."""
    raters: dict[str, tuple[RunResult, dict[str, Any]]] = {}
    for cell, judge, verdicts in _judged_cells(cells):
        scores = cell.samples["score"]
        binary = bool(np.isin(scores.to_numpy(), (0.0, 1.0)).all())
        first = {str(cell.metric): scores} if binary else {}
        _, named = raters.setdefault(cell["folder"], (cell, first))
        named[judge.name] = verdicts[CORRECT]
    yield from raters.values()


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    if not rows:
        raise ValueError("no run has verdicts to compare: mustdrop judge makes them")
    return pd.DataFrame(rows)


def _ends(name: str, interval: Interval) -> dict[str, Any]:
    return {
        name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high,
        f"{name}_interval": interval.method,
    }  # fmt: skip


def _cell(row: Row, name: str, scale: float, digits: int = 1) -> str:
    if isnan(row[name]):
        return "–"
    ends = (scale * row[name], scale * row[f"{name}_low"], scale * row[f"{name}_high"])
    return span(*ends, "", digits)


def _percent(share: float) -> str:
    return "–" if isnan(share) else f"{100 * share:.1f}"


def _judging_notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "accuracy, score: over the samples with a verdict alone. A sample without a verdict is "
        "neither right nor wrong; if many have none, the numbers do not stand for all samples."
    )
    used = {row[f"{name}_interval"] for row in rows for name in ("accuracy", SCORE, RUN_SCORE)}
    methods = [text for name, text in INTERVALS.items() if name in used]
    yield f"intervals: {', or '.join(methods) or 'none'}."
