"""Ranks: several processes that share one run, and their messages. Knows nothing about samples.

A launcher such as torchrun starts one command several times and gives each process its rank. The
ranks use the launcher's key-value store and no process group: they exchange no tensors, and
lmms-eval, which would split the documents itself, must see a single process.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

POLL = 0.1  # seconds; a blocking read of the store would delay signals
OK = "ok"
LAUNCHED = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
    "MASTER_PORT",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RankGroup:
    """One rank of several processes that share a run.

    Attributes:
        name: Name of the group, the same in all its ranks and in no other group.
        rank: Index of this process; rank 0 owns the run's folder, scores, and writes the record.
        world: Number of processes.
        store: Key-value store for messages; None for a single process.
    """

    name: str = ""
    rank: int = 0
    world: int = 1
    store: Any = None

    def publish(self, event: str, message: str = OK) -> None:
        """Send the message of an event to the other ranks."""
        if self.store is not None:
            self.store.set(f"{self.name}/{event}", message)

    def wait_for(self, *events: str) -> tuple[str, str]:
        """Wait for the first of several events; return its name and message."""
        while self.store is not None:
            for event in events:
                if self.store.check([f"{self.name}/{event}"]):
                    return event, self.store.get(f"{self.name}/{event}").decode()
            time.sleep(POLL)
        return events[0], OK

    def publishing(self, event: str) -> "Publishing":
        """A context that publishes the event at its end, with the error if one ended it."""
        return Publishing(self, event)

    def wait_for_all(self, event: str) -> None:
        """Wait until all other ranks have published an event.

        Raises:
            RuntimeError: If a rank published an error.
        """
        for rank in range(1, self.world):
            _, message = self.wait_for(f"{event} {rank}")
            if message != OK:
                raise RuntimeError(f"rank {rank}: {message}")


@dataclass(frozen=True, eq=False)
class Publishing:
    """Context that publishes an event at its end: ``OK`` or the error."""

    group: RankGroup
    event: str

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        message = OK if error is None else f"{type(error).__name__}: {error}".splitlines()[0]
        self.group.publish(self.event, message)


SINGLE = RankGroup()
_counts: dict[str, int] = {}


def next_rank_group(run: str) -> RankGroup:
    """A new rank group for a run, from the launcher's environment.

    Args:
        run: Name of the run, the same in all ranks, such as its folder.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return SINGLE
    rank, world, store = _rendezvous()
    _counts[run] = _counts.get(run, 0) + 1
    # torchrun keeps its store when it restarts all ranks.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return RankGroup(f"mustdrop/{restart}/{run}/{_counts[run]}", rank, world, store)


@lru_cache(maxsize=1)
def _rendezvous() -> tuple[int, int, Any]:
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(iter(rendezvous("env://")))
    return rank, world, store


@contextmanager
def without_launcher() -> Iterator[None]:
    """A context without the launcher's variables, which lmms-eval and accelerate would read."""
    saved = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
