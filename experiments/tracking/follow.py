"""The tracker's process: follow a run's folder and send new samples to a service.

Started by experiments/run.py together with a run and by experiments/sync.py after one. Reads the
run, and writes only track.json, track.log, overlays/ and the service's files. Loads no model.
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
from experiments.tracking.judged import judgement_stamp
from experiments.tracking.profiled import profile_stamp
from mustdrop.runs.folder import read_status
from mustdrop.tracking.history import History
from mustdrop.tracking.process import Leash, Watched
from mustdrop.tracking.service import Card, Tracker, read, write

ROOT = Path(__file__).parents[2]
POLL = 0.5  # seconds between two reads of samples.jsonl
# a cluster's warnings are meant for the run; the tracker ends when the run ends
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def watched(
    node: Mapping[str, Any] | None,
    folder: Path,
    live: bool = True,
    say: Callable[[str], None] | None = None,
) -> Watched:
    """Return a context that tracks a run; it does nothing if the tracker is None.

    Args:
        node: Resolved config of the tracker.
        folder: Folder of the run.
        live: Whether the run is about to be measured; otherwise its present folder is sent.
        say: Prints the line about the outcome; by default to standard error.

    Raises:
        ValueError: If the tracker cannot be built, or its package is not installed.
    """
    try:
        tracker: Tracker | None = instantiate(node)
    except InstantiationException as error:
        raise ValueError(f"tracker: {error.__cause__ or error}") from error
    if tracker is not None and tracker.wanted and find_spec(tracker.name) is None:
        raise ValueError(
            f"tracker={tracker.name} needs its package: pip install 'mustdrop[{tracker.extra}]'"
        )
    folder = folder.resolve()
    mode = "live" if live else "afterwards"
    return Watched(
        tracker,
        folder,
        [sys.executable, "-m", "experiments.tracking.follow", mode, str(folder), json.dumps(node)],
        {
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "CUDA_VISIBLE_DEVICES": "",  # pictures need no GPU
            "OMP_NUM_THREADS": "1",
            # files waiting for their upload stay with the run
            "WANDB_DATA_DIR": os.environ.get("WANDB_DATA_DIR") or str(folder / "wandb"),
        },
        say,
    )


def fully_tracked(folder: Path) -> bool:
    """Whether a tracker has sent everything that the folder holds."""
    track, path = read(folder), folder / "samples.jsonl"
    samples = path.read_bytes().count(b"\n") if path.exists() else 0
    return bool(
        track.get("complete")
        and track["rows"] >= samples
        and track["state"] == read_status(folder).get("state")
        and track.get("efficiency") == profile_stamp(folder)
        and track.get("judgements") == judgement_stamp(folder)
    )


def catch_up(node: Mapping[str, Any] | None, folder: Path) -> None:
    """Send a finished run to its tracker, if the tracker lacks a part of it."""
    if node is not None and not fully_tracked(folder):
        with watched(node, folder, live=False) as tracker:
            tracker.start()


def card(folder: Path, config: Mapping[str, Any]) -> Card:
    """Make the card under which a service stores a run."""
    status = read_status(folder)
    budget = config["budget"]["name"] if config["budget"] else "none"
    model, method = config["model"]["name"], config["method"]["name"]
    benchmark, experiment = config["benchmark"]["name"], config["experiment"]
    key = folder.name.rpartition("-")[2]
    about = {
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
        config={**config, "run": about},
        started=str(about["started"]),
        folder=folder,
    )


def track(tracker: Tracker, folder: Path, live: bool, leash: Leash, state: dict[str, Any]) -> None:
    """Send a run to a service, from the first sample that the service lacks to the end.

    Args:
        tracker: Tracker of the service.
        folder: Folder of the run.
        live: See :meth:`mustdrop.tracking.service.Tracker.open`.
        leash: Signals the end of the run.
        state: Content of track.json, updated in place.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    sink = tracker.open(card(folder, config), live)
    state.update(sink.entries, rows=sink.first)
    write(folder, state)
    history = History(config["benchmark"]["metric"])
    over = False
    lines = _tail(folder / "samples.jsonl")
    while not over:
        over = leash.over.wait(POLL)
        for sample in next(lines):
            row = history.row(sample)
            if history.n > sink.first:
                sink.log(history.n - 1, row)
                state["rows"] = history.n
    if sink.first > history.n:
        state["warning"] = (
            f"the service holds {sink.first} samples of this run, but the folder only {history.n}"
        )
    sink.close(closing(folder, config, read_status(folder), tracker))
    state.update(
        state=read_status(folder).get("state"), efficiency=profile_stamp(folder),
        judgements=judgement_stamp(folder), complete=True,
    )  # fmt: skip


def _tail(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield at each step the samples added since the last one; a line without its end waits."""
    position = 0
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        position += len(whole)
        yield [json.loads(line) for line in whole.splitlines()]


def main(mode: str, path: str, node: str) -> None:
    """Track a run.

    Args:
        mode: ``live`` or ``afterwards``.
        path: Folder of the run.
        node: Config of the tracker, as JSON.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    folder = Path(path)
    tracker: Tracker = instantiate(json.loads(node))
    state: dict[str, Any] = {"tracker": tracker.name, "rows": 0, "complete": False, "warning": None}

    def cut_short() -> None:
        late = f"stopped, since it did not finish {tracker.finish_seconds:g} s after the run's end"
        write(folder, {**state, "complete": False, "warning": late})

    leash = Leash(tracker.finish_seconds, cut_short)
    with (folder / "track.log").open("a") as log:
        # one tracker at a time for a run: that of a killed process may still be finishing
        fcntl.flock(log, fcntl.LOCK_EX)
        try:
            track(tracker, folder, mode == "live", leash, state)
        except Exception as error:  # the tracker's boundary: one line here, the rest in the log
            traceback.print_exc()
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            state["warning"] = f"{type(error).__name__}: {last}"
        write(folder, state)


if __name__ == "__main__":
    main(*sys.argv[1:])
