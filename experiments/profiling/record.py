"""efficiency.json in a run's folder: written after every round, continued by the same command."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mustdrop.profiling.break_even import break_even_on_all_axes
from mustdrop.profiling.summary import reached, summarised
from mustdrop.runs.folder import EFFICIENCY, TornFile, now, read_efficiency
from mustdrop.runs.writer import Busy, Unwritable, writing

SCHEMA = 2
RUNNING, DONE = "running", "done"


class EfficiencyRecord:
    """Record of a profile, and its file.

    Args:
        folder: Folder of the run.
        settings: What decides the measurements: two rounds with other settings are never mixed.
        about: Names of the run, and descriptions of the device and the counts.
        force: Whether a profile with other settings is moved aside.

    Raises:
        ValueError: If the folder holds a profile with other settings or of another format, or a
            torn one.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any], force: bool
    ) -> None:
        self.path = folder / EFFICIENCY
        try:
            stored = read_efficiency(folder)
        except TornFile as error:
            if not force:
                raise ValueError(f"{error}: force=true measures again") from error
            stored = {}
        if stored is not None and force:
            self._put_aside()
            stored = None
        if stored is None:
            stored = {"schema": SCHEMA, "started": now(), "sessions": 0, "cells": []}
        elif stored["schema"] != SCHEMA:
            raise ValueError(
                f"{self.path} has format {stored['schema']}, this version writes {SCHEMA}: "
                "force=true measures again and keeps the old file under another name"
            )
        elif stored["settings"] != json.loads(json.dumps(settings)):
            changes = _changes(stored["settings"], settings)
            raise ValueError(
                f"{self.path} holds a profile with other settings ({'; '.join(changes)}): "
                "force=true measures again and keeps the old file under another name; another "
                "output_root=<folder> keeps both"
            )
        self.content: dict[str, Any] = {**stored, "state": RUNNING, "settings": dict(settings)}
        self.content |= about
        self.content["sessions"] += 1

    def entry(self, images: int, frames: int, batch: int) -> dict[str, Any]:
        """Entry of a batch, a new one if there is none."""
        for cell in self.content["cells"]:
            if (cell["images"], cell["frames"], cell["batch"]) == (images, frames, batch):
                return cell
        cell = {"images": images, "frames": frames, "batch": batch, "rounds": 0}
        self.content["cells"].append(cell)
        return cell

    def save(self) -> None:
        """Summarise what was measured, and replace the file in one step.

        Raises:
            Unwritable: If it cannot be written; the earlier rounds stay.
        """
        content, sizes = self.content, self.content["depth"]
        for cell in content["cells"]:
            if cell.get("arms"):
                cell["summary"] = summarised(cell, sizes["full"] / sizes["measured"])
                for name, summary in cell["summary"].items():
                    summary["reached"] = reached(
                        cell["arms"][name], summary, content["rates"], content["decoder_bytes"]
                    )
        whole = [cell for cell in content["cells"] if "summary" in cell]
        content["break_even"] = break_even_on_all_axes(whole)
        content["updated"] = now()
        with writing(self.path.parent, "; earlier rounds are safe"):
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(content) + "\n")
            temporary.replace(self.path)

    def finish(self) -> None:
        """Save the record as complete."""
        self.content["state"] = DONE
        self.save()

    def _put_aside(self) -> None:
        number = 1
        while (target := self.path.with_name(f"{EFFICIENCY}.{number}")).exists():
            number += 1
        self.path.rename(target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context in which no other process profiles the run.

    Raises:
        Busy: If another process does.
        Unwritable: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "efficiency.lock").open("w")
    except OSError as error:
        raise Unwritable(f"cannot write to {folder}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process profiles {folder}") from error
        yield


def _changes(before: Mapping[str, Any], now_given: Mapping[str, Any]) -> list[str]:
    names = sorted({*before, *now_given})
    return [
        f"{name} {before.get(name)} -> {now_given.get(name)}"
        for name in names
        if before.get(name) != json.loads(json.dumps(now_given.get(name)))
    ]
