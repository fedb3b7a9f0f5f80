"""What keeps one dropper to one model and one call at a time. Knows nothing about tokens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakSet

from torch import nn

_ATTACHED: WeakSet[nn.Module] = WeakSet()
_LOCK = threading.Lock()


@contextmanager
def attached(model: nn.Module) -> Iterator[None]:
    """Mark a model as having a dropper.

    Raises:
        ValueError: If it has one already.
    """
    with _LOCK:
        if model in _ATTACHED:
            raise ValueError("a dropper is already attached to this model; leave its context first")
        _ATTACHED.add(model)
    try:
        yield
    finally:
        with _LOCK:
            _ATTACHED.discard(model)


class OneCall:
    """Lets one thread at a time run a model; that thread may enter again."""

    def __init__(self) -> None:
        self._owner: int | None = None
        self._depth = 0

    def enter(self) -> None:
        """Start a call.

        Raises:
            ValueError: If another thread is in a call.
        """
        thread = threading.get_ident()
        with _LOCK:
            if self._owner not in (None, thread):
                raise ValueError(
                    "another thread is running this model under the same dropper, which follows "
                    "one call at a time: run one call after the other, or load a second model"
                )
            self._owner = thread
            self._depth += 1

    def leave(self) -> None:
        """End a call; a thread that could not enter leaves nothing."""
        with _LOCK:
            if self._owner == threading.get_ident():
                self._depth -= 1
                if self._depth <= 0:
                    self._owner, self._depth = None, 0


def only(module: nn.Module, function: Callable) -> Callable:
    """``function`` as a hook of this module alone: a deep copy of the module ignores it."""

    def hook(called: nn.Module, *args: Any) -> Any:
        return function(called, *args) if called is module else None

    return hook


@contextmanager
def instance_method(model: nn.Module, name: str, method: Callable) -> Iterator[None]:
    """Replace a method of one instance while the context is open; the class is left alone."""
    own = model.__dict__.get(name)
    model.__dict__[name] = method
    try:
        yield
    finally:
        del model.__dict__[name]
        if own is not None:
            model.__dict__[name] = own


def no_copy(model: nn.Module) -> Callable:
    """A ``__deepcopy__`` that refuses: a copy would keep hooks that work on the original."""

    def __deepcopy__(memo: dict) -> nn.Module:
        raise ValueError(
            f"this {type(model).__name__} has a dropper attached, and a copy would keep its hooks: "
            "copy the model outside the dropper's context"
        )

    return __deepcopy__


def one_at_a_time(
    method: Callable, call: OneCall, before: Callable[..., None], after: Callable[[], None]
) -> Callable:
    """``method``, one thread at a time, with ``before`` its arguments and ``after`` its end."""

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        call.enter()
        try:
            before(*args, **kwargs)
            return method(*args, **kwargs)
        finally:
            after()
            call.leave()

    return checked
