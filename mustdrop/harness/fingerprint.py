"""Which code measured something: a hash of our files and of what they run on. Knows no run.

Not git: a commit that touches no code of ours leaves every finished sample valid.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "transformers", "lmms-eval")
HASHED = ("*.py", "*.safetensors")  # the packaged model answers as much as the code does


@dataclass(frozen=True)
class Fingerprint:
    """The code behind a sample.

    Attributes:
        files: Hash of each file of the package, by its path in it.
        versions: Of the libraries that decide what a model answers.
    """

    files: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def now(cls, package: Path = PACKAGE) -> "Fingerprint":
        """Of the code as it is on disk."""
        found = sorted(path for pattern in HASHED for path in package.rglob(pattern))
        files = {
            path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in found
        }
        return cls(files, {name: _version(name) for name in LIBRARIES})

    @classmethod
    def stored(cls, state: Mapping[str, Any]) -> "Fingerprint":
        """What :meth:`as_dict` wrote."""
        return cls(state["files"], state["versions"])

    @property
    def id(self) -> str:
        """Sixteen digits that stand for all of it."""
        told = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, dict[str, str]]:
        return {"files": dict(self.files), "versions": dict(self.versions)}

    def differences(self, later: "Fingerprint") -> list[str]:
        """What changed from this code to a later one, in words."""
        out = []
        for name in sorted({*self.files, *later.files}):
            before, after = self.files.get(name), later.files.get(name)
            if before != after:
                what = "new" if before is None else "gone" if after is None else "changed"
                out.append(f"{PACKAGE.name}/{name} {what}")
        for name in sorted({*self.versions, *later.versions}):
            before, after = self.versions.get(name), later.versions.get(name)
            if before != after:
                out.append(f"{name} {before} -> {after}")
        return out


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
