"""Checks of a benchmark's rows: their number, their targets, the split for thresholds."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import OmegaConf

from analysis.published.numbers import REFERENCE
from experiments.cli.errors import KNOWN, message
from experiments.doctor.findings import Finding
from mustdrop.evaluation.tasks.stock import StockTask
from mustdrop.presets.compose import read_yaml
from mustdrop.presets.folders import conf_dir

MORE = 100  # largest number of rows that a sample is extended by, to end with a whole group
LOOKED_AT = 200  # rows whose targets are compared


def rows(task: Any, config: Mapping[str, Any]) -> list[Finding]:
    """Number of rows beside that of the papers' split, and whether targets are there."""
    name, docs = config["benchmark"]["name"], task.eval_docs
    split = task.config.test_split
    count, known = len(docs), official_rows(name)
    facts = {"split": split, "rows": count, "official": known}
    if known is None:
        finding = Finding("rows", "ok", f"{count:,} questions in split {split}", facts)
    elif count == known:
        text = f"{count:,} questions in split {split}, as many as the papers' split has"
        finding = Finding("rows", "ok", text, facts)
    else:
        text = (
            f"split {split} has {count:,} questions, but the papers' split of {name} has "
            f"{known:,}: another split, or a part of it; published numbers are about the papers'"
        )
        finding = Finding("rows", "warning", text, facts)
    return [finding, *other_split(config), targets(task), calibration(config)]


def other_split(config: Mapping[str, Any]) -> list[Finding]:
    """A warning if the split or the subset is not that of the benchmark's yaml."""
    given, path = config["benchmark"], conf_dir() / f"benchmark/{config['benchmark']['name']}.yaml"
    if not path.is_file():
        return []
    usual = read_yaml(path).task
    return [
        Finding(
            "split",
            "warning",
            f"benchmark.task.{field} is {given['task'][field]}, not {usual[field]} as in the yaml "
            "of this benchmark: published numbers are about the latter",
            {field: given["task"][field]},
        )
        for field in ("split", "subset")
        if field in usual and given["task"].get(field) != usual[field]
    ]


def targets(task: Any) -> Finding:
    """Whether the targets differ: a split of a test server has none."""
    docs = task.eval_docs
    step = max(1, len(docs) // LOOKED_AT)
    looked = [docs[index] for index in range(0, len(docs), step)][:LOOKED_AT]
    texts = [str(task.doc_to_target(doc)).strip() for doc in looked]
    (commonest, times), *_ = Counter(texts).most_common(1)
    facts = {"looked_at": len(texts), "different": len(set(texts))}
    if not any(texts) or (times == len(texts) > 1):
        text = (
            f"all {len(texts)} targets are {commonest!r}: the answers of this split "
            f"({task.config.test_split}) are hidden, as on a test server; choose a split with "
            "answers"
        )
        return Finding("targets", "wrong", text, facts)
    shown = ", ".join(list(dict.fromkeys(texts))[:4])
    text = f"{len(set(texts))} different targets in {len(texts)} rows, such as {shown}"
    return Finding("targets", "ok", text, facts)


def calibration(config: Mapping[str, Any]) -> Finding:
    """Whether the split on which thresholds are found can be read."""
    node = config["benchmark"].get("calibration")
    if node is None:
        text = (
            "this benchmark has no split to find thresholds on; methods with thresholds need "
            "values found on another benchmark, as in prefill.gamma=1.0e-3 prefill.alpha=1.0e-2"
        )
        return Finding("calibration", "note", text)
    try:
        task = instantiate(OmegaConf.create(dict(node)))
    except KNOWN as error:
        text = f"the split for thresholds cannot be read: {message(error)}"
        return Finding("calibration", "note", text)
    count = len(task.eval_docs)
    text = f"{count:,} prompts in split {task.config.test_split} to find thresholds on"
    return Finding("calibration", "ok", text, {"rows": count})


def scorable(task: Any, limit: int) -> int:
    """Smallest number of first rows, from ``limit`` on, that the benchmark can score alone.

    MME needs both questions of an image.
    """
    available = len(task.eval_docs)
    if not isinstance(task, StockTask) or limit >= available:
        return min(limit, available)
    for count in range(limit, min(limit + MORE, available) + 1):
        try:
            task.require(count)
        except ValueError:
            continue
        return count
    return available


def official_rows(benchmark: str) -> int | None:
    """Number of questions of the split that papers report; None if it is not listed."""
    frame = pd.read_csv(REFERENCE / "splits.csv", index_col="benchmark")
    return int(frame["rows"].to_dict()[benchmark]) if benchmark in frame.index else None
