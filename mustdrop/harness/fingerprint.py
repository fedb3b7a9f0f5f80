"""What decides a sample: a hash of our code, the model, the rows and their libraries. Knows no run.

Not git: a commit that touches no code of ours leaves every finished sample valid. Weights and rows
of the user's own enter by what is in their files, not by their names; large files by a part of
their blocks (:mod:`mustdrop.harness.content`), the hub's checkpoints by their commit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mustdrop.harness.content import content_hash
from mustdrop.harness.folders import local_folder
from mustdrop.harness.row_files import row_files, subsets_read
from mustdrop.harness.weights import PACKAGED, checkpoint_files, checkpoint_folder

PACKAGE = Path(__file__).parents[1]
# datasets turns pictures as their EXIF orientation says, pillow and numpy make them pixels
LIBRARIES = (
    "torch", "transformers", "tokenizers", "pillow", "numpy", "datasets", "lmms-eval",
)  # fmt: skip
CHECKPOINT = "pocket/checkpoint"  # the packaged model answers as much as the code does
MISSING = "not there"
# An image processor's class: with torchvision transformers takes another backend than without.
BACKEND = "torchvision"


@dataclass(frozen=True)
class Fingerprint:
    """What is behind a sample.

    Attributes:
        files: Hash of each file of the package, by its path in it.
        versions: Versions of the libraries that decide what a model answers.
        inputs: Hash of each file of the model and of the rows that is not the package's; empty
            where all of them are.
    """

    files: Mapping[str, str]
    versions: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, package: Path = PACKAGE) -> "Fingerprint":
        """Fingerprint of the code and the packaged model as they are on disk."""
        found = {*package.rglob("*.py"), *checkpoint_files(package / CHECKPOINT)}
        files = {path.relative_to(package).as_posix(): content_hash(path) for path in sorted(found)}
        return cls(files, {name: _version(name) for name in LIBRARIES})

    @classmethod
    def of(cls, config: Mapping[str, Any], fetch: bool = False) -> "Fingerprint":
        """Fingerprint of a run: the code's, and that of the run's own model and rows.

        Args:
            config: Resolved.
            fetch: Whether what the hub has is fetched; if not, its cache alone is looked into.
        """
        code = cls.now()
        inputs = {
            **model_inputs(config["model"], fetch),
            **_rows(config["benchmark"]["task"], fetch),
        }
        if not inputs:
            return code
        versions = {**code.versions, BACKEND: _version(BACKEND)}
        return replace(code, versions=versions, inputs=inputs)

    @classmethod
    def stored(cls, state: Mapping[str, Any]) -> "Fingerprint":
        """What :meth:`as_dict` wrote."""
        return cls(state["files"], state["versions"], state.get("inputs", {}))

    @property
    def id(self) -> str:
        """Sixteen digits that stand for all of it."""
        told = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def differs(self, other_id: str | None) -> bool:
        """Whether something else was behind a record with this id.

        Never where a model or rows are not there: a record is worth as much without them.
        """
        return MISSING not in self.inputs.values() and self.id != other_id

    def as_dict(self) -> dict[str, dict[str, str]]:
        told = {"files": dict(self.files), "versions": dict(self.versions)}
        return {**told, "inputs": dict(self.inputs)} if self.inputs else told

    def differences(self, later: "Fingerprint") -> list[str]:
        """What changed from this fingerprint to a later one, in words."""
        out = []
        for prefix, before, after in (
            ("", self.inputs, later.inputs),
            (f"{PACKAGE.name}/", self.files, later.files),
        ):
            for name in sorted({*before, *after}):
                old, new = before.get(name), after.get(name)
                if old != new:
                    what = "new" if old is None else "gone" if new is None else "changed"
                    out.append(f"{prefix}{name} {MISSING if new == MISSING else what}")
        for name in sorted({*self.versions, *later.versions}):
            old, new = self.versions.get(name), later.versions.get(name)
            if old != new:
                out.append(f"{name} {old} -> {new}")
        return out


def model_inputs(model: Mapping[str, Any], fetch: bool = False) -> dict[str, str]:
    """The files of a model that is not the package's; of the hub's the commit."""
    pretrained, label = model["pretrained"], "model.pretrained"
    if pretrained == PACKAGED:
        return {}
    try:
        folder = checkpoint_folder(pretrained, model.get("revision"), fetch)
    except FileNotFoundError:  # loading says so in words
        return {label: MISSING}
    if local_folder(pretrained) is None:
        return {label: f"commit {folder.name}"}
    return {
        f"{label}/{path.relative_to(folder).as_posix()}": content_hash(path)
        for path in checkpoint_files(folder)
    }


def _rows(task: Mapping[str, Any], fetch: bool) -> dict[str, str]:
    """The files of a benchmark's rows; none where they are generated."""
    if not isinstance(task.get("data"), str):
        return {}
    label, found = "benchmark.data", {}
    for subset in subsets_read(task.get("subset")):
        try:
            paths = row_files(task["data"], subset, task["split"], fetch)
        except ValueError:  # reading the rows says so in words, where they are needed
            continue
        found |= {f"{label}/{path.parent.name}/{path.name}": content_hash(path) for path in paths}
    return found or {label: MISSING}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
