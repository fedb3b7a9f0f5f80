"""Several processes on one cell: which one this is, and what they tell each other. Knows no sample.

A launcher such as torchrun starts one command several times and tells each process its rank. They
talk through the launcher's key-value store and not through a process group: no tensor is exchanged,
and lmms-eval, which would deal documents out by itself, has to see one process.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

POLL = 0.1  # seconds; a blocking read of the store would not hear a signal
OK = "ok"
LAUNCHED = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
    "MASTER_PORT",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RankGroup:
    """One cell's turn in one of the processes that work on it.

    Attributes:
        name: The same in all of them, and in no other turn.
        rank: From 0; the first owns the run's folder, scores, and writes the record.
        world: How many there are.
        store: What is told stands here; None where there is one process alone.
    """

    name: str = ""
    rank: int = 0
    world: int = 1
    store: Any = None

    def publish(self, what: str, told: str = OK) -> None:
        """Tell the other ranks."""
        if self.store is not None:
            self.store.set(f"{self.name}/{what}", told)

    def wait_for(self, *what: str) -> tuple[str, str]:
        """Wait until one of these was told: which, and what."""
        while self.store is not None:
            for one in what:
                if self.store.check([f"{self.name}/{one}"]):
                    return one, self.store.get(f"{self.name}/{one}").decode()
            time.sleep(POLL)
        return what[0], OK

    def publishing(self, what: str) -> "Publishing":
        """A context; its end is told, or the error that ended it."""
        return Publishing(self, what)

    def wait_for_all(self, what: str) -> None:
        """Wait until every other rank has told this.

        Raises:
            RuntimeError: If one told an error.
        """
        for rank in range(1, self.world):
            _, told = self.wait_for(f"{what} {rank}")
            if told != OK:
                raise RuntimeError(f"rank {rank}: {told}")


@dataclass(frozen=True, eq=False)
class Publishing:
    """Work whose end others wait for."""

    turn: RankGroup
    what: str

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        told = OK if error is None else f"{type(error).__name__}: {error}".splitlines()[0]
        self.turn.publish(self.what, told)


SINGLE = RankGroup()
_turns: dict[str, int] = {}


def next_rank_group(cell: str) -> RankGroup:
    """This process's next turn on a cell, as the launcher's environment tells.

    Args:
        cell: A name that all ranks use, such as its folder.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return SINGLE
    rank, world, store = _meet()
    _turns[cell] = _turns.get(cell, 0) + 1
    # torchrun keeps its store when it starts all ranks anew
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return RankGroup(f"mustdrop/{restart}/{cell}/{_turns[cell]}", rank, world, store)


@lru_cache(maxsize=1)
def _meet() -> tuple[int, int, Any]:
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(iter(rendezvous("env://")))
    return rank, world, store


@contextmanager
def without_launcher() -> Iterator[None]:
    """What is called here sees no launcher: lmms-eval and accelerate read its environment."""
    told = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(told)
