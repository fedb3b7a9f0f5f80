"""Names on a command line, before anything is composed: a misspelt one ends at once, in a line."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from mustdrop.presets.compose import NODES, composed, conf_dir

CLOSE = 0.6  # from 0, nothing alike, to 1


def require_names(arguments: Sequence[str]) -> None:
    """Make sure that what is chosen of a group is there, in a sweep each of the choices.

    Args:
        arguments: Of a command line; options of Hydra's own among them are passed over.

    Raises:
        ValueError: With the name, and the closest one that is there.
    """
    for override in _parsed(arguments):
        group = override.key_or_group
        folder = conf_dir() / group
        if group.startswith(("hydra", "tuned")) or not folder.is_dir():
            continue
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        for value in _values(override):
            if value not in known:
                raise ValueError(f"no {group} {value!r}{_hint(group, value, known)}")


def require_fields(
    arguments: Sequence[str], compose: Callable[[Sequence[str]], DictConfig] | None = None
) -> None:
    """Make sure that the fields of one run that are given values are there.

    Args:
        arguments: As of :func:`require_names`, which goes first.
        compose: Gives the config of overrides; None: that of experiments/run.py.

    Raises:
        ValueError: With the field, and the closest one that is there.
    """
    given = [one for one in _parsed(arguments) if not one.key_or_group.startswith("hydra")]
    fields = [one for one in given if not _is_group(one)]
    top = set(yaml.safe_load((conf_dir() / "run.yaml").read_text()))
    if all(one.key_or_group in top for one in fields):
        return
    chosen = [str(one.input_line) for one in given if _is_group(one) and one not in fields]
    cfg = compose(chosen) if compose is not None else composed(*chosen)
    for one in fields:
        _require_field(cfg, one)


def _require_field(cfg: DictConfig, override: Override) -> None:
    *path, last = str(override.key_or_group).split(".")
    node, place = cfg, ""
    for part in (*path, last):
        if not isinstance(node, DictConfig):  # a stage that is switched off, or a list: Hydra's
            return
        known = [str(key) for key in node]
        if part not in known:
            # what is added to a mapping of free keys may be new
            if override.is_add() and (not path or path[0] not in (*NODES, "dropper", "model")):
                return
            if not place:
                known += [each.name for each in conf_dir().iterdir() if each.is_dir()]
            told = f"{place}.{part}" if place else part
            close = get_close_matches(part, known, 1, CLOSE)
            end = f"did you mean {place + '.' if place else ''}{close[0]}?" if close else (
                f"{place or 'a run'} has {', '.join(k for k in known if k[0] != '_')}"
            )  # fmt: skip
            raise ValueError(f"no field {told}; {end}")
        node = node._get_node(part) if part == last else node.get(part)
        place = f"{place}.{part}" if place else part


def _parsed(arguments: Sequence[str]) -> list[Override]:
    """What can be parsed; what cannot is Hydra's to complain of."""
    parser = OverridesParser.create()
    out = []
    for text in arguments:
        if text.startswith("-") or not ("=" in text or text.startswith("~")):
            continue
        try:
            out.append(parser.parse_override(text))
        except HydraException:
            continue
    return out


def _is_group(override: Override) -> bool:
    return (conf_dir() / str(override.key_or_group)).is_dir()


def _values(override: Override) -> Iterable[str]:
    """The options that an override chooses; none where only Hydra knows them."""
    if override.is_delete():
        return []
    if override.is_discrete_sweep():
        value = override.value()
        if not hasattr(value, "list"):  # glob(*): whatever is there
            return []
        return [text.strip("'\"") for text in override.sweep_string_iterator()]
    value = override.value()
    return [] if value is None or isinstance(value, list | dict) else [str(value).strip("'\"")]


def _hint(group: str, value: str, known: Sequence[str]) -> str:
    number = value.removeprefix("t")
    if group == "budget" and number.replace(".", "", 1).isdigit():
        return (
            f": the presets are {', '.join(known)}; another count is budget.tokens={number} beside "
            "one of them"
        )
    close = get_close_matches(value, known, 1, CLOSE)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
