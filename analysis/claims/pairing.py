"""Pair the samples of two arms document by document.

Raises an error if the documents are not the same. Knows nothing about claims and verdicts.
"""

from collections.abc import Sequence

import pandas as pd

from analysis.statistics.pairs import Pairs, pairs

CHECKED = ("question", "target")  # fields that must agree if both sides have them


def pair(ours: Sequence[pd.DataFrame], theirs: Sequence[pd.DataFrame]) -> Pairs:
    """Pair the scores of the documents that all runs answered; each arm is averaged over seeds.

    Args:
        ours: Samples of the first arm, one frame per seed, indexed by (task, doc_id), with the
            column score and, if known, question, target and image.
        theirs: Samples of the second arm, in the same form.

    Raises:
        ValueError: If no document is shared, or a shared document differs between the arms.
    """
    frames = _without_task_names([*ours, *theirs])
    shared = frames[0].index
    for frame in frames[1:]:
        shared = shared.intersection(frame.index)
    if shared.empty:
        raise ValueError(
            f"no document in common: {_summary(frames[0])} against {_summary(frames[-1])}"
        )
    rows = [frame.loc[shared] for frame in frames]
    for other in rows[1:]:
        _check_same_documents(rows[0], other)
    scores = [row["score"].to_numpy(dtype=float) for row in rows]
    first, second = scores[: len(ours)], scores[len(ours) :]
    return pairs(sum(first) / len(first), sum(second) / len(second), _images(rows))


def _without_task_names(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Drop the task from the index if every frame has one task: its name may differ (gqa_lite)."""
    if all(frame.index.get_level_values("task").nunique() == 1 for frame in frames):
        return [frame.droplevel("task") for frame in frames]
    return list(frames)


def _check_same_documents(first: pd.DataFrame, second: pd.DataFrame) -> None:
    for field in CHECKED:
        if field not in first or field not in second:
            continue
        for document, a, b in zip(first.index, first[field], second[field], strict=True):
            if a is not None and b is not None and str(a) != str(b):
                raise ValueError(
                    f"not the same documents: the {field} of {document} is {a!r} and {b!r}"
                )


def _images(rows: Sequence[pd.DataFrame]) -> list[str | None]:
    """Image name of each document, from the first frame that has it."""
    known: list[str | None] = [None] * len(rows[0])
    for row in rows:
        if "image" in row:
            names = [name if isinstance(name, str) else None for name in row["image"]]
            known = [first or name for first, name in zip(known, names, strict=True)]
    return known


def _summary(samples: pd.DataFrame) -> str:
    last = f" (last: {samples.index[-1]})" if len(samples) else ""
    return f"{len(samples)} documents{last}"
