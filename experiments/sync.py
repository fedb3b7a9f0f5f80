"""Upload the runs that their tracker's service does not hold whole: made offline, or cut off.

Each is told from its folder, from the first sample that the service lacks: nothing twice, no gap.
Run it where the service can be reached, such as a cluster's login node.

python experiments/sync.py                         # all runs under outputs/
python experiments/sync.py outputs/demo --dry-run  # only say what would be done
python experiments/sync.py outputs --tracker wandb # those made with tracker=none too
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import fcntl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.errors import leave
from experiments.tracking.follow import told_whole, watched
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import TornFile
from mustdrop.runs.repair import read_config
from mustdrop.tracking.service import read


def folders(roots: Sequence[Path]) -> list[Path]:
    """The runs under some folders, those with a sample or a record.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = {
        path.parent
        for root in roots
        for name in ("samples.jsonl", "record.json")
        for path in root.rglob(name)
        if (path.parent / "config.yaml").exists() and "wandb" not in path.parts
    }
    if not found:
        raise FileNotFoundError(f"no run under {', '.join(map(str, roots))}")
    return sorted(found)


def uploaded(folder: Path) -> bool:
    """Whether the service holds all that the folder does."""
    told = read(folder)
    if told.get("mode") == "offline":
        # by hand, with wandb sync: that leaves a mark
        return told_whole(folder) and any(Path(told["where"]).glob("*.synced"))
    return told_whole(folder)


def running(folder: Path) -> bool:
    """Whether a process writes to it, or a tracker reads it."""
    for name in ("run.log", "track.log"):
        path = folder / name
        if path.exists():
            with path.open("a") as log:
                try:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return True
    return False


def node_of(folder: Path, tracker: str | None) -> dict[str, Any] | None:
    """The tracker of a run; of one made without, that of ``conf/tracker``, if one is named."""
    node: Mapping[str, Any] | None = read_config(folder)["tracker"]
    if node is None and tracker is not None:
        node = resolved(composed(f"tracker={tracker}"))["tracker"]
    return dict(node) if node and node.get("mode") != "disabled" else None


def upload(folder: Path, node: dict[str, Any], seconds: float) -> str | None:
    """Tell one run; what went wrong, if anything did."""
    if "mode" in node:
        node["mode"] = "online"
    node["finish_seconds"] = seconds
    with watched(node, folder, live=False, say=lambda line: None) as tracker:
        tracker.start()
    told = read(folder)
    if told.get("complete"):
        print(f"uploaded {told['rows']} samples: {told['where']}")
        return None
    return told.get("warning") or f"ended early, see {folder / 'track.log'}"


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 if everything is uploaded, 1 if something failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("roots", nargs="*", type=Path, default=[Path("outputs")], metavar="folder")
    parser.add_argument("--tracker", help="for runs made with tracker=none: wandb")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, for each run")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    asked = parser.parse_args(arguments)
    failed = 0
    for folder in folders(asked.roots):
        try:
            node = node_of(folder, asked.tracker)
        except TornFile as error:
            failed += 1
            print(f"failed: {error}", file=sys.stderr)
            continue
        if node is None:
            print(f"no tracker: {folder} (--tracker wandb uploads it)")
        elif uploaded(folder):
            print(f"up to date: {folder}")
        elif running(folder):
            print(f"still running: {folder}")
        elif asked.dry_run:
            print(f"to upload: {folder}")
        elif (trouble := upload(folder, node, asked.seconds)) is not None:
            failed += 1
            print(f"failed: {folder}: {trouble}", file=sys.stderr)
            if trouble.startswith(ConnectionError.__name__):
                break  # the next one would not be reached either
    return 1 if failed else 0


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
