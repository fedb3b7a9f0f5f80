"""PocketVQA's questions with long answers as an lmms-eval task: share of items, exact match."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.tasks.documents import PocketTask
from mustdrop.pocket.dataset import LONG_SPLITS, sample
from mustdrop.pocket.long_questions import LONG_TYPES, items_right

ITEMS, EXACT = "item_share", "exact_match"
MAX_NEW_TOKENS = 48  # nine items of a way have 39 tokens, or a few more with words of two tokens


class PocketLong(PocketTask):
    """One split of long answers.

    Args:
        name: Name of the task in lmms-eval.
        split: Name of a split in :data:`mustdrop.pocket.dataset.LONG_SPLITS`.
    """

    def __init__(self, name: str, split: str) -> None:
        size = LONG_SPLITS[split].size if split in LONG_SPLITS else 0
        names = [f"{metric}{kind}" for metric in (ITEMS, EXACT) for kind in ("", *_KINDS)]
        metrics = [{"metric": m, "aggregation": fmean, "higher_is_better": True} for m in names]
        super().__init__(
            name, split, sample, size, score, metrics, tuple(LONG_SPLITS), MAX_NEW_TOKENS
        )


_KINDS = tuple(f"_{kind}" for kind in LONG_TYPES)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Share of the items that are right, and 1 if the whole answer is, overall and by type."""
    given, kind = results[0].strip(), doc["type"]
    items, exact = items_right(given, doc["answer"]), float(given == doc["answer"])
    return {ITEMS: items, f"{ITEMS}_{kind}": items, EXACT: exact, f"{EXACT}_{kind}": exact}
