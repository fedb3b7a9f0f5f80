"""Compute items in worker processes, in order, while the caller works on earlier items.

A worker is a fork, so it shares the caller's objects without copying them. Processes are used, and
not threads, because a thread that runs Python delays every operation that the model starts. Knows
nothing about documents and models.
"""

import ctypes
import fcntl
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

CAN_FORK = sys.platform == "linux"
PIPE_BYTES = 1 << 20  # size of a worker's pipe; a small one needs many switches for one item
PR_SET_PDEATHSIG = 1  # prctl: the signal that a process gets when its parent ends
# Signals that a scheduler or a terminal sends to all processes of a run; the parent handles them.
PARENTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class WorkerEnded(RuntimeError):
    """A worker process ended without its item."""


def default_workers() -> int:
    """Number of workers where none is given: one, or none on systems that cannot fork safely."""
    return int(CAN_FORK)


def require_workers(workers: int) -> None:
    """Check a number of workers.

    Raises:
        ValueError: If it is negative, or positive on a system that cannot fork safely.
    """
    if workers < 0:
        raise ValueError(f"workers must be a count of 0 or more, got {workers}")
    if workers and not CAN_FORK:
        raise ValueError(f"workers must be 0 on {sys.platform}: they need Linux; got {workers}")


def ahead(compute: Callable[[int], bytes], names: Sequence[str], workers: int) -> Iterator[bytes]:
    """Results of ``compute(0)``, ``compute(1)``, ..., in this order.

    A worker computes its next item while the caller works, and waits until the caller takes it; of
    items smaller than a pipe, it computes more. The workers are killed when the iterator is closed.

    Args:
        compute: Function that computes an item; an error of it is raised when its item is due.
        names: Name of each item in messages.
        workers: Number of worker processes; 0 computes an item in this process when it is due.

    Raises:
        WorkerEnded: If a worker ended without its item, for example for lack of memory.
    """
    # The first item is waited for in any case.
    workers = min(workers, len(names) - 1)
    if workers < 1:
        yield from map(compute, range(len(names)))
        return
    context = multiprocessing.get_context("fork")
    processes, pipes = [], []
    try:
        for first in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            pipes.append(receiver)
            with suppress(OSError):  # the user's limit on pipes is reached
                fcntl.fcntl(sender.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            items = range(first, len(names), workers)
            process = context.Process(target=_work, args=(compute, items, sender, os.getpid()))
            process.daemon = True
            process.start()
            processes.append(process)
            sender.close()  # so that the end of the worker is the end of its pipe
        for item, name in enumerate(names):
            yield _received(pipes[item % workers], processes[item % workers], name)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()


def _received(pipe: Connection, process: Any, name: str) -> bytes:
    """The next result in a worker's pipe; raises the error that took its place."""
    try:
        error = pipe.recv()
        if error is None:
            return pipe.recv_bytes()
    except EOFError:
        process.join()
        raise WorkerEnded(
            f"{name}: the worker process that prepares it ended with exit code "
            f"{process.exitcode}; workers=0 prepares it in the main process"
        ) from None
    raise error


def _work(compute: Callable[[int], bytes], items: range, pipe: Connection, parent: int) -> None:
    """Compute items and send them, in a worker process."""
    _end_with(parent)
    for number in PARENTS:
        signal.signal(number, signal.SIG_IGN)
    # The pools of threads of torch and of the tokenizer do not survive a fork.
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for item in items:
        try:
            result = compute(item)
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)).rstrip())
            pipe.send(error)
            return
        pipe.send(None)
        pipe.send_bytes(result)


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, also if the parent is killed.

    A worker that lived on would hold the lock of the run's folder.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
