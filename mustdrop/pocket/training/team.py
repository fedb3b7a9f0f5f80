"""Processes that train one model together: each works on a share of a step's images.

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
    """One of ``size`` processes that train together; by default the only one."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must be in [0, {self.size}), got {self.rank}")

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [item.grad for item in parameters if item.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        means = flat.split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))


ALONE = Team()


@contextmanager
def team(size: int, work: Callable[[Team], None]) -> Iterator[Team]:
    """Context in which this process is the first of ``size``; the others run ``work``.

    The other processes end with the context.

    Args:
        size: Number of processes on the CPU; 1 starts no other process.
        work: Function that the other processes call; it must be at module level, to be pickled.

    Raises:
        ValueError: If ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"size must be 1 process or more, got {size}")
    if size == 1:
        yield Team()
        return
    with TemporaryDirectory() as folder:
        address = f"file://{Path(folder) / 'rendezvous'}"
        spawn = multiprocessing.get_context("spawn")
        others = [
            spawn.Process(target=_run_other, args=(address, Team(rank, size), work, os.getpid()))
            for rank in range(1, size)
        ]
        for other in others:
            other.start()
        try:
            with _process_group(address, Team(0, size)) as first:
                yield first
            for other in others:
                other.join()
        finally:
            for other in others:
                other.terminate()


@contextmanager
def _process_group(address: str, member: Team) -> Iterator[Team]:
    distributed.init_process_group("gloo", address, rank=member.rank, world_size=member.size)
    try:
        yield member
    finally:
        distributed.destroy_process_group()


def _run_other(address: str, member: Team, work: Callable[[Team], None], parent: int) -> None:
    """Run ``work``; if the first process was killed, averaging fails and this process ends."""
    with _process_group(address, member):
        try:
            work(member)
        except RuntimeError:
            if os.getppid() == parent:
                raise
