"""A benchmark of lmms-eval, with rows of the hub or of a folder. Knows no single benchmark.

Prompt, post-processing and aggregation come from lmms-eval's yaml. Settings that the yaml leaves
open are fixed here: the length of an answer, greedy decoding, and the source of the rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mustdrop.evaluation.chat import DocumentError, document_name, naming
from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask, load_yaml_config, tasks
from mustdrop.evaluation.pictures import UnreadableImage, decoding, with_eight_bits
from mustdrop.evaluation.process import unchanged_process
from mustdrop.evaluation.tasks.rows import PICTURE, load_rows, picture_columns

# Keys that would fetch other data, create a second task, or change the options.
LEFT_OUT = (
    "dataset_name", "dataset_kwargs", "process_docs", "validation_split", "group", "tag",
    "model_specific_generation_kwargs",
)  # fmt: skip
JUDGED = "llm_as_judge_eval"  # lmms-eval's metric that asks a language model


class StockTask(ConfigurableMessagesTask):
    """One split of a benchmark.

    Args:
        name: Name of the task in records.
        stock: Path of lmms-eval's yaml in its folder of tasks, such as ``gqa/gqa.yaml``; or the
            absolute path of a yaml in lmms-eval's form.
        data: Name of the data set on the hub, or folder with the split's parquet files.
        subset: Name of a configuration on the hub; None if the data set has none.
        split: Name of the split in the data set.
        max_new_tokens: Maximum length of an answer.
        prompt: Values that override the yaml's ``lmms_eval_specific_kwargs.default``.

    Raises:
        ValueError: If the yaml or the rows do not exist, the yaml is of a task that does not
            generate answers or that a judge scores, it needs a package that is not installed, or
            the rows lack a required column.
    """

    def __init__(
        self,
        name: str,
        stock: str,
        data: str,
        subset: str | None,
        split: str,
        max_new_tokens: int,
        prompt: Mapping[str, Any],
    ) -> None:
        path = Path(tasks.__file__).parent / Path(stock).expanduser()
        if not path.is_file():
            raise ValueError(
                "stock must be a yaml of lmms-eval's tasks or the absolute path of another one, "
                f"got {stock}"
            )
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a count of 1 or more, got {max_new_tokens}")
        self.data, self.subset, self.split = data, subset, split
        config = {key: value for key, value in _yaml(path).items() if key not in LEFT_OUT}
        words = config.get("lmms_eval_specific_kwargs", {}).get("default", {})
        options = config.get("generation_kwargs", {})
        kind = config.get("output_type", "generate_until")
        if kind != "generate_until":
            raise ValueError(f"{stock}: output_type must be generate_until, got {kind}")
        if any(entry["metric"] == JUDGED for entry in config.get("metric_list", ())):
            raise ValueError(
                f"{stock}: its metric {JUDGED} asks a judge while it scores, and is 0 where the "
                "judge does not answer; use a task with another metric, and mustdrop judge later"
            )
        config |= {
            "task": name,
            "dataset_path": data,
            "test_split": split,
            "generation_kwargs": {**options, "max_new_tokens": max_new_tokens, "do_sample": False},
        }
        config.pop("lmms_eval_specific_kwargs", None)
        if words := {**words, **dict(prompt)}:  # else functions of the yaml would get an empty one
            config["lmms_eval_specific_kwargs"] = {"default": words}
        try:
            super().__init__(config=self.adapted(config))
            self.dataset = {split: self.illustrated}
            self.task_docs = self.test_docs()
            self.features = list(self.task_docs.features)
            with naming(document_name(name, 0)):
                self._try_first()
        except (KeyError, DocumentError) as error:
            missing = error.__cause__ if isinstance(error, DocumentError) else error
            if not isinstance(missing, KeyError):
                raise
            raise ValueError(f"{name}: rows of {data} lack the column {missing}") from error

    def _try_first(self) -> None:
        """Read and score the first document, so that a missing column is an error before work."""
        with suppress(UnreadableImage), decoding():  # the run leaves out such a document
            self.doc_to_messages(self.eval_docs[0])
        # Unlike process_results, this neither retries nor hides the error.
        if callable(self.config.process_results):
            self.config.process_results(self.dataset_no_image[self.split][0], [""])

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        """Config of the task; subclasses change it for their benchmark."""
        return config

    def require(self, wanted: int) -> None:
        """Raise ValueError if the first ``wanted`` documents cannot be scored alone."""

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.illustrated = rows = self.rows()
        plain = rows.remove_columns(picture_columns(rows))
        # lmms-eval reads the first row next; its image may be damaged, and is not needed for that.
        self.dataset, self.dataset_no_image = {self.split: plain}, {self.split: plain}

    def rows(self, subset: str | None = None) -> Any:
        """Rows of the split in a subset, by default the task's subset."""
        try:
            return load_rows(self.data, subset or self.subset, self.split)
        except ValueError as error:
            name = self.config.task.removesuffix("_calibration")
            raise ValueError(
                f"{name}: {error}; to use a folder of its parquet files, set "
                "benchmark.data=/path/to/folder"
            ) from error

    def doc_to_messages(self, doc: Any, **rounds: Any) -> Any:
        """Messages of a document; lmms-eval's own code would clip 16-bit images to white.

        Raises:
            UnreadableImage: If the row has no image and the benchmark's questions need one.
        """
        try:
            return super().doc_to_messages(with_eight_bits(doc), **rounds)
        except AttributeError as error:  # from None.convert in lmms-eval's task
            if doc.get(PICTURE, "") is not None:
                raise
            raise UnreadableImage("the row has no image") from error

    def doc_to_target(self, doc: Mapping[str, Any]) -> Any:
        """Target for the records; the most frequent answer if several people answered.

        lmms-eval's yaml names a column ``answer`` that such rows lack, and would return that word.
        A benchmark without a function that scores, such as DocVQA, is scored by the target itself.
        """
        answers = doc.get("answers")
        if not answers or not callable(self.config.process_results):
            return super().doc_to_target(dict(doc))
        texts = [entry["answer"] if isinstance(entry, Mapping) else entry for entry in answers]
        return Counter(texts).most_common(1)[0][0]


def _yaml(path: Path) -> dict[str, Any]:
    with unchanged_process():  # loading the yaml imports the task's module
        try:
            config = load_yaml_config(str(path))
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{path.name} of lmms-eval needs the package {error.name}, which is not installed"
            ) from error
    assert isinstance(config, dict)
    return config


def with_metrics(config: dict[str, Any], metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Config of a task with more metrics after lmms-eval's."""
    return {**config, "metric_list": [*config["metric_list"], *metrics]}
