"""Two arms' samples, brought together document by document.

Refuses samples that are not the same documents. Knows nothing about claims and verdicts.
"""

from collections.abc import Sequence

import pandas as pd

from analysis.statistics.pairs import Pairs, pairs

CHECKED = ("question", "target")  # what must agree where both sides tell it


def pair(ours: Sequence[pd.DataFrame], theirs: Sequence[pd.DataFrame]) -> Pairs:
    """The documents that all have answered, each arm averaged over its seeds, with their images.

    Args:
        ours: Per seed the samples, indexed by (task, doc_id), with score, and where known question,
            target and image.
        theirs: The same of the other arm.

    Raises:
        ValueError: If they share no document, or one is not the same on both sides.
    """
    every = [*ours, *theirs]
    every = _under_one_name(every)
    shared = every[0].index
    for each in every[1:]:
        shared = shared.intersection(each.index)
    if shared.empty:
        raise ValueError(f"no document in common: {_told(every[0])} here, {_told(every[-1])} there")
    rows = [each.loc[shared] for each in every]
    for other in rows[1:]:
        _same(rows[0], other)
    scores = [row["score"].to_numpy(dtype=float) for row in rows]
    first, second = scores[: len(ours)], scores[len(ours) :]
    return pairs(sum(first) / len(first), sum(second) / len(second), _images(rows))


def _under_one_name(every: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """One task each may be called differently (gqa, gqa_lite), and are told apart by documents."""
    if all(each.index.get_level_values("task").nunique() == 1 for each in every):
        return [each.droplevel("task") for each in every]
    return list(every)


def _same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    for field in CHECKED:
        if field not in first or field not in second:
            continue
        for which, one, other in zip(first.index, first[field], second[field], strict=True):
            if one is not None and other is not None and str(one) != str(other):
                raise ValueError(
                    f"not the same documents: the {field} of {which} is {one!r} and {other!r}"
                )


def _images(rows: Sequence[pd.DataFrame]) -> list[str | None]:
    """What each document's image is called, by whoever knows it."""
    known: list[str | None] = [None] * len(rows[0])
    for row in rows:
        if "image" in row:
            told = [name if isinstance(name, str) else None for name in row["image"]]
            known = [one or other for one, other in zip(known, told, strict=True)]
    return known


def _told(samples: pd.DataFrame) -> str:
    last = f", {samples.index[-1]} the last" if len(samples) else ""
    return f"{len(samples)} documents{last}"
