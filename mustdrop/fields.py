"""Types for the fields of hyper-parameter dataclasses, and the check of these fields.

The type of a field states its allowed values (``keep: Count``), and :func:`require_fields` checks
them when the dataclass is created. Knows nothing about strategies.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from mustdrop.budget import Budget


@dataclass(frozen=True)
class Within:
    """Range of a number, or of the number of entries of a list.

    Attributes:
        text: Description of the range in a message, after "must be".
        least: Smallest value allowed.
        most: Largest value allowed.
    """

    text: str
    least: float
    most: float = math.inf


Count = Annotated[int, Within("a count of tokens, 0 or more", 0.0)]
Positive = Annotated[int, Within("a count, 1 or more", 1.0)]
Share = Annotated[float, Within("a share in [0, 1]", 0.0, 1.0)]
Weight = Annotated[float, Within("an attention weight in [0, 1]", 0.0, 1.0)]
Keep = Count | Budget
Layers = Annotated[Sequence[int], Within("a list of one layer or more, like [2, 6]", 1.0)]

TEXTS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}


def require_fields(instance: Any) -> None:
    """Check every field of a frozen dataclass against its type, and store the plain value.

    Integers of any type (NumPy's too) become ``int``, real numbers ``float``, lists ``tuple``. A
    boolean is not accepted as a number, nor is a string that spells one.

    Args:
        instance: Instance that calls this in its ``__post_init__``.

    Raises:
        ValueError: If a field has a value that is not allowed; names the class and the field.
    """
    kinds = _kinds(type(instance))
    for field in fields(instance):
        name = f"{type(instance).__name__}.{field.name}"
        value = plain(name, getattr(instance, field.name), kinds[field.name])
        object.__setattr__(instance, field.name, value)


def plain(name: str, value: Any, kind: Any) -> Any:
    """Convert a value to the plain Python value of a kind.

    Args:
        name: Name of the field, for the message.
        value: Value to check and convert.
        kind: ``int``, ``float``, ``bool`` or ``str``; a choice of words (``Literal``); a
            ``Sequence`` of a kind; any of these :class:`Within` a range; ``|`` a dataclass, whose
            instances stay as they are, or ``| None``.

    Raises:
        ValueError: If the value is not of that kind.
    """
    if get_origin(kind) not in (Union, UnionType):
        return _convert(name, value, kind, "")
    parts: tuple[Any, ...] = get_args(kind)
    whole: tuple[Any, ...] = tuple(part for part in parts if part is NoneType or is_dataclass(part))
    if isinstance(value, whole):
        return value
    (kind,) = (part for part in parts if part not in whole)
    names = ["None" if part is NoneType else f"a {part.__name__}" for part in whole]
    return _convert(name, value, kind, "".join(f", or {text}" for text in names))


@cache
def _kinds(dataclass_type: type) -> Mapping[str, Any]:
    return get_type_hints(dataclass_type, include_extras=True)


def _convert(name: str, value: Any, kind: Any, rest: str) -> Any:
    """Convert a value that is not None, as :func:`plain` does; ``rest`` ends the message."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, within = parts
        result = _basic(value, base) if base in TEXTS else _listed(value, get_args(base)[0])
        size = len(result) if isinstance(result, tuple) else result
        if size is None or not within.least <= size <= within.most:
            raise ValueError(f"{name} must be {within.text}{rest}, got {value!r}")
        return result
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{name} must be one of {', '.join(parts)}{rest}, got {value!r}")
        return value
    if not parts:
        basic = _basic(value, kind)
        if basic is None:
            raise ValueError(f"{name} must be {TEXTS[kind]}{rest}, got {value!r}")
        return basic
    if not _is_list(value):
        raise ValueError(f"{name} must be a list{rest}, got {value!r}")
    return tuple(plain(f"{name}[{index}]", part, parts[0]) for index, part in enumerate(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)


def _listed(value: Any, kind: type) -> tuple[Any, ...] | None:
    """Plain values of a list; None if it is not a list, or if a part is not of the kind."""
    parts = tuple(_basic(part, kind) for part in value) if _is_list(value) else (None,)
    return None if None in parts else parts


def _basic(value: Any, kind: type) -> Any:
    """A plain ``int``, ``float``, ``bool`` or ``str``; None if the value is not of the kind."""
    if kind is bool:
        return bool(value) if isinstance(value, bool | np.bool_) else None
    if kind is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    if kind is int:
        return int(value) if isinstance(value, Integral) else None
    if not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)
