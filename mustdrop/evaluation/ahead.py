"""Compute items in worker processes, in order, while the caller works on earlier items.

A worker is a fork, so it shares the caller's objects without copying them. Processes are used, and
not threads, because a model that starts many small operations waits for a thread that runs Python:
9 % of the time in a measurement, and 3 % with a process. Knows nothing about documents and models.
"""

import ctypes
import fcntl
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

CAN_FORK = sys.platform == "linux"
PIPE_BYTES = 1 << 20  # size of a worker's pipe; a small one needs many switches for one item
PR_SET_PDEATHSIG = 1  # prctl: the signal that a process gets when its parent ends
# Signals that a scheduler or a terminal sends to all processes of a run; the parent handles them,
# and all others that it has a handler for.
PARENTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class WorkerEnded(RuntimeError):
    """A worker process ended without its item."""


def chosen_workers(workers: Any) -> int:
    """Number of workers; where it is None, one, or none on systems that cannot fork safely.

    Raises:
        ValueError: If it is no count, or positive on a system that cannot fork safely.
    """
    if workers is None:
        return int(CAN_FORK)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise ValueError(f"workers must be a count of 0 or more, got {workers!r}")
    if workers and not CAN_FORK:
        raise ValueError(f"workers must be 0 on {sys.platform}: they need Linux; got {workers}")
    return workers


def ahead(compute: Callable[[int], bytes], names: Sequence[str], workers: int) -> Generator[bytes]:
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
    running: list[tuple[int, Connection]] = []
    try:
        for first in range(workers):
            running.append(_started(compute, range(first, len(names), workers)))
        for item, name in enumerate(names):
            process, pipe = running[item % workers]
            yield _received(process, pipe, name)
    finally:
        for process, pipe in running:
            os.kill(process, signal.SIGKILL)  # also possible after its end, until it is reaped
            os.waitpid(process, 0)
            pipe.close()


def _started(compute: Callable[[int], bytes], items: range) -> tuple[int, Connection]:
    """Start a worker; return its process and the pipe with its results."""
    receiver, sender = Pipe(duplex=False)
    with suppress(OSError):  # the user's limit on pipes is reached
        fcntl.fcntl(sender.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    parent, left = os.getpid(), parents_signals()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the worker would write what is pending again
    # A signal before the worker ignores it would run the parent's handler there.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, left)
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later warn that other threads' locks stay locked; a worker takes none.
            warnings.simplefilter("ignore", DeprecationWarning)
            # Not of the package multiprocessing: it refuses the processes of `mustdrop pareto`.
            process = os.fork()
        if not process:
            for number in left:
                signal.signal(number, signal.SIG_IGN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if not process:
        try:
            _work(compute, items, sender, parent)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    sender.close()  # so that the end of the worker is the end of its pipe
    return process, receiver


def parents_signals() -> set[int]:
    """Signals that are left to the parent: a worker ignores them."""
    handled = (n for n in signal.valid_signals() if callable(signal.getsignal(n)))
    return {int(number) for number in (*PARENTS, *handled)} - {signal.SIGCHLD}


def _received(process: int, pipe: Connection, name: str) -> bytes:
    """The next result of a worker; raises the error that took its place."""
    try:
        error = pipe.recv()
        if error is None:
            return pipe.recv_bytes()
    except EOFError:
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # it is reaped later
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        raise WorkerEnded(
            f"{name}: the worker process that prepares it ended with exit code {code}; workers=0 "
            "prepares it in the main process"
        ) from None
    raise error


def _work(compute: Callable[[int], bytes], items: range, pipe: Connection, parent: int) -> None:
    """Compute items and send them, in a worker process."""
    end_with(parent)
    import torch  # the parent has imported it, unless it checks a number of workers only

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
        sys.stderr.flush()  # warnings of the libraries
        pipe.send(None)
        pipe.send_bytes(result)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, also if the parent is killed.

    A worker that lived on would hold the lock of the run's folder. Elsewhere than on Linux nothing
    happens.
    """
    if not CAN_FORK:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
