"""An Optuna study that several processes share, and that loses nothing when one is killed.

A trial belongs to the worker that requested it. A worker holds a lock on its lock file while it
lives; the system releases the lock however the worker ends. The next request marks the trials of
dead workers as failed and enqueues the same values again, so that their runs are resumed.
Knows nothing about models.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

WAIT = 60  # seconds that a worker waits for another one's write
COUNTED = (TrialState.COMPLETE, TrialState.RUNNING)


class SharedStudy:
    """A study as one of its workers sees it.

    Attributes:
        folder: Folder of study.db and the workers' locks.
        space: Distribution of each field that is drawn.

    Raises:
        ValueError: If the study in the folder was started with other settings.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        settings: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.folder, self.space = folder, dict(space)
        # a process number alone may be used again, in a container even at the next start
        self.worker = f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._locked():
            self.study = optuna.create_study(
                storage=RDBStorage(
                    f"sqlite:///{folder / 'study.db'}",
                    engine_kwargs={"connect_args": {"timeout": WAIT}},
                ),
                study_name=folder.name,
                directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
                load_if_exists=True,
            )
            self._require_same(json.loads(json.dumps(dict(settings))))
            # two workers that draw the same numbers would do the same work
            worker = self.study.user_attrs.get("workers", 0)
            self.study.set_user_attr("workers", worker + 1)
        self.study.sampler = TPESampler(
            n_startup_trials=10, multivariate=True, constant_liar=True, seed=seed + 1000 * worker
        )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold this worker's lock while the context is open, so that its trials stay its own."""
        path = self._lock_of(self.worker)
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def ask(self, wanted: int) -> Trial | None:
        """Request a trial; None if ``wanted`` trials are finished or running."""
        with self._locked():
            self._recover()
            if len(self.study.get_trials(deepcopy=False, states=COUNTED)) >= wanted:
                return None
            trial = self.study.ask(self.space)
            trial.set_user_attr("worker", self.worker)
            return trial

    def tell(self, trial: Trial, accuracy: float, executed: float) -> None:
        """Record the result of a trial."""
        with self._locked():
            self.study.tell(trial, (accuracy, executed))

    def count(self, state: TrialState) -> int:
        """Count the trials in a state."""
        return len(self.study.get_trials(deepcopy=False, states=(state,)))

    def _recover(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker is None or not self._alive(worker):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _alive(self, worker: str) -> bool:
        path = self._lock_of(worker)
        if not path.exists():
            return False
        with path.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _lock_of(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker}.lock"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Admit one worker at a time, since a request makes several writes."""
        with (self.folder / "study.lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def _require_same(self, now: dict[str, Any]) -> None:
        then = self.study.user_attrs.get("asked")
        if then is None:
            self.study.set_user_attr("asked", now)
            return
        changed = ", ".join(
            f"{name} was {then.get(name)}, is {now.get(name)} now"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        )
        if changed:
            raise ValueError(
                f"the study in {self.folder} was started with other settings ({changed}), so its "
                "trials do not compare with new ones; pareto.name=<another> starts a new study"
            )
