"""Files of runs that cannot be read: each costs its own run or sample, and a warning that names it.

Knows nothing about what is in them.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LeftOut(UserWarning):
    """Something on disk was left out, since it cannot be read."""


def leave_out(reason: object) -> None:
    """Warn that something is left out.

    Args:
        reason: The file, the line where there is one, and what is wrong with it.
    """
    warnings.warn(f"left out: {reason}", LeftOut, stacklevel=3)


@contextmanager
def in_words() -> Iterator[None]:
    """Inside it, what is left out is one line on standard error, once, as a command says it."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOut)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, LeftOut):
                if str(message) not in said:
                    print(message, file=sys.stderr)
                said.add(str(message))
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield
