"""Processes that train one model together: each has its share of a step's images.

Gradients are averaged. Knows no model and no data.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed, multiprocessing, nn


@dataclass(frozen=True)
class Team:
    """One of ``size`` processes; alone by default."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must be in [0, {self.size}), got {self.rank}")

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        flat = torch.cat([one.flatten() for one in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for one, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            one.copy_(mean.view_as(one))


@contextmanager
def team(size: int, work: Callable[[Team], None]) -> Iterator[Team]:
    """This process as the first of ``size``; the others do ``work`` and end with the context.

    Args:
        size: Processes on the CPU; 1: this one alone.
        work: What the others do; a function of a module, as it is sent to them.

    Raises:
        ValueError: If ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"a team has 1 process or more, got {size}")
    if size == 1:
        yield Team()
        return
    with TemporaryDirectory() as meeting:
        point = f"file://{Path(meeting) / 'meeting'}"
        spawn = multiprocessing.get_context("spawn")
        others = [
            spawn.Process(target=_other, args=(point, Team(rank, size), work, os.getpid()))
            for rank in range(1, size)
        ]
        for other in others:
            other.start()
        try:
            with _met(point, Team(0, size)) as first:
                yield first
            for other in others:
                other.join()
        finally:
            for other in others:
                other.terminate()


@contextmanager
def _met(point: str, one: Team) -> Iterator[Team]:
    distributed.init_process_group("gloo", point, rank=one.rank, world_size=one.size)
    try:
        yield one
    finally:
        distributed.destroy_process_group()


def _other(point: str, one: Team, work: Callable[[Team], None], parent: int) -> None:
    """Work until done; where the first process was killed, averaging fails and this one ends."""
    with _met(point, one):
        try:
            work(one)
        except RuntimeError:
            if os.getppid() == parent:
                raise
