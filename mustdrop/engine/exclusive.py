"""Limits a model to one dropper and to one call at a time. Knows nothing about tokens."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakSet

from torch import nn

_ATTACHED: WeakSet[nn.Module] = WeakSet()
_LOCK = threading.Lock()
# attributes in which torch keeps the options of a hook
OPTIONS = (
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip


@contextmanager
def attached(model: nn.Module) -> Iterator[None]:
    """Mark a model as having a dropper.

    Raises:
        ValueError: If the model has one already.
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


def is_attached(model: nn.Module) -> bool:
    """Whether a dropper is attached to a model."""
    with _LOCK:
        return model in _ATTACHED


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

    @property
    def held_by_this_thread(self) -> bool:
        """Whether this thread is in a call."""
        return self._owner == threading.get_ident()

    def leave(self) -> None:
        """End a call of this thread."""
        with _LOCK:
            self._depth -= 1
            if not self._depth:
                self._owner = None


class Only:
    """A hook of one module; a copy of that module ignores it."""

    def __init__(self, module: nn.Module, function: Callable) -> None:
        self.module, self.function = module, function

    def __call__(self, called: nn.Module, *args: Any) -> Any:
        return self.function(called, *args) if called is self.module else None

    def __deepcopy__(self, memo: dict) -> "Only":
        return self


@contextmanager
def instance_method(model: nn.Module, name: str, method: Callable) -> Iterator[None]:
    """Replace a method of one instance while the context is open; the class is left alone."""
    previous = model.__dict__.get(name)
    model.__dict__[name] = method
    try:
        yield
    finally:
        del model.__dict__[name]
        if previous is not None:
            model.__dict__[name] = previous


def clean_copy(model: nn.Module, names: Sequence[str]) -> Callable:
    """Make a ``__deepcopy__`` whose copy has no dropper attached.

    Args:
        model: Model that is copied.
        names: Names of instance methods that the copy must not have, ``__deepcopy__`` included.
    """

    def __deepcopy__(memo: dict) -> nn.Module:
        methods = {name: model.__dict__.pop(name) for name in names}
        try:
            twin = copy.deepcopy(model, memo)
        finally:
            model.__dict__.update(methods)
        for module in twin.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if isinstance(hook, Only)]:
                    del hooks[key]
                    for options in OPTIONS:
                        getattr(module, options).pop(key, None)
        return twin

    return __deepcopy__


def serialised(
    method: Callable, call: OneCall, before: Callable[..., None], after: Callable[[], None]
) -> Callable:
    """Allow one thread at a time in ``method``, and call ``before`` and ``after`` around it."""

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
