"""The fingerprint of a run: its code, its model, its benchmark rows and their libraries.

The code of a run is the modules that it imports, as syntax trees: its strategies, its task, the
adapter, the engine and what they rest on. Another method, a comment or a docstring changes no
fingerprint. Local weights and rows enter by the content of their files, large files by
a part of their blocks (:mod:`mustdrop.provenance.content`), checkpoints of the hub by their commit.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mustdrop.models import ADAPTERS
from mustdrop.models.encoders import ENCODERS
from mustdrop.provenance.checkpoint_files import (
    PACKAGED_FOLDERS,
    checkpoint_files,
    checkpoint_folder,
)
from mustdrop.provenance.content import content_hash
from mustdrop.provenance.folders import local_folder
from mustdrop.provenance.media_files import question_inputs, video_inputs
from mustdrop.provenance.row_files import row_files, subsets_read
from mustdrop.provenance.syntax import imported_modules, module_file, syntax_hash
from mustdrop.runs.fingerprint import MISSING, Fingerprint

PACKAGE = Path(__file__).parents[1]
# Modules that every run imports, whatever its config.
ROOTS = ("mustdrop.evaluation.job", "mustdrop.checkpoint")
# Modules that write answers down and do not decide them.
ASIDE = (
    "mustdrop.runs", "mustdrop.tracking", "mustdrop.provenance", "mustdrop.evaluation.progress",
    "mustdrop.evaluation.ranks",
)  # fmt: skip
# datasets rotates images by their EXIF orientation; pillow and numpy turn them into pixels
LIBRARIES = (
    "torch", "transformers", "tokenizers", "pillow", "numpy", "datasets", "lmms-eval",
)  # fmt: skip


def run_fingerprint(config: Mapping[str, Any], fetch: bool = False) -> Fingerprint:
    """Fingerprint of a run.

    Args:
        config: Resolved config.
        fetch: Whether to use the network; if not, only the hub's local cache is searched.
    """
    model = config["model"]
    files, versions = code_hashes(config), library_versions()
    if model.get("frames") is not None:
        versions["av"] = _version("av")  # decodes videos
    inputs = {**model_inputs(model, fetch), **_row_inputs(config["benchmark"]["task"], fetch)}
    if model["pretrained"] in PACKAGED_FOLDERS:
        for path in checkpoint_files(PACKAGED_FOLDERS[model["pretrained"]]):
            files[path.relative_to(PACKAGE.parent).as_posix()] = content_hash(path)
    return Fingerprint(files, versions, inputs)


def code_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """Hash of each module that a run imports, by its path from the folder of its package."""
    roots = [*ROOTS, *_target_modules(config), *_adapter_modules(config["model"])]
    modules = imported_modules(roots, ASIDE)
    return {
        _package_path(module, file): syntax_hash(file) for module, file in sorted(modules.items())
    }


def library_versions() -> dict[str, str]:
    """Version of each library that decides an answer; ``none`` where it is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def model_inputs(model: Mapping[str, Any], fetch: bool = False) -> dict[str, str]:
    """Hash of each file of a local model; the commit of a model of the hub."""
    pretrained, label = model["pretrained"], "model.pretrained"
    if pretrained in PACKAGED_FOLDERS:
        return {}
    try:
        folder = checkpoint_folder(pretrained, model.get("revision"), fetch)
    except FileNotFoundError:  # loading the model reports it
        return {label: MISSING}
    if local_folder(pretrained) is None:
        return {label: f"commit {folder.name}"}
    return {
        f"{label}/{path.relative_to(folder).as_posix()}": content_hash(path)
        for path in checkpoint_files(folder)
    }


def _row_inputs(task: Mapping[str, Any], fetch: bool) -> dict[str, str]:
    """Hash of each file of a benchmark's rows; empty where rows are generated."""
    if not isinstance(task.get("data"), str):
        return {}
    label, hashes = "benchmark.data", {}
    if "videos" in task:
        return video_inputs(label, task) or {label: MISSING}
    if "media" in task:
        return question_inputs(label, task) or {label: MISSING}
    for subset in subsets_read(task.get("subset")):
        try:
            paths = row_files(task["data"], subset, task["split"], fetch)
        except ValueError:  # reading the rows reports it
            continue
        hashes |= {f"{label}/{path.parent.name}/{path.name}": content_hash(path) for path in paths}
    return (hashes or {label: MISSING}) | _task_yaml(task.get("stock"))


def _task_yaml(stock: str | None) -> dict[str, str]:
    """Hashes of a user's own lmms-eval yaml and of the yamls and modules beside it.

    Those of lmms-eval are known by its version.
    """
    path = Path(stock or "").expanduser()
    if not path.is_absolute():
        return {}
    files = sorted(f for f in path.parent.glob("*") if f.suffix in (".yaml", ".py"))
    return {f"benchmark.stock/{file.name}": content_hash(file) for file in files}


def _adapter_modules(model: Mapping[str, Any]) -> list[str]:
    """Modules of the adapter and the encoders of a model; empty where its files are missing."""
    try:
        folder = PACKAGED_FOLDERS.get(model["pretrained"]) or checkpoint_folder(
            model["pretrained"], model.get("revision"), fetch=False
        )
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # loading the model reports it
        return []
    names = [name for name in settings.get("architectures") or () if name in ADAPTERS]
    kind = settings.get("vision_config", {}).get("model_type")
    encoders = [kind] if kind in ENCODERS else list(ENCODERS) if names else []
    return [ADAPTERS[name][0] for name in names] + [ENCODERS[name][0] for name in encoders]


def _target_modules(node: Any) -> Iterator[str]:
    """Modules of all classes that a config names as ``_target_``, at any depth."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            module = target.rpartition(".")[0]
            while module and module_file(module) is None:  # a class inside a class
                module = module.rpartition(".")[0]
            yield module
        for value in node.values():
            yield from _target_modules(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _target_modules(value)


def _package_path(module: str, file: Path) -> str:
    """Path of a source file from the folder that holds its top package."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.relative_to(file.parents[depth]).as_posix()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
