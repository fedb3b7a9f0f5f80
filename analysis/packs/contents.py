"""The files of a pack: records and samples of finished runs without private parts, and a manifest.

    manifest.json                  versions, code, hardware and names of the runs; hash of each file
    runs/<experiment>/<model>/<method>/<budget>/<benchmark>-<key>/
      record.json                  the record, without the settings that decide no result
      samples.jsonl                one line per sample: question, target, answer, scores, counts

A pack holds no picture, no trace, no log and no status. Writes no file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.packs.private import PrivateTexts
from analysis.records.cells import RunResult
from mustdrop.runs.folder import TornFile, read_samples, read_status
from mustdrop.runs.key import UNKEYED

FORMAT = 1
MANIFEST, RUNS = "manifest.json", "runs"
RECORD, SAMPLES = "record.json", "samples.jsonl"
# Fields of a record that the manifest repeats for its readers.
REPEATED = (
    "model", "benchmark", "method", "budget", "n", "metric", "key", "seed", "started", "finished",
    "fingerprint", "versions", "hardware",
)  # fmt: skip
LEFT_OUT = (
    "pictures and traces", "run.log and status.json, but for the code of the run",
    "config.yaml, whose settings are in record.json", "efficiency.json and verdicts of judges",
    f"settings that decide no result: {', '.join(UNKEYED)}",
)  # fmt: skip


def pack_files(
    cells: Sequence[RunResult],
    methods: Mapping[str, Mapping[str, str]],
    version: str,
    private: PrivateTexts,
) -> dict[str, bytes]:
    """Content of each file of a pack, by its name; the same runs give the same bytes.

    Args:
        cells: Runs.
        methods: Description and source of each method.
        version: Version of mustdrop that writes the pack.
        private: Texts to replace.

    Raises:
        TornFile: If a run does not state the code that made it.
        ValueError: If there is no run, or two different runs have the same names.
    """
    if not cells:
        raise ValueError("a pack needs a finished run, there is none")
    files: dict[str, bytes] = {}
    origins: dict[str, str] = {}
    runs: dict[str, dict[str, Any]] = {}
    codes: dict[str, Any] = {}
    for cell in cells:
        folder, name = Path(cell["folder"]), run_name(cell.record)
        codes[cell["fingerprint"]] = private.record(_code(cell, folder))
        record = _shared_record(cell.record, private)
        lines = [private.record(line) for line in read_samples(folder)[: cell["n"]]]
        content = {
            f"{RUNS}/{name}/{RECORD}": _json(record),
            f"{RUNS}/{name}/{SAMPLES}": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        }
        if any(files.get(path, data) != data for path, data in content.items()):
            raise ValueError(
                f"{origins[name]} and {folder} are different runs with the same names ({name}): "
                "pack them separately"
            )
        files |= content
        origins[name], runs[name] = str(folder), run_entry(record)
    manifest = {
        "format": FORMAT,
        "mustdrop": version,
        "runs": dict(sorted(runs.items())),
        "methods": {name: dict(methods[name]) for name in sorted(methods)},
        "code": dict(sorted(codes.items())),
        "left_out": list(LEFT_OUT),
        "replaced": dict(sorted(private.replaced.items())),
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    return {MANIFEST: _json(manifest), **dict(sorted(files.items()))}


def run_name(record: Mapping[str, Any]) -> str:
    """Folder of a run in a pack."""
    image = record["config"].get("image")
    benchmark = "-".join([record["benchmark"], *([image["name"]] if image else []), record["key"]])
    names = (record[name] for name in ("experiment", "model", "method", "budget"))
    return "/".join([*names, benchmark])


def run_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """Entry of a run in the manifest."""
    return {name: record[name] for name in REPEATED}


def _code(cell: RunResult, folder: Path) -> dict[str, Any]:
    """Hashes and versions behind the fingerprint of a run."""
    status = read_status(folder)
    if not status.get("code") or status.get("fingerprint") != cell["fingerprint"]:
        raise TornFile(
            folder / "status.json",
            "it does not state the code of the record, so nobody could compare the run: "
            "mustdrop run with force=true measures it again",
        )
    return status["code"]


def _shared_record(record: Mapping[str, Any], private: PrivateTexts) -> dict[str, Any]:
    """Record without private texts and without the settings that decide no result."""
    config = {name: value for name, value in record["config"].items() if name not in UNKEYED}
    entries = {name: value for name, value in record.items() if name not in ("folder", "config")}
    return {**private.record(entries), "config": private.config(config)}


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
