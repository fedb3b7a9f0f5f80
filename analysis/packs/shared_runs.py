"""Reads the runs of opened packs, and checks each run for contradictions. Compares no two runs."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.packs.archive import Pack, RefusedPack
from analysis.packs.contents import RUNS, run_entry, run_name
from analysis.records.cells import RunResult, agree, load_runs
from analysis.records.left_out import LeftOut

CODE = ("files", "versions", "inputs")  # parts of the code of a run; a run may have no inputs
ROUNDING = 1e-6  # share by which two computations of one mean may differ


@dataclass(frozen=True, eq=False)
class SharedRun:
    """A run with its origin and its code.

    Attributes:
        origin: Name of the pack, or the folder of a run that is not packed yet.
        cell: The run.
        code: Hashes of its modules and inputs, and versions of its libraries; from its fingerprint.
    """

    origin: str
    cell: RunResult
    code: Mapping[str, Mapping[str, str]]

    @property
    def title(self) -> str:
        """Method and budget with the origin, for messages."""
        return f"{self.origin} ({self.cell['method']} {self.cell['budget']})"


def runs_of_pack(pack: Pack) -> list[SharedRun]:
    """Runs of an opened pack.

    Raises:
        RefusedPack: If a run cannot be read, or contradicts its samples or the manifest.
    """
    runs = []
    for name, entry in sorted(pack.manifest["runs"].items()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", LeftOut)
                (cell,) = load_runs([pack.folder / RUNS / name])
        except (LeftOut, KeyError, TypeError, ValueError) as error:
            reason = str(error).replace(f"{pack.folder}/", "")
            raise RefusedPack(f"{pack.name}: {name} cannot be read: {reason}") from error
        runs.append(_checked(pack, name, entry, cell))
    folders = {file.rpartition("/")[0] for file in pack.manifest["files"]}
    stated = {f"{RUNS}/{name}" for name in pack.manifest["runs"]}
    if not runs or folders != stated:
        other = min(folders ^ stated, default="no run")
        raise RefusedPack(f"{pack.name}: its manifest and its files have different runs: {other}")
    return runs


def _checked(pack: Pack, name: str, entry: Any, cell: RunResult) -> SharedRun:
    """A run that agrees with itself and with the manifest."""
    record = cell.record
    if name != (expected := run_name(record)):
        raise RefusedPack(f"{pack.name}: the run {name} states in its record that it is {expected}")
    for field, value in run_entry(record).items():
        if not isinstance(entry, dict) or entry.get(field) != value:
            stated = entry.get(field) if isinstance(entry, dict) else entry
            raise RefusedPack(
                f"{pack.name}: {name}: {field} is {value!r} in the record, {stated!r} in the "
                "manifest"
            )
    code = pack.manifest["code"].get(cell["fingerprint"])
    if (
        not isinstance(code, dict)
        or not all(_texts(code.get(part, {})) for part in CODE)
        or not (code.get("files") and code.get("versions"))
    ):
        raise RefusedPack(f"{pack.name}: the manifest has no code of {name}")
    for part in ("model", "benchmark"):
        if not isinstance(record["config"].get(part), dict):
            raise RefusedPack(f"{pack.name}: {name}: its config has no {part}")
    if not _texts(record["versions"]):
        raise RefusedPack(f"{pack.name}: {name}: its record has no versions of libraries")
    budget = record["config"].get("budget")
    if cell["budget"] != (configured := budget["name"] if budget else "none"):
        raise RefusedPack(
            f"{pack.name}: {name}: its budget is {cell['budget']}, its config has {configured}"
        )
    if cell.metric is not None:
        layers = [tokens for tokens in cell.samples["vision_tokens"]]
        actual = sum(sum(tokens) / len(tokens) for tokens in layers) / len(layers)
        if not agree(actual, cell.executed, ROUNDING):
            raise RefusedPack(
                f"{pack.name}: {name}: its record states an executed average of "
                f"{cell.executed:.1f}, its samples have {actual:.1f}"
            )
    return SharedRun(pack.name, cell, code)


def _texts(value: Any) -> bool:
    """Whether a value is a mapping of texts."""
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
