"""Errors as one sentence for the user, and the exit codes of the commands. Knows no run."""

import re
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

BAD_INPUT = 2
STOPPED = 130  # the convention of shells: 128 plus the number of SIGINT
SAMPLES_KEPT = "finished samples are kept, and the same command continues from there"
FILES_KEPT = "files that were written are kept, and the same command starts again"
BUSY = 75  # EX_TEMPFAIL of sysexits.h: a temporary failure, try again later
# The field that a strategy refuses, as in "SparseVLM.recycle must be" or "layers must be".
REFUSED_FIELD = re.compile(r"(?:[A-Z]\w*\.(?=\w)|(?=layers? ))(\w+)\S* must be ")
KNOWN = (ValueError, TypeError, OSError, OmegaConfBaseException, HydraException)


def message(error: BaseException) -> str:
    """Describe an error in a sentence or two, with its key in the config."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give {error.full_key}=<value>"
    if isinstance(error, InstantiationException):
        _, named, key = str(error).rpartition("full_key: ")
        reason = str(error.__cause__ or error)
        return f"{key.strip()}: {reason}" if named else reason
    if isinstance(error, OmegaConfBaseException):
        # the resolver's own error is in the first line, after a prefix of OmegaConf
        reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2]
        key = str(error.full_key)
        # a count that follows from the budget was resolved, and the strategy refused another field
        if refused := REFUSED_FIELD.match(reason):
            key = f"{key.rpartition('.')[0]}.{refused[1]}"
        return f"{key}: {reason}"
    return str(error)


def ending(program: Callable[[], int | None], kept: str = SAMPLES_KEPT) -> int:
    """Run a program and return its exit code; bad input and ctrl-C print one line each.

    Args:
        program: Function without arguments; None is the exit code 0.
        kept: End of the sentence after ctrl-C: which work is kept.
    """
    try:
        return program() or 0
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"stopped: {kept}", file=sys.stderr)
        return STOPPED


def leave(program: Callable[[], int | None]) -> NoReturn:
    """Run a program and exit with its code."""
    raise SystemExit(ending(program))
