"""What tells runs of one method at one budget apart: in which entries their configs differ.

Knows nothing about results.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mustdrop.runs.folder import UNKEYED


def variants(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each config the entries that others lack, as ``prefill.gamma=0.002, seed=1``.

    What changes no result is left out, and so are the stages' copies under ``dropper``.
    """
    asked = [_asked(config) for config in configs]
    entries = dict(_differences("", asked))
    told = {
        path: values
        for path, values in entries.items()
        if not (path.startswith("dropper.") and path.removeprefix("dropper.") in entries)
    }
    return [
        ", ".join(f"{path}={_short(values[place])}" for path, values in told.items())
        for place in range(len(asked))
    ]


def alike(first: Mapping[str, Any], second: Mapping[str, Any], but: Sequence[str] = ()) -> bool:
    """Whether two configs ask for the same answers, entries of these names aside, at any depth."""
    left_out = (*but, "controls")  # what runs beside a method changes no answer of its own
    ours, theirs = (_without(_asked(config), left_out) for config in (first, second))
    return ours == theirs


def _without(value: Any, names: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without(each, names) for name, each in value.items() if name not in names}


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what may change without making it another run."""
    asked = {name: value for name, value in config.items() if name not in (*UNKEYED, "batch_size")}
    limited = asked.get("benchmark") or {}
    asked["benchmark"] = {name: value for name, value in limited.items() if name != "limit"}
    return asked


def _differences(path: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    if all(value == values[0] for value in values):
        return
    if not all(isinstance(value, Mapping) for value in values):
        yield path, values
        return
    names = dict.fromkeys(name for value in values for name in value)
    for name in names:
        inner = f"{path}.{name}" if path else str(name)
        yield from _differences(inner, [value.get(name) for value in values])


def _short(value: Any) -> str:
    """A value in few words: what it is called, or a strategy by its class."""
    if isinstance(value, Mapping):
        target = str(value.get("_target_", ""))
        return str(value.get("name") or target.rpartition(".")[2] or dict(value))
    return "none" if value is None else str(value)
