"""Write a static site of leaderboards from packs, which opens from the disk and needs no network.

mustdrop board packs/*.zip
mustdrop board packs/*.zip --output site

Each pack is checked. Packs whose runs of one model and benchmark differ in their inputs, code or
budgets are refused, and no board is written. Runs on other hardware are compared; the board shows
the hardware.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.board.site import INDEX, MethodPicture, site_files, write_site
from analysis.packs.agreement import disagreements
from analysis.packs.archive import Pack, RefusedPack, open_pack, pack_names
from analysis.packs.shared_runs import SharedRun, runs_of_pack
from experiments.cli.errors import KNOWN
from mustdrop.presets.folders import preset_names


def opened(paths: Sequence[Path], folder: Path) -> tuple[list[Pack], list[SharedRun]]:
    """Unpack and check packs.

    Raises:
        RefusedPack: If some cannot be read, are the same, or do not agree; one line for each.
    """
    packs: list[Pack] = []
    runs: list[SharedRun] = []
    refused: list[str] = []
    for number, (path, name) in enumerate(zip(paths, pack_names(paths), strict=True)):
        try:
            pack = open_pack(path, name, folder / str(number))
            if same := [other.name for other in packs if other.digest == pack.digest]:
                raise RefusedPack(f"{name} is the same pack as {same[0]}")
            runs += runs_of_pack(pack)
            packs.append(pack)
        except RefusedPack as error:
            refused.append(str(error))
    refused += disagreements(runs).values()
    if refused:
        lines = "".join(f"\n  {reason}" for reason in refused)
        count = "1 pack is" if len(refused) == 1 else f"{len(refused)} packs are"
        raise RefusedPack(f"{count} refused, so no board was written:{lines}")
    return packs, runs


def pictures(methods: Iterable[str]) -> dict[str, MethodPicture]:
    """Picture of each method that is a preset here and runs on the embedded model.

    The presets of this installation are used; nothing in a pack is run.
    """
    from experiments.sharing.pictures import BUDGET, built, kept

    drawn = {}
    for name in sorted({*methods} & {*preset_names("method")}):
        try:
            dropper, floor = built(name)
        except (
            KNOWN
        ):  # it has no threshold for the embedded model, or is a broken preset of the user
            continue
        if dropper.prefill is not None and dropper.prefill.videos_only:
            continue
        picture = kept(dropper)
        at = f"at a budget of {BUDGET}" if floor is None else "at the least budget that it reaches"
        drawn[name] = MethodPicture(
            picture.png,
            f"What {name} keeps of an image of the embedded model, {at}: the brighter a patch, the "
            f"more layers hold it. Executed average: {picture.average:.1f} tokens per layer.",
        )
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a board; returns exit code 0.

    Raises:
        ValueError: If a pack is refused, or the folder holds something else than a board.
    """
    parser = argparse.ArgumentParser(
        prog="mustdrop board",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("packs", type=Path, nargs="+", help="files of mustdrop pack")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/board"),
        help="folder to write (default: outputs/board)",
    )  # fmt: skip
    options = parser.parse_intermixed_args(arguments)
    with TemporaryDirectory(prefix="mustdrop-board-") as folder:
        packs, runs = opened(options.packs, Path(folder))
        files = site_files(packs, runs, pictures(run.cell["method"] for run in runs))
    write_site(options.output, files)
    counts = f"packs: {len(packs)}, runs: {len(runs)}, files: {len(files)}"
    print(f"{options.output / INDEX}: written; {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
