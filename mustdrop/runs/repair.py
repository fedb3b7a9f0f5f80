"""A damaged run folder: what is broken in it, and what can be made whole again without a guess.

Samples are the truth. A torn last one is answered again; a record, a trace and a config are made
anew from them. A broken sample in the middle is nobody's to mend: it is refused by name.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from mustdrop.runs.folder import (
    TornFile,
    has_trace,
    read_record,
    read_samples,
    read_status,
    trace_path,
)


def damage(folder: Path, traces: Sequence[int] = ()) -> list[TornFile]:
    """What of a run's files cannot be read; empty where all of them can, or there are none.

    Args:
        folder: Folder of the run; it need not be there.
        traces: Samples whose ledger is needed.
    """
    found = []
    for read in (read_samples, read_record, read_status, read_config):
        try:
            read(folder)
        except TornFile as error:
            found.append(error)
    for doc in traces:
        if trace_path(folder, doc).exists() and not has_trace(folder, doc):
            found.append(TornFile(trace_path(folder, doc), "torn"))
    return found


def broken_sample(folder: Path) -> TornFile | None:
    """The first sample that nobody can mend: broken, and not the last one. None: there is none."""
    try:
        read_samples(folder)
    except TornFile as error:
        ends = error.path.read_bytes().count(b"\n")
        return error if error.line is not None and error.line < ends else None
    return None


def read_config(folder: Path) -> dict:
    """What a run was asked for, resolved; empty before it began.

    Raises:
        TornFile: If it cannot be read.
    """
    path = Path(folder) / "config.yaml"
    if not path.exists():
        return {}
    try:
        config = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise TornFile(path, f"torn, or no YAML ({reason})", mark and mark.line + 1) from error
    if not isinstance(config, dict) or "benchmark" not in config:
        raise TornFile(path, "torn: it names no benchmark")
    return config


def cut_torn_line(folder: Path) -> int | None:
    """Cut what a process that was killed in mid-write left behind the last whole sample.

    Half a line would swallow the next one; a last line that has its end but is no sample goes too.

    Returns:
        Bytes that stay; None where nothing was cut.
    """
    path = folder / "samples.jsonl"
    text = path.read_bytes() if path.exists() else b""
    whole = text.rfind(b"\n") + 1
    before = text.rfind(b"\n", 0, whole - 1) + 1 if whole else 0
    if whole and not _is_sample(text[before:whole]):
        whole = before
    if whole == len(text):
        return None
    os.truncate(path, whole)
    return whole


def code_of(folder: Path) -> dict:
    """The status of a run; where that is torn, what its record says of the code that ran.

    Raises:
        TornFile: If nothing says which code made the samples that are there.
    """
    try:
        return read_status(folder)
    except TornFile:
        if not read_samples(folder):
            return {}
        try:
            record = read_record(folder)
        except TornFile:
            record = None
        if record is None:
            raise
        kept = ("fingerprint", "started", "timing")
        return {name: record.get(name) for name in kept}


def status_or_none(folder: Path) -> dict:
    """The status of a run; empty where there is none, or it is torn."""
    try:
        return read_status(folder)
    except TornFile:
        return {}


def _is_sample(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and "doc_id" in value
