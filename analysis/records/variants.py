"""Config entries in which runs of one method and budget differ.

Knows nothing about results.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mustdrop.runs.key import deciding_entries


def variants(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Entries of each config that differ between the configs, as ``prefill.gamma=0.002, seed=1``.

    Entries that cannot change a result and copies of the stages in ``dropper`` are left out.
    """
    relevant = [_relevant(config) for config in configs]
    entries = dict(_differences("", relevant))
    shown = {
        path: values
        for path, values in entries.items()
        if not (path.startswith("dropper.") and path.removeprefix("dropper.") in entries)
    }
    return [
        ", ".join(f"{path}={_short(values[index])}" for path, values in shown.items())
        for index in range(len(relevant))
    ]


def alike(first: Mapping[str, Any], second: Mapping[str, Any], but: Sequence[str] = ()) -> bool:
    """Whether two configs request the same answers; entries named in ``but`` are ignored."""
    ignored = (*but, "controls")  # control passes do not change the answers of the method itself
    ours, theirs = (_without(_relevant(config), ignored) for config in (first, second))
    return ours == theirs


def _without(value: Any, names: Sequence[str]) -> Any:
    """Copy of a config without the entries of these names, at any depth."""
    if not isinstance(value, Mapping):
        return value
    return {name: _without(entry, names) for name, entry in value.items() if name not in names}


def _relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of a config without the entries that cannot change a sample's answer."""
    entries = deciding_entries(config)
    return {name: value for name, value in entries.items() if name != "batch_size"}


def _differences(path: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Dotted paths at which the values differ, each with the value of every config."""
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
    """Short text for a value: the ``name`` of a mapping, or the class of a strategy."""
    if isinstance(value, Mapping):
        target = str(value.get("_target_", ""))
        return str(value.get("name") or target.rpartition(".")[2] or dict(value))
    return "none" if value is None else str(value)
