"""Weights & Biases as a tracker: one history row per sample, everything else at the end.

Step i of the history is sample i; tables and images go into the summary, so that a run that gets
more samples later continues without a gap. Works offline if the server cannot be reached. Works
with wandb 0.25.0, so it does not use the time limits on finishing of newer versions, see
:class:`mustdrop.tracking.process.Leash`. Knows neither samples nor ledgers.
"""

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from PIL.Image import Image

from mustdrop.tracking.service import Card, Closing, Tracker

if TYPE_CHECKING:
    import wandb

MODES = (None, "online", "offline", "disabled")
PROBES, PROBE, PAUSE = 3, 2.0, 1.0  # attempts, seconds for each, seconds between them
INIT = 20.0  # seconds that wandb may take to start a run
BEFORE = "before"  # folder for earlier logs of a run
DONE = ("done", "floor", "profiled")


@final
@dataclass(frozen=True)
class WandB(Tracker):
    """Sends runs to W&B.

    Attributes:
        entity: User or team; None for the default of the API key.
        mode: One of online, offline, disabled; None for the value of WANDB_MODE, or else online.

    Raises:
        ValueError: If a field cannot be used.
    """

    entity: str | None = None
    mode: str | None = None

    name: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "track"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"mode must be online, offline, disabled or null, got {self.mode!r}")

    @property
    def wanted(self) -> bool:
        return self._mode() != "disabled"

    def _mode(self) -> str:
        mode = self.mode or os.environ.get("WANDB_MODE") or "online"
        return {"dryrun": "offline", "offline": "offline", "disabled": "disabled"}.get(
            mode, "online"
        )

    def open(self, card: Card, live: bool) -> "WandBSink":
        """See :class:`mustdrop.tracking.service.Tracker`.

        Raises:
            ConnectionError: If the run is over and the server cannot be reached.
        """
        run, reason = None, None
        if self._mode() == "online":
            run, reason = self._online(card)
            if run is None and not live:
                raise ConnectionError(reason)
        if run is None:
            run = self._init(card, card.id, "offline")
        _put_aside(card.folder / "wandb", card.id, Path(run.dir).parent)
        return WandBSink(run, card, reason and f"offline: {reason}")

    def _online(self, card: Card) -> "tuple[wandb.Run | None, str | None]":
        """The run at the server, or the reason why it could not be opened."""
        import wandb

        reason = unreachable(str(wandb.setup().settings.base_url))
        if reason is not None:
            return None, reason
        try:
            return self._resumed(card), None
        except Exception as error:  # the tracker's boundary: no key, access refused, timeout
            wandb.teardown()
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            return None, last.rstrip(". ")

    def _resumed(self, card: Card) -> "wandb.Run":
        """The run of this measurement; an id with another start gets the start appended."""
        run = self._init(card, card.id, "online")
        known = dict(run.config).get("run")
        if isinstance(known, Mapping) and known.get("started") != card.started:
            run.finish()
            began = "".join(letter for letter in card.started if letter.isdigit())[:14]
            run = self._init(card, f"{card.id}-{began}", "online")
        return run

    def _init(self, card: Card, run_id: str, mode: Literal["online", "offline"]) -> "wandb.Run":
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            dir=card.folder,
            id=run_id,
            name=card.name,
            group=card.group,
            job_type="eval",
            tags=card.tags,
            resume="allow" if mode == "online" else None,
            mode=mode,
            settings=wandb.Settings(
                console="off",
                init_timeout=INIT,
                program="experiments/run.py",
                # report the system usage of the run's process, not of the tracker's
                x_stats_pid=os.getppid(),
            ),
        )


class WandBSink:
    """A run at W&B, begun or continued."""

    def __init__(self, run: "wandb.Run", card: Card, warning: str | None) -> None:
        self.run, self.first = run, run.step
        # update the config of a resumed run: the limit may have grown, and the job is another
        run.config.update(dict(card.config), allow_val_change=True)
        mode, where = "online", run.url
        if run.offline:
            mode, where = "offline", str(Path(run.dir).parent)
        self.entries: dict[str, Any] = {
            "id": run.id, "mode": mode, "where": where, "warning": warning,
        }  # fmt: skip

    def log(self, step: int, row: Mapping[str, float | int]) -> None:
        self.run.log(dict(row), step=step, commit=True)

    def close(self, closing: Closing) -> None:
        import wandb

        run = self.run
        run.summary.update({"state": closing.state, **closing.summary})
        for name, (columns, rows) in closing.tables.items():
            data = [[_cell(value) for value in row] for row in rows]
            run.summary[name] = wandb.Table(list(columns), data, allow_mixed_types=True)
        if closing.files:
            artifact = wandb.Artifact(f"record-{run.id}", type="record")
            for path in closing.files:
                artifact.add_file(str(path))
            run.log_artifact(artifact)
        if closing.state == "stopped":
            run.mark_preempting()
        run.finish(exit_code=0 if closing.state in DONE else 1)


def unreachable(base_url: str) -> str | None:
    """Reason why a server does not answer, through a proxy if one is set; None if it answers.

    wandb needs a minute to find this out. The content of the answer is left to wandb.
    """
    reason = ""
    for attempt in range(PROBES):
        if attempt:
            time.sleep(PAUSE)
        try:
            urlopen(Request(base_url, method="HEAD"), timeout=PROBE).close()
            return None
        except HTTPError as error:
            if error.code < 500:
                return None
            reason = f"HTTP {error.code}"
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLError):
                return None  # wandb uses other certificates
            reason = str(cause) or type(cause).__name__
    return f"{base_url} cannot be reached ({reason})"


def _cell(value: Any) -> Any:
    """Value of a table cell, with images as wandb's type."""
    import wandb

    if isinstance(value, Path):
        return wandb.Image(str(value))
    return wandb.Image(value, file_type="jpg") if isinstance(value, Image) else value


def _put_aside(logs: Path, run_id: str, new: Path) -> None:
    """Move away earlier logs of a run: they hold less and must not overwrite the new one online."""
    for log in sorted(logs.glob("*run-*")):
        if log.is_dir() and not log.is_symlink() and run_id in log.name and log != new:
            (logs / BEFORE).mkdir(exist_ok=True)
            number = 0
            while (target := logs / BEFORE / f"{log.name}.{number}").exists():
                number += 1
            log.rename(target)
