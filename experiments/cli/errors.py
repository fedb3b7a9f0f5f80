"""What went wrong, as a sentence for whoever typed the command. Knows no run."""

import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

BAD_INPUT = 2
STOPPED = 130  # as shells have it: 128 and the number of SIGINT
BUSY = 75  # as sysexits.h has it: a temporary failure, try again later
KNOWN = (ValueError, TypeError, OSError, OmegaConfBaseException, HydraException)


def message(error: BaseException) -> str:
    """What went wrong, in a sentence or two, and where in the config."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give it"
    if isinstance(error, InstantiationException):
        where = str(error).rpartition("full_key: ")[2].strip()
        return f"{where}: {error.__cause__ or error}"
    if isinstance(error, OmegaConfBaseException):
        # what a resolver raised stands in the first line, behind what OmegaConf says of it
        reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2]
        return f"{error.full_key}: {reason}"
    return str(error)


def ending(program: Callable[[], int | None]) -> int:
    """The exit code of a program that runs now; bad input and ctrl-C are a line each."""
    try:
        return program() or 0
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped: finished work is kept, and the same command resumes", file=sys.stderr)
        return STOPPED


def leave(program: Callable[[], int | None]) -> NoReturn:
    """Run a program and leave with its exit code."""
    raise SystemExit(ending(program))
