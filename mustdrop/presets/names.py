"""Checks the names on a command line before a config is composed, and suggests corrections."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from mustdrop.budget import Budget
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir, preset_names, user_dir
from mustdrop.presets.from_budget import STAGES

CLOSE = 0.6  # least similarity of a suggestion, in [0, 1]


def is_group(name: str) -> bool:
    """Whether a name on a command line is that of a config group, the user's own included."""
    folders = [folder for folder in (conf_dir(), user_dir()) if folder is not None]
    return any((folder / name).is_dir() for folder in folders)


def require_names(arguments: Sequence[str]) -> None:
    """Check that the options chosen for config groups exist, in a sweep all of them.

    A budget is checked, too: it is a value and no group, so that Hydra would accept anything.

    Args:
        arguments: Arguments of a command line; Hydra's flags are ignored.

    Raises:
        ValueError: If an option does not exist; the message suggests the closest name.
    """
    for override in _parsed(arguments):
        group = override.key_or_group
        if group.startswith("budget."):
            raise ValueError(
                f"no field {group}: a budget is a plain value, as in budget=128 or budget=22.2%"
            )
        if group == "budget":
            for value in _values(override):
                Budget.parse(value)
        folder = conf_dir() / group
        if group.startswith(("hydra", "tuned")) or not folder.is_dir():
            continue
        known = preset_names(group)
        for value in _values(override):
            if value not in known:
                raise ValueError(f"no {group} {value!r}{_hint(group, value, known)}")


def require_fields(
    arguments: Sequence[str], compose: Callable[[Sequence[str]], DictConfig] | None = None
) -> None:
    """Check that the fields set for one run exist.

    Args:
        arguments: Arguments of a command line that :func:`require_names` has checked.
        compose: Composes a config from overrides; None for the config of mustdrop run.

    Raises:
        ValueError: If a field does not exist; the message suggests the closest name.
    """
    overrides = [item for item in _parsed(arguments) if not item.key_or_group.startswith("hydra")]
    fields = [item for item in overrides if not is_group(str(item.key_or_group))]
    top_level = set(yaml.safe_load((conf_dir() / "run.yaml").read_text()))
    if all(override.key_or_group in top_level for override in fields):
        return
    options = [
        str(override.input_line) for override in overrides if is_group(str(override.key_or_group))
    ]
    cfg = compose(options) if compose is not None else composed(*options)
    for override in fields:
        _require_field(cfg, override)


def _require_field(cfg: DictConfig, override: Override) -> None:
    *path, last = str(override.key_or_group).split(".")
    node, parent = cfg, ""
    for part in (*path, last):
        if not isinstance(node, DictConfig):  # a disabled stage or a list: Hydra checks these
            return
        known = [str(key) for key in node]
        if part not in known:
            # a new key may be added to a mapping with free keys
            if override.is_add() and (not path or path[0] not in (*STAGES, "dropper", "model")):
                return
            if not parent:
                known += [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]
            prefix = f"{parent}." if parent else ""
            close = get_close_matches(part, known, 1, CLOSE)
            hint = f"did you mean {prefix}{close[0]}?" if close else (
                f"{parent or 'a run'} has {', '.join(key for key in known if key[0] != '_')}"
            )  # fmt: skip
            raise ValueError(f"no field {prefix}{part}; {hint}")
        node = node._get_node(part) if part == last else node.get(part)
        parent = f"{parent}.{part}" if parent else part


def _parsed(arguments: Sequence[str]) -> list[Override]:
    """Overrides that can be parsed; Hydra reports the others."""
    parser = OverridesParser.create()
    overrides = []
    for text in arguments:
        if text.startswith("-") or not ("=" in text or text.startswith("~")):
            continue
        try:
            overrides.append(parser.parse_override(text))
        except HydraException:
            continue
    return overrides


def _values(override: Override) -> Iterable[str]:
    """Options that an override chooses; empty if only Hydra can determine them."""
    if override.is_delete():
        return []
    if override.is_discrete_sweep():
        value = override.value()
        if not hasattr(value, "list"):  # glob(*) matches existing files only
            return []
        return [text.strip("'\"") for text in override.sweep_string_iterator()]
    value = override.value()
    return [] if value is None or isinstance(value, list | dict) else [str(value).strip("'\"")]


def _hint(group: str, value: str, known: Sequence[str]) -> str:
    close = get_close_matches(value, known, 1, CLOSE)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
