"""Fingerprint: hashes of all that decides the answers of a run. Computes no hash itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

MISSING = "not there"


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of what decides the answers of a run.

    Attributes:
        files: Hash of each module of the code and of each file of the packaged model, by path.
        versions: Versions of the libraries that decide what a model answers.
        inputs: Hash of each file of the user's own model and benchmark rows; empty where the run
            has none.
    """

    files: Mapping[str, str]
    versions: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stored(cls, state: Mapping[str, Mapping[str, str]]) -> "Fingerprint":
        """Fingerprint that :meth:`as_dict` turned into plain data."""
        return cls(state["files"], state["versions"], state.get("inputs", {}))

    @property
    def id(self) -> str:
        """Sixteen digits that stand for all of it."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differs(self, other_id: str | None) -> bool:
        """Whether a record with this id was made by something else.

        Always False where the model or the rows are missing now: a record stays valid without
        them.
        """
        return MISSING not in self.inputs.values() and self.id != other_id

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Plain data, for a status file."""
        state = {"files": dict(self.files), "versions": dict(self.versions)}
        return {**state, "inputs": dict(self.inputs)} if self.inputs else state

    def differences(self, later: "Fingerprint") -> list[str]:
        """Changes from this fingerprint to a later one, one phrase each."""
        changes = []
        for before, after in ((self.inputs, later.inputs), (self.files, later.files)):
            for name in sorted({*before, *after}):
                old, new = before.get(name), after.get(name)
                if old != new:
                    change = "new" if old is None else "gone" if new is None else "changed"
                    changes.append(f"{name} {MISSING if new == MISSING else change}")
        for name in sorted({*self.versions, *later.versions}):
            old, new = self.versions.get(name), later.versions.get(name)
            if old != new:
                changes.append(f"{name} {old} -> {new}")
        return changes
