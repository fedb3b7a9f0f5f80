"""A cell's samples while several ranks answer them: a file a rank, joined when all are there.

    parts-<fingerprint>/<rank>.jsonl

Document i is rank i's, modulo their number, unless some file holds it already: so any number of
ranks goes on where any other was killed. Only whole parts reach samples.jsonl, in the order of the
documents. Knows no model and no launcher.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.runs.folder import read_lines
from mustdrop.runs.writer import writing


def shards_folder(folder: Path, mark: str) -> Path:
    """Where the parts of a run's samples lie that code with this fingerprint made."""
    return folder / f"parts-{mark}"


def read_shards(parts: Path) -> dict[int, dict[str, Any]]:
    """What all ranks have answered, by doc_id and in its order; lines torn by a kill left out.

    Raises:
        TornFile: If a line that has its end is no sample.
    """
    found = {}
    for path in sorted(parts.glob("*.jsonl")):
        found |= {line["doc_id"]: line for line in read_lines(path)}
    return dict(sorted(found.items()))


def put_aside(parts: Path) -> None:
    """Rename what an earlier run left to the first number that is free."""
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
    """Move the first ``wanted`` documents to the run's own; later ones stay where they are.

    Args:
        parts: Where the ranks' files lie.
        samples: What the run holds; ``add`` makes it more.
        add: Writes one sample.
        wanted: Documents.
    """
    found = read_shards(parts)
    for doc, sample in found.items():
        if doc < wanted and doc not in samples:
            add(sample)
    if found.keys() <= samples.keys():
        for path in parts.glob("*.jsonl"):
            path.unlink()
        if parts.exists():
            parts.rmdir()


class Shard:
    """One rank's file, open for more; a context."""

    def __init__(self, parts: Path, rank: int) -> None:
        self._folder = parts.parent
        with writing(self._folder):
            parts.mkdir(parents=True, exist_ok=True)
            path = parts / f"{rank}.jsonl"
            if path.exists():  # half a line that a kill left would swallow the next one
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
        """Write one sample; it is on disk when this returns."""
        with writing(self._folder):
            self._lines.write(json.dumps(sample).encode() + b"\n")
