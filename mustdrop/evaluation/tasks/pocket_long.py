"""PocketVQA's questions with long answers as an lmms-eval task: share of items, exact match.

It also counts the objects that an answer names, and those of them that are not in the picture.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.tasks.documents import FIELDS, PocketTask
from mustdrop.pocket.dataset import LONG_SPLITS, sample
from mustdrop.pocket.long_questions import LONG_TYPES, items_right, named_objects
from mustdrop.pocket.questions import object_name

ITEMS, EXACT = "item_share", "exact_match"
NAMED, ABSENT = "objects_named", "objects_absent"  # read by mustdrop tables chair
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
        metrics = [
            {"metric": metric, "aggregation": fmean, "higher_is_better": metric != ABSENT}
            for metric in (*names, NAMED, ABSENT)
        ]
        super().__init__(
            name, split, sample, size, score, metrics, tuple(LONG_SPLITS), MAX_NEW_TOKENS,
            (*FIELDS, "objects"),
        )  # fmt: skip


_KINDS = tuple(f"_{kind}" for kind in LONG_TYPES)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Scores of an answer.

    Share of the items that are right, and 1 if the whole answer is, overall and by type; number of
    objects that it names, and of those of them that are not in the picture.
    """
    given, kind = results[0].strip(), doc["type"]
    items, exact = items_right(given, doc["answer"]), float(given == doc["answer"])
    shown, named = {object_name(item) for item in doc["objects"]}, named_objects(given)
    return {
        ITEMS: items, f"{ITEMS}_{kind}": items, EXACT: exact, f"{EXACT}_{kind}": exact,
        NAMED: float(len(named)), ABSENT: float(sum(name not in shown for name in named)),
    }  # fmt: skip
