"""GQA: questions and images are two subsets, joined when a question is read."""

from collections.abc import Mapping
from typing import Any

from mustdrop.evaluation.pictures import UnreadableImage, eight_bits
from mustdrop.evaluation.tasks.rows import PICTURE
from mustdrop.evaluation.tasks.stock import StockTask
from mustdrop.provenance.row_files import picture_subset


class GQA(StockTask):
    """lmms-eval's GQA without a copy of the image in every question.

    ``subset`` holds the questions, ``<name>_instructions``; ``<name>_images`` holds the images.
    Rows with an ``image`` column need no second subset.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        stock = config["doc_to_visual"]
        return {
            **config,
            "doc_to_visual": lambda doc: stock({**doc, PICTURE: eight_bits(self.picture(doc))}),
        }

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        super().download(dataset_kwargs)
        self.pictures = None
        if PICTURE not in self.illustrated.column_names:
            assert self.subset is not None
            self.pictures = self.rows(picture_subset(self.subset))
            self.row_of_image = {key: row for row, key in enumerate(self.pictures["id"])}

    def picture(self, doc: Mapping[str, Any]) -> Any:
        """Image of one question.

        Raises:
            ValueError: If no row of the images has the question's ``imageId``.
            UnreadableImage: If its row has no image.
        """
        row = doc
        if self.pictures is not None:
            if doc["imageId"] not in self.row_of_image:
                raise ValueError(f"{self.config.task}: {self.data} has no image {doc['imageId']}")
            row = self.pictures[self.row_of_image[doc["imageId"]]]
        if row[PICTURE] is None:
            raise UnreadableImage("the row has no image")
        return row[PICTURE]
