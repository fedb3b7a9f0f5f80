"""An Optuna study that several processes share, and that loses nothing when one is killed.

A trial belongs to the worker that asked for it, which holds a lock on a file of its own while it
lives; the system lets go of it however the worker ends. Whoever asks next fails the trials of
workers that are gone and asks for the same values again, so that their runs are gone on with.
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
OURS = (TrialState.COMPLETE, TrialState.RUNNING)


class SharedStudy:
    """A worker's hold on a study.

    Attributes:
        folder: Holds study.db and the workers' locks.
        space: What is drawn.

    Raises:
        ValueError: If the study in the folder was begun with other questions asked.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        asked: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.folder, self.space = folder, dict(space)
        # a process number alone may come back, in a container even at the next start
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
            self._refuse_other(json.loads(json.dumps(dict(asked))))
            # two workers that draw the same numbers would do the same work
            place = self.study.user_attrs.get("workers", 0)
            self.study.set_user_attr("workers", place + 1)
        self.study.sampler = TPESampler(
            n_startup_trials=10, multivariate=True, constant_liar=True, seed=seed + 1000 * place
        )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this is open, this worker's trials are its own."""
        path = self._lock_of(self.worker)
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def ask(self, wanted: int) -> Trial | None:
        """The next trial; None where as many as wanted are finished or at work."""
        with self._locked():
            self._recover()
            if len(self.study.get_trials(deepcopy=False, states=OURS)) >= wanted:
                return None
            trial = self.study.ask(self.space)
            trial.set_user_attr("worker", self.worker)
            return trial

    def tell(self, trial: Trial, accuracy: float, executed: float) -> None:
        """What a trial came to."""
        with self._locked():
            self.study.tell(trial, (accuracy, executed))

    def count(self, state: TrialState) -> int:
        """Trials in a state."""
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
        """One worker at a time: asking is several writes."""
        with (self.folder / "study.lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def _refuse_other(self, asked: dict[str, Any]) -> None:
        begun = self.study.user_attrs.get("asked")
        if begun is None:
            self.study.set_user_attr("asked", asked)
            return
        other = [name for name in sorted({*begun, *asked}) if begun.get(name) != asked.get(name)]
        if other:
            told = ", ".join(
                f"{name} {begun.get(name)} then, {asked.get(name)} now" for name in other
            )
            raise ValueError(
                f"the study in {self.folder} was begun with other settings ({told}): its trials do "
                "not compare with new ones; pareto.name=<another> begins anew"
            )
