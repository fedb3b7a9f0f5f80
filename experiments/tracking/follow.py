"""The tracker's process: follow a run's folder and tell a service what appears there.

Started by experiments/run.py beside a run and by experiments/sync.py after one. Reads the run, and
writes nothing but track.json, track.log, overlays/ and the service's own files. Loads no model.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import fcntl
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from experiments.tracking.closing import closing
from mustdrop.runs.folder import read_status
from mustdrop.tracking.history import History
from mustdrop.tracking.process import Leash, Watched
from mustdrop.tracking.service import Card, Tracker, read, write

ROOT = Path(__file__).parents[2]
POLL = 0.5  # seconds between two looks at samples.jsonl
# what a cluster sends before it ends a job is for the run; the tracker ends when the run does
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def watched(
    node: Mapping[str, Any] | None,
    folder: Path,
    live: bool = True,
    say: Callable[[str], None] | None = None,
) -> Watched:
    """What tells a run to the tracker of its config; nothing where that is null.

    Args:
        node: The tracker, resolved.
        folder: The run's.
        live: It is about to be measured; else it is told as it stands.
        say: Where the line about the outcome goes; by default the error stream.

    Raises:
        ValueError: If it cannot be built, or its package is not installed.
    """
    try:
        tracker: Tracker | None = instantiate(node)
    except InstantiationException as error:
        raise ValueError(f"tracker: {error.__cause__ or error}") from error
    if tracker is not None and tracker.wanted and find_spec(tracker.name) is None:
        raise ValueError(
            f"tracker={tracker.name} needs it installed: pip install 'mustdrop[{tracker.extra}]'"
        )
    folder = folder.resolve()
    how = "live" if live else "afterwards"
    return Watched(
        tracker,
        folder,
        [sys.executable, "-m", "experiments.tracking.follow", how, str(folder), json.dumps(node)],
        {
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "CUDA_VISIBLE_DEVICES": "",  # pictures need no GPU
            "OMP_NUM_THREADS": "1",
            # what is staged for uploading stays with the run
            "WANDB_DATA_DIR": os.environ.get("WANDB_DATA_DIR") or str(folder / "wandb"),
        },
        say,
    )


def fully_tracked(folder: Path) -> bool:
    """Whether a tracker got through with all that the folder holds."""
    told, path = read(folder), folder / "samples.jsonl"
    samples = path.read_bytes().count(b"\n") if path.exists() else 0
    return bool(
        told.get("complete")
        and told["rows"] >= samples
        and told["state"] == read_status(folder).get("state")
    )


def catch_up(node: Mapping[str, Any] | None, folder: Path) -> None:
    """Tell a run that was done before, where its tracker lacks something of it."""
    if node is not None and not fully_tracked(folder):
        with watched(node, folder, live=False) as tracker:
            tracker.start()


def card(folder: Path, config: Mapping[str, Any]) -> Card:
    """What the service files a run under."""
    status = read_status(folder)
    budget = config["budget"]["name"] if config["budget"] else "none"
    model, method = config["model"]["name"], config["method"]["name"]
    benchmark, experiment = config["benchmark"]["name"], config["experiment"]
    key = folder.name.rpartition("-")[2]
    told = {
        "key": key,
        "folder": str(folder),
        "started": status.get("started"),
        "fingerprint": status.get("fingerprint"),
        "versions": (status.get("code") or {}).get("versions"),
        "host": status.get("host"),
        "slurm": status.get("slurm") or None,
    }
    return Card(
        id=re.sub(r"[^\w.-]", "-", f"{experiment}-{key}", flags=re.ASCII),
        name=f"{method} {budget} {benchmark}",
        group=experiment,
        tags=(model, benchmark, method, budget),
        config={**config, "run": told},
        started=str(told["started"]),
        folder=folder,
    )


def track(tracker: Tracker, folder: Path, live: bool, leash: Leash, told: dict[str, Any]) -> None:
    """Tell a run from its first sample that the service lacks to its end.

    Args:
        tracker: The service.
        folder: The run's.
        live: See :meth:`mustdrop.tracking.service.Tracker.open`.
        leash: Says when the run is over.
        told: Filled with what track.json is to say.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    sink = tracker.open(card(folder, config), live)
    told.update(sink.told, rows=sink.first)
    write(folder, told)
    history = History(config["benchmark"]["metric"])
    over = False
    lines = _tail(folder / "samples.jsonl")
    while not over:
        over = leash.over.wait(POLL)
        for sample in next(lines):
            row = history.row(sample)
            if history.n > sink.first:
                sink.log(history.n - 1, row)
                told["rows"] = history.n
    if sink.first > history.n:
        told["warning"] = f"holds {sink.first} samples of this run, the folder only {history.n}"
    sink.close(closing(folder, config, read_status(folder), tracker))
    told.update(state=read_status(folder).get("state"), complete=True)


def _tail(path: Path) -> Iterator[list[dict[str, Any]]]:
    """At each step the lines that were added; one that is still being written waits."""
    read = 0
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(read)
                new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        read += len(whole)
        yield [json.loads(line) for line in whole.splitlines()]


def main(how: str, where: str, node: str) -> None:
    """Command line: live or afterwards, the run's folder, the tracker's config as JSON."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    folder = Path(where)
    tracker: Tracker = instantiate(json.loads(node))
    told: dict[str, Any] = {"tracker": tracker.name, "rows": 0, "complete": False, "warning": None}

    def cut_short() -> None:
        late = f"not through {tracker.finish_seconds:g} s after the run's end, stopped"
        write(folder, {**told, "complete": False, "warning": late})

    leash = Leash(tracker.finish_seconds, cut_short)
    with (folder / "track.log").open("a") as log:
        # of one run one tracker at a time: that of a killed process may still be finishing
        fcntl.flock(log, fcntl.LOCK_EX)
        try:
            track(tracker, folder, how == "live", leash, told)
        except Exception as error:  # the tracker's boundary: told in one line, the rest in the log
            traceback.print_exc()
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            told["warning"] = f"{type(error).__name__}: {last}"
        write(folder, told)


if __name__ == "__main__":
    main(*sys.argv[1:])
