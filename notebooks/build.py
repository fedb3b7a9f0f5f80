"""Run the notebooks (.py) from top to bottom and write them with their outputs (.ipynb).

    python notebooks/build.py                   # all of them, into outputs/notebooks
    python notebooks/build.py 01_first_drop --out elsewhere

A notebook about PocketSmol is written without outputs where its package is not installed. Knows
nothing else about their content.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
SECONDS = 600  # for one cell
NEED_SMOL = ("07_real_language_model",)


def names() -> list[str]:
    """Names of all notebooks, in reading order."""
    return sorted(path.stem for path in HERE.glob("[0-9]*.py"))


def lacking(name: str) -> str | None:
    """Reason why a notebook cannot run here, in a sentence; None if it can."""
    if name not in NEED_SMOL:
        return None
    from mustdrop.pocket.smol.package import weights_file  # imports transformers

    try:
        weights_file()
    except FileNotFoundError as error:
        return str(error)
    return None


def build(name: str, out: Path) -> Path:
    """Run one notebook in the project's folder.

    Where it lacks a package, it is written with a sentence about that and without outputs.

    Raises:
        CellExecutionError: If a cell fails; the outputs of earlier cells are written anyway.
        ValueError: If the notebook does not exist.
    """
    if name not in names():
        raise ValueError(f"notebook must be one of {', '.join(names())}, got {name!r}")
    book = jupytext.read(HERE / f"{name}.py")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.ipynb"
    if reason := lacking(name):
        book.cells.insert(1, nbformat.v4.new_markdown_cell(f"**Not run here**: {reason}"))
        book.metadata["language_info"] = {"name": "python"}
        nbformat.write(book, path)
        print(f"{name} was not run: {reason}", file=sys.stderr)
        return path
    # Cells must find the packages and the records from every working folder.
    variables = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm; no notebook needs widgets
    }
    client = NotebookClient(
        book,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": HERE.parent}},
        extra_arguments=["--log-level=ERROR"],  # hides a warning about the loopback connection
    )
    try:
        client.execute(env={**os.environ, **variables})
    finally:
        nbformat.write(book, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 if all notebooks ran, 1 if a cell failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="notebook")
    parser.add_argument("--out", type=Path, default=Path("outputs/notebooks"))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names()]
    if unknown:
        parser.error(f"notebook must be one of {', '.join(names())}, got {unknown[0]!r}")
    for name in options.names or names():
        start = time.monotonic()
        try:
            path = build(name, options.out)
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{path} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
