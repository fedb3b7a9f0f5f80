"""Which strategies a replay of the authors' arrays runs, and which arrays it gives."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_runners import HERE, LlavaForConditionalGeneration, cases, load, replayed, tolerance

from mustdrop.strategy import DecodeStrategy, KeyTokenStrategy, PrefillStrategy, VisionStrategy

# base class -> names of the methods that decide
DECISIONS = {
    VisionStrategy: ("begin", "reduce"),
    KeyTokenStrategy: ("protect",),
    PrefillStrategy: ("begin", "reduce"),
    DecodeStrategy: ("keep",),
}
LAYER = re.compile(r"^(L|kv)\d+_")
Settings = Callable[[object], dict[str, object]]


def strategies() -> Iterator[tuple[type, str]]:
    """All strategies of the package, with the name of each method that decides."""
    for stage in ("vision", "key_tokens", "prefill", "decode"):
        package = importlib.import_module(f"mustdrop.{stage}")
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                for base, decisions in DECISIONS.items():
                    if issubclass(kind, base) and kind.__module__ == module.__name__:
                        yield from ((kind, name) for name in decisions)


def compared(model: LlavaForConditionalGeneration, settings: Settings) -> list[dict[str, Any]]:
    """Entries of golden/compared.yaml without their ``code``, from a replay of all files there.

    Files that were replayed by the same strategies, with the same settings, share an entry. A file
    whose arrays come from functions alone has none. Arrays of several layers have one name.
    """
    entries: list[dict[str, Any]] = []
    for folder in sorted(path for path in HERE.iterdir() if path.is_dir()):
        for path in cases(folder.name, HERE):
            used, ours = watched(path, model, settings)
            if not used:
                continue
            key = {"method": folder.name, "strategies": used}
            entry = next((entry for entry in entries if key.items() <= entry.items()), None)
            if entry is None:
                entry = {**key, "files": [], "exact": [], "close": {}}
                entries.append(entry)
            entry["files"].append(path.stem)
            data = load(path)
            for name in ours:
                short, largest = LAYER.sub("", name), tolerance(name, data[name])
                if largest:
                    entry["close"][short] = largest
                elif short not in entry["exact"]:
                    entry["exact"].append(short)
    for entry in entries:
        entry["exact"] = sorted(entry["exact"])
    return entries


def watched(
    path: Path, model: LlavaForConditionalGeneration, settings: Settings
) -> tuple[dict[str, dict[str, object]], list[str]]:
    """Replay a file; the strategies that decided, with their settings, and the arrays' names."""
    used: dict[str, dict[str, object]] = {}

    def watch(kind: type, name: str) -> None:
        plain = getattr(kind, name)

        def recording(self, view):
            used[kind.__name__] = settings(self)
            return plain(self, view)

        patch.setattr(kind, name, recording)

    with pytest.MonkeyPatch.context() as patch:
        for kind, name in strategies():
            watch(kind, name)
        ours = replayed(path, model)
    return dict(sorted(used.items())), list(ours)
