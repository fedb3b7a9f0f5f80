"""Comparison of a method with the arrays of its authors' own code, as a line of its card.

The facts stand in tests/golden/compared.yaml; a test replays the arrays and compares the facts with
what the replay used. Knows nothing about pages.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "tests" / "golden" / "compared.yaml"
Settings = dict[str, object]


def settings(strategy: object) -> Settings:
    """Fields of a strategy that choose a rule: words, switches, and values that are none."""
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}  # type: ignore[arg-type]
    return {
        name: value
        for name, value in values.items()
        if value is None or isinstance(value, str | bool)
    }


def line(strategies: Sequence[object]) -> str:
    """What a method of these strategies was compared with.

    A comparison counts if the method has all strategies that took part in it, by the same rules.
    """
    if not strategies:
        return "nothing to compare"
    rules = {type(strategy).__name__: settings(strategy) for strategy in strategies}
    entries = [entry for entry in _entries() if entry["strategies"].keys() <= rules.keys()]
    equal = [entry for entry in entries if not _differences(entry, rules)]
    if equal:
        return ". ".join(map(_comparison, equal))
    if entries:
        entry = min(entries, key=lambda entry: len(_differences(entry, rules)))
        others = ", ".join(f"`{rule}`" for rule in _differences(entry, rules))
        return f"no authors' arrays of this variant; those of {entry['code']} have {others}"
    return "no authors' arrays"


def _entries() -> list[dict[str, Any]]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def _differences(entry: dict[str, Any], rules: dict[str, Settings]) -> list[str]:
    """Rules of a comparison that a method does not have."""
    return [
        f"{kind}.{name} = {used.get(name, 'a number')}"
        for kind, used in entry["strategies"].items()
        for name in sorted({*used, *rules[kind]})
        if used.get(name, "a number") != rules[kind].get(name, "a number")
    ]


def _comparison(entry: dict[str, Any]) -> str:
    """Code, number of files, and the names of the arrays by how equal they must be."""
    count = len(entry["files"])
    parts = []
    if entry["exact"]:
        parts.append(f"{_names(entry['exact'])} exactly")
    for tolerance in sorted(set(entry["close"].values())):
        names = [name for name, value in entry["close"].items() if value == tolerance]
        parts.append(f"{_names(names)} within {tolerance:.0e} of the largest value")
    text = "; ".join(parts).replace("e-0", "e-")
    return f"{entry['code']}, {count} file{'s' * (count > 1)}: {text}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
