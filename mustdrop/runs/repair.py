"""Finds damage in a run folder, and repairs what can be repaired without guessing.

Samples are the truth. A torn last sample is answered again; record, traces and config are written
again. A broken sample in the middle cannot be repaired: the run is refused, and the message names
the line.
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
    """Files of a run that exist and cannot be read.

    Args:
        folder: Folder of the run; it need not exist.
        traces: Document ids of the samples whose ledger is needed.
    """
    errors = []
    for read in (read_samples, read_record, read_status, read_config):
        try:
            read(folder)
        except TornFile as error:
            errors.append(error)
    for doc in traces:
        if trace_path(folder, doc).exists() and not has_trace(folder, doc):
            errors.append(TornFile(trace_path(folder, doc), "torn: not a complete archive"))
    return errors


def broken_sample(folder: Path) -> TornFile | None:
    """First broken sample that is not the last one, so that it cannot be repaired; None if none."""
    try:
        read_samples(folder)
    except TornFile as error:
        ends = error.path.read_bytes().count(b"\n")
        return error if error.line is not None and error.line < ends else None
    return None


def read_config(folder: Path) -> dict:
    """Resolved config of a run; empty before the run begins.

    Raises:
        TornFile: If the file cannot be read.
    """
    path = Path(folder) / "config.yaml"
    if not path.exists():
        return {}
    try:
        config = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise TornFile(path, f"torn: not valid YAML ({reason})", mark and mark.line + 1) from error
    if not isinstance(config, dict) or "benchmark" not in config:
        raise TornFile(path, "torn: it has no benchmark")
    return config


def cut_torn_line(folder: Path) -> int | None:
    """Cut off an incomplete last line, which a killed process left in samples.jsonl.

    Otherwise the next sample would be appended to half a line. A complete last line that is not a
    sample is cut as well.

    Returns:
        Number of bytes that are left; None if nothing was cut.
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
    """Status of a run; if the file is torn, the code fingerprint from the record instead.

    Raises:
        TornFile: If there are samples and no file states which code made them.
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
        return {name: record.get(name) for name in ("fingerprint", "started", "timing")}


def status_or_none(folder: Path) -> dict:
    """Status of a run; empty if the file is missing or torn."""
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
