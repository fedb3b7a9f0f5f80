"""Write one archive of finished runs that others can check and compare, without private parts.

mustdrop pack outputs/demo
mustdrop pack outputs/table1 outputs/table5 --output packs/llava15.zip

A pack has the records and the samples (questions, answers, scores, token counts) of the runs, with
the hashes of their code and inputs, the versions of their libraries and their hardware. It has no
pictures, no keys and no paths of this machine. Runs that are not finished are left out and named.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.packs.agreement import disagreements
from analysis.packs.archive import write_pack
from analysis.packs.contents import pack_files
from analysis.packs.private import PrivateTexts
from analysis.packs.shared_runs import SharedRun
from analysis.records.left_out import in_words
from analysis.records.roots import load_folders
from mustdrop import __version__
from mustdrop.presets.comments import preset_comment
from mustdrop.presets.folders import preset_file
from mustdrop.runs.folder import read_status

MOST_NAMED = 5  # unfinished runs


def unfinished(roots: Sequence[Path]) -> list[Path]:
    """Folders of runs that have samples or a status, but no record."""
    folders = {
        path.parent
        for root in roots
        for name in ("samples.jsonl", "status.json")
        for path in root.rglob(name)
    }
    return sorted(folder for folder in folders if not (folder / "record.json").exists())


def method_texts(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Description and source of each method, from the comment of its preset; empty without one."""
    texts = {}
    for name in names:
        file = preset_file("method", f"{name}.yaml")
        description, source = preset_comment(file) if file.is_file() else ("", "")
        texts[name] = {"description": description, "source": source}
    return texts


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Write a pack; returns exit code 0.

    Raises:
        ValueError: If there is no finished run, or runs of one model and benchmark differ in their
            inputs, code or budgets.
    """
    parser = argparse.ArgumentParser(
        prog="mustdrop pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="results folders, such as outputs/demo")
    parser.add_argument(
        "--output", type=Path, default=Path("pack.zip"), help="file to write (default: pack.zip)"
    )
    options = parser.parse_intermixed_args(arguments)
    cells = load_folders(options.runs)
    left = unfinished(options.runs)
    for folder in left[:MOST_NAMED]:
        print(f"left out: {folder} is not finished; mustdrop run continues it", file=sys.stderr)
    if len(left) > MOST_NAMED:
        print(f"left out: {len(left) - MOST_NAMED} more unfinished runs", file=sys.stderr)
    names = sorted({cell["method"] for cell in cells})
    private = PrivateTexts.of_this_machine()
    files = pack_files(cells, method_texts(names), __version__, private)
    runs = [
        SharedRun(cell["folder"], cell, read_status(Path(cell["folder"]))["code"]) for cell in cells
    ]
    if reasons := list(disagreements(runs).values()):
        raise ValueError(
            f"no pack was written, because a board would refuse it: {reasons[0]}. Pack runs that "
            "agree, or measure again with force=true"
        )
    written = write_pack(options.output, files)
    size = options.output.stat().st_size / 1e6
    replaced = ", ".join(f"{count} {kind}" for kind, count in sorted(private.replaced.items()))
    print(
        f"{options.output}: {'' if written else 'the same pack was there already: '}{size:.2f} MB, "
        f"{len(cells)} runs of {len(names)} methods"
        + (f"; private texts replaced: {replaced}" if replaced else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
