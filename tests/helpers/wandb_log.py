"""Reads the .wandb log of a run back: LevelDB's log format around wandb's own Record messages.

A log cut off by a kill is read as far as it goes.
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Logged:
    """What a log holds of its run."""

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None


def records(path):
    """The bytes of each message."""
    data = Path(path).read_bytes()
    magic, version = data[:4], data[4:HEAD]
    assert magic == b":W&B", magic
    assert version == b"\xe1\xbe\x00", version
    place, message = HEAD, b""
    while place + HEAD <= len(data):
        rest = BLOCK - place % BLOCK
        if rest < HEAD:  # too little left of a block for a head: filled with zeros
            place += rest
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        chunk = data[place + HEAD : place + HEAD + length]
        if kind == 0 or len(chunk) < length:
            return
        assert kind in (FULL, FIRST, MIDDLE, LAST), kind
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum, f"broken at {place}"
        place += HEAD + length
        message += chunk
        if kind in (FULL, LAST):
            yield message
            message = b""


def read(path):
    """All that a log tells of its run."""
    from wandb.proto import wandb_internal_pb2 as proto

    out = Logged()
    for message in records(path):
        record = proto.Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            out.run = {
                "id": record.run.run_id, "project": record.run.project,
                "name": record.run.display_name, "group": record.run.run_group,
                "job_type": record.run.job_type, "tags": list(record.run.tags),
            }  # fmt: skip
            out.config |= values(record.run.config.update)
        elif kind == "config":
            out.config |= values(record.config.update)
        elif kind == "history":
            out.history.append(values(record.history.item))
        elif kind == "summary":
            out.summary |= values(record.summary.update)
        elif kind == "artifact":
            files = [entry.path for entry in record.artifact.manifest.contents]
            out.artifacts[record.artifact.name] = files
        elif kind == "exit":
            out.exit_code = record.exit.exit_code
    return out


def values(items):
    return {
        ".".join(item.nested_key) if item.nested_key else item.key: json.loads(item.value_json)
        for item in items
    }
