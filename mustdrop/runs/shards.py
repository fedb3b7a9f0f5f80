"""Samples of a run that several ranks answer: one file per rank, merged when all are answered.

    parts-<fingerprint>/<rank>.jsonl

Rank r answers the documents i with i modulo the number of ranks equal to r, unless a file holds
them already. So a killed run can be continued with any other number of ranks. Samples are moved to
samples.jsonl only when all are answered, in the order of the documents. Knows no model and no
launcher.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.runs.disk import writing
from mustdrop.runs.folder import read_lines


def shards_folder(folder: Path, fingerprint: str) -> Path:
    """Folder of the rank files whose samples were made by code with this fingerprint."""
    return folder / f"parts-{fingerprint}"


def read_shards(parts: Path) -> dict[int, dict[str, Any]]:
    """Samples of all ranks by doc_id, in ascending order; incomplete last lines are left out.

    Raises:
        TornFile: If a complete line is not a sample.
    """
    samples = {}
    for path in sorted(parts.glob("*.jsonl")):
        samples |= {line["doc_id"]: line for line in read_lines(path)}
    return dict(sorted(samples.items()))


def put_aside(parts: Path) -> None:
    """Rename the folder of an earlier run: append the first free number."""
    number = 1
    while parts.with_name(f"{parts.name}.{number}").exists():
        number += 1
    if parts.exists():
        parts.rename(parts.with_name(f"{parts.name}.{number}"))


def merge_shards(
    parts: Path,
    samples: Mapping[int, Mapping[str, Any]],
    add: Callable[[Mapping[str, Any]], None],
    wanted: int,
) -> None:
    """Move the samples of the first ``wanted`` documents to the run; later ones stay in the files.

    Args:
        parts: Folder of the rank files.
        samples: Samples of the run by doc_id; ``add`` adds to them.
        add: Writes one sample to the run.
        wanted: Number of documents.
    """
    answered = read_shards(parts)
    for doc, sample in answered.items():
        if doc < wanted and doc not in samples:
            add(sample)
    if answered.keys() <= samples.keys():
        for path in parts.glob("*.jsonl"):
            path.unlink()
        if parts.exists():
            parts.rmdir()


class Shard:
    """Sample file of one rank, open for appending; a context manager."""

    def __init__(self, parts: Path, rank: int) -> None:
        self._folder = parts.parent
        with writing(self._folder):
            parts.mkdir(parents=True, exist_ok=True)
            path = parts / f"{rank}.jsonl"
            if path.exists():  # cut an incomplete line, or the next sample would be appended to it
                os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
            self._lines = path.open("ab", buffering=0)

    def __enter__(self) -> "Shard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()

    def add(self, sample: Mapping[str, Any]) -> None:
        """Write one sample to disk before returning."""
        with writing(self._folder):
            self._lines.write(json.dumps(sample).encode() + b"\n")
