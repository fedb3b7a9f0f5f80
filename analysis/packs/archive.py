"""Writes a pack as a zip file with the same bytes each time, and opens one without trusting it.

A pack is data: nothing in it is run, and no name in it leads out of the folder that it is opened
in. The hashes of its manifest find damage and careless edits; they are no signature.
"""

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.packs.contents import FORMAT, MANIFEST, RECORD, RUNS, SAMPLES

PART = r"\w[\w.+%@-]*"
NAME = re.compile(rf"{RUNS}/(?:{PART}/){{5}}(?:{re.escape(RECORD)}|{re.escape(SAMPLES)})")
ENTRIES = ("mustdrop", "runs", "methods", "code", "files")  # of the manifest, besides its format
MOST_BYTES = 4 << 30  # of all files of a pack together, unpacked
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can state


class RefusedPack(ValueError):
    """A pack that is damaged, or that does not agree with others."""


@dataclass(frozen=True)
class Pack:
    """An opened pack whose files are as its manifest states.

    Attributes:
        name: Name of its file, with folders where another pack has the same one.
        digest: SHA-256 of the manifest, which has the hash of every other file.
        folder: Folder that it was opened in.
        manifest: Content of its manifest.
    """

    name: str
    digest: str
    folder: Path
    manifest: Mapping[str, Any]


def write_pack(path: Path, files: Mapping[str, bytes]) -> bool:
    """Write a pack; returns False if the file holds the same pack already.

    Raises:
        ValueError: If a file name cannot stand in a pack, or another file has the path.
    """
    for name in files:
        if name != MANIFEST and not NAME.fullmatch(name):
            raise ValueError(
                f"{name} cannot be a name in a pack: names of models, methods, budgets and "
                "benchmarks need letters, digits and ._+%@- only"
            )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EARLIEST)
            info.create_system, info.external_attr = 3, 0o644 << 16  # Unix, on every system
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    content = out.getvalue()
    if path.exists():
        if path.is_file() and path.read_bytes() == content:
            return False
        raise ValueError(
            f"{path} exists and is not this pack: give another name with --output, or remove it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return True


def pack_names(paths: Sequence[Path]) -> list[str]:
    """Short name of each file: its name, with as many folders as tell it from the others."""
    depth = 1
    while True:
        names = ["/".join(path.absolute().parts[-depth:]) for path in paths]
        if len({*names}) == len({path.absolute() for path in paths}):
            return names
        depth += 1


def open_pack(path: Path, name: str, folder: Path) -> Pack:
    """Check a pack and unpack it.

    Args:
        path: File of the pack.
        name: Name of the pack in messages and on the board.
        folder: Empty folder for its files.

    Raises:
        FileNotFoundError: If the file is missing.
        RefusedPack: If it is no pack, is damaged or has files that its manifest does not state.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no pack {path}: mustdrop pack writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            files = _files(archive, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise RefusedPack(f"{name} is no whole zip file: {error}") from error
    manifest = _manifest(files.pop(MANIFEST, None), name)
    stated = manifest["files"]
    if different := sorted({*files} ^ {*stated}):
        state = "is not in its manifest" if different[0] in files else "is missing"
        raise RefusedPack(f"{name}: {different[0]} {state}")
    for file, content in sorted(files.items()):
        actual = hashlib.sha256(content).hexdigest()
        if actual != stated[file]:
            raise RefusedPack(
                f"{name}: {file} was changed: its SHA-256 is {actual[:12]}..., the manifest states "
                f"{str(stated[file])[:12]}..."
            )
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return Pack(name, digest, folder, manifest)


def _files(archive: zipfile.ZipFile, name: str) -> dict[str, bytes]:
    """Content of each file of an archive, whose names are checked first."""
    infos = archive.infolist()
    for info in infos:
        if info.filename != MANIFEST and not NAME.fullmatch(info.filename):
            raise RefusedPack(
                f"{name} holds {info.filename!r}: a pack has {MANIFEST} and "
                f"{RUNS}/<experiment>/<model>/<method>/<budget>/<run>/{RECORD} or {SAMPLES} only"
            )
    if len({info.filename for info in infos}) < len(infos):
        raise RefusedPack(f"{name} holds two files of the same name")
    if (size := sum(info.file_size for info in infos)) > MOST_BYTES:
        raise RefusedPack(f"{name} has {size} bytes unpacked, more than {MOST_BYTES}")
    return {info.filename: archive.read(info) for info in infos}


def _manifest(content: bytes | None, name: str) -> dict[str, Any]:
    if content is None:
        raise RefusedPack(f"{name} is no pack: it has no {MANIFEST}")
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise RefusedPack(f"{name}: {MANIFEST} is not valid JSON ({error})") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise RefusedPack(f"{name} has format {version}, expected {FORMAT}")
    for entry in ENTRIES[1:]:
        if not isinstance(manifest.get(entry), dict):
            raise RefusedPack(f"{name}: {MANIFEST} has no {entry}")
    return manifest
