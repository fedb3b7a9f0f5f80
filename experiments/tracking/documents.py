"""Documents of a run's benchmark, of which a tracker shows pictures. Knows no tracker."""

import traceback
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from hydra.utils import instantiate
from PIL import Image


class RunDocuments:
    """Documents of a run's benchmark; the task is built when its first picture is needed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # with an image control, the pictures that were shown are not stored
        self.config, self.readable = config, not config.get("image")
        self.frames = config["model"].get("frames")

    @cached_property
    def task(self) -> Any:
        return instantiate(self.config["benchmark"]["task"])

    def picture(self, doc_id: int) -> Image.Image | None:
        """Read the first picture of a document; None from the first error on."""
        if not self.readable:
            return None
        from mustdrop.evaluation.chat import pictures, read_document
        from mustdrop.evaluation.frame_cache import VideoReader

        try:
            name, docs, count = self.task.config.task, self.task.eval_docs, self.frames
            videos = None if count is None else VideoReader(count)
            messages = self.task.doc_to_messages
            images = pictures(read_document(name, docs, doc_id, messages, videos)[1])
            return images[0].convert("RGB") if images else None
        except Exception:  # the tracker's boundary: the data set is missing, or has no images
            print("pictures cannot be read and are left out:")
            traceback.print_exc()
            self.readable = False
            return None

    def region(self, doc_id: int) -> Any:
        """Patches that a question is about; None if its benchmark does not know them."""
        from mustdrop.evaluation.requests import marked_target

        return marked_target(self.task, self.task.eval_docs[doc_id])
