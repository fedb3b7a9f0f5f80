"""RefCOCO: the box of the object that a sentence describes, scored by its overlap."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import box_overlap
from mustdrop.evaluation.pictures import UnreadableImage, decoding
from mustdrop.evaluation.tasks.rows import PICTURE
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY = "refcoco_accuracy"
THRESHOLD = 0.5  # least overlap of a right box
SENTENCES, BOX = "answer", "bbox"
# Takes the place of a box whose overlap has no value. It overlaps no box of an image.
NO_BOX = [-2.0, -2.0, -1.0, -1.0]


class Sentences:
    """One question for each sentence of a row, with its box as shares of the image's size.

    The same as lmms-eval's own preparation, but made when a question is read: lmms-eval holds an
    image for each sentence in memory.

    Args:
        table: Rows with ``answer``, a list of sentences, and ``bbox``: left, top, width, height.
        images: Whether questions contain the image.
    """

    def __init__(self, table: Any, images: bool) -> None:
        self.table, self.images = table, images
        sentences = table.select_columns([SENTENCES])
        self.indices = [
            (number, sentence)
            for number, row in enumerate(sentences)
            for sentence in range(len(row[SENTENCES]))
        ]
        names = [name for name in table.column_names if images or name != PICTURE]
        self.features = dict.fromkeys(names)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, sentence = self.indices[index]
        if self.images:
            return _question(self.table[number], sentence)
        # The size is needed, too; a question whose image is damaged is never scored.
        with suppress(UnreadableImage), decoding():
            question = _question(self.table[number], sentence)
            del question[PICTURE]
            return question
        row = self.table.remove_columns(PICTURE)[number]
        return {**row, SENTENCES: row[SENTENCES][sentence]}


def _question(row: Mapping[str, Any], sentence: int) -> dict[str, Any]:
    if row[PICTURE] is None:
        raise UnreadableImage("the row has no image")
    width, height = row[PICTURE].size
    x, y, wide, high = row[BOX]
    box = [x / width, y / height, (x + wide) / width, (y + high) / height]
    return {**row, SENTENCES: row[SENTENCES][sentence], BOX: box}


class RefCOCO(StockTask):
    """lmms-eval's RefCOCO (``bbox_rec``) with one more metric, ``refcoco_accuracy``.

    ``refcoco_accuracy`` is 1 for a question if the overlap (intersection over union) of the boxes
    is 0.5 or more; lmms-eval's ``refcoco_ACC@0.5`` is its mean.
    """

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        super().download(dataset_kwargs)
        table: Any = self.illustrated
        for column in (PICTURE, SENTENCES, BOX):
            if column not in table.column_names:
                raise KeyError(column)
        plain = Sentences(table, images=False)
        self.illustrated = Sentences(table, images=True)
        self.dataset, self.dataset_no_image = {self.split: plain}, {self.split: plain}

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True}
        stock = config["process_results"]

        def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
            result = dict(stock(doc, list(results)))
            (boxes, *_) = result.values()  # the same entry for each metric
            overlap = _overlap(boxes[BOX], boxes["pred"])
            if overlap is None:
                boxes["pred"] = NO_BOX
            return {**result, ACCURACY: float(overlap is not None and overlap >= THRESHOLD)}

        return {**with_metrics(config, [ours]), "process_results": score}


def _overlap(target: Sequence[float | int], box: Sequence[float | int]) -> float | None:
    """Overlap of two boxes by lmms-eval's rule; None where it divides by zero.

    That happens for a box that is turned round and as large as the target, and for two empty ones.
    """
    try:
        return float(box_overlap(list(target), list(box)))
    except ZeroDivisionError:
        return None
