"""Upload runs that their tracker's service lacks or holds in part, such as offline runs.

A run is uploaded from its folder, from the first sample that the service lacks: nothing is sent
twice and nothing is left out. Run it where the service can be reached, as on a login node.

mustdrop sync                         # all runs under outputs/
mustdrop sync outputs/demo --dry-run  # only print what would be done
mustdrop sync outputs --tracker wandb # runs made with tracker=none too
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import fcntl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.errors import leave
from experiments.tracking.follow import fully_tracked, watched
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import EFFICIENCY, TornFile
from mustdrop.runs.repair import read_config
from mustdrop.tracking.service import read


def folders(roots: Sequence[Path]) -> list[Path]:
    """Find the runs with a sample, a record or a profile under some folders.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    runs = {
        path.parent
        for root in roots
        for name in ("samples.jsonl", "record.json", EFFICIENCY)
        for path in root.rglob(name)
        if (path.parent / "config.yaml").exists() and "wandb" not in path.parts
    }
    if not runs:
        raise FileNotFoundError(f"no run under {', '.join(map(str, roots))}")
    return sorted(runs)


def uploaded(folder: Path) -> bool:
    """Whether the service holds everything that the folder holds."""
    state = read(folder)
    if state.get("mode") == "offline":
        # an offline log was uploaded by hand if wandb sync left its mark
        return fully_tracked(folder) and any(Path(state["where"]).glob("*.synced"))
    return fully_tracked(folder)


def running(folder: Path) -> bool:
    """Whether a process writes the run, or a tracker reads it."""
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
    """Return the tracker config of a run; a run without one gets that of ``tracker``, if given."""
    node: Mapping[str, Any] | None = read_config(folder)["tracker"]
    if node is None and tracker is not None:
        node = resolved(composed(f"tracker={tracker}"))["tracker"]
    return dict(node) if node and node.get("mode") != "disabled" else None


def upload(folder: Path, node: dict[str, Any], seconds: float) -> str | None:
    """Upload one run; return the error, or None."""
    if "mode" in node:
        node["mode"] = "online"
    node["finish_seconds"] = seconds
    with watched(node, folder, live=False, say=lambda line: None) as tracker:
        tracker.start()
    state = read(folder)
    if state.get("complete"):
        print(f"uploaded {state['rows']} samples: {state['where']}")
        return None
    return state.get("warning") or f"the tracker ended early, see {folder / 'track.log'}"


def main(arguments: Sequence[str]) -> int:
    """Upload; return exit code 0 if all is uploaded, 1 if something failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("roots", nargs="*", type=Path, default=[Path("outputs")], metavar="folder")
    parser.add_argument("--tracker", help="tracker of runs made with tracker=none: wandb")
    parser.add_argument("--seconds", type=float, default=600.0, help="time limit of each run")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    options = parser.parse_intermixed_args(arguments)
    failed = 0
    for folder in folders(options.roots):
        try:
            node = node_of(folder, options.tracker)
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
        elif options.dry_run:
            print(f"to upload: {folder}")
        elif (error := upload(folder, node, options.seconds)) is not None:
            failed += 1
            print(f"failed: {folder}: {error}", file=sys.stderr)
            if error.startswith(ConnectionError.__name__):
                break  # the service would not be reached for the next run either
    return 1 if failed else 0


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
