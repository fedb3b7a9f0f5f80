"""Warnings about files that cannot be read; only the run or sample of such a file is left out.

Knows nothing about the content of the files.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LeftOut(UserWarning):
    """A file was left out because it cannot be read."""


def leave_out(reason: object) -> None:
    """Warn that a file is left out.

    Args:
        reason: Name of the file, the line if known, and the fault.
    """
    warnings.warn(f"left out: {reason}", LeftOut, stacklevel=3)


@contextmanager
def in_words() -> Iterator[None]:
    """Print each ``LeftOut`` warning in the context as one line on standard error, once."""
    printed: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOut)
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **more: Any) -> None:
            if issubclass(category, LeftOut):
                if str(message) not in printed:
                    print(message, file=sys.stderr)
                printed.add(str(message))
            else:
                original(message, category, *args, **more)

        warnings.showwarning = show
        yield
