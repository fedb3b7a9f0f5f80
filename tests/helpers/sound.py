"""All strategies of the package, and a valid instance of each."""

import pkgutil
from importlib import import_module
from inspect import isabstract
from typing import Any

from droppers import DROPPERS
from tiny_methods import METHODS, dropper_of

from mustdrop import decode, key_tokens, prefill, vision
from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.prefill.scheduled_grid import ScheduledGrid
from mustdrop.prefill.scheduled_random import ScheduledRandom
from mustdrop.strategy import DecodeStrategy, KeyTokenStrategy, PrefillStrategy, VisionStrategy

ROOMS = (vision, key_tokens, prefill, decode)


KINDS = (VisionStrategy, KeyTokenStrategy, PrefillStrategy, DecodeStrategy)


def strategies() -> list[type]:
    """Every strategy that a file of the package defines."""
    found = set()
    for room in ROOMS:
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            held = vars(import_module(module.name)).values()
            found |= {
                kind
                for kind in held
                if isinstance(kind, type)
                and issubclass(kind, KINDS)
                and kind.__module__ == module.name
                and not isabstract(kind)
            }
    return sorted(found, key=lambda kind: kind.__name__)


def instances() -> dict[type, Any]:
    """A sound instance of every strategy."""
    droppers = [*map(dropper_of, METHODS), *DROPPERS.values()]
    stages = [
        stage
        for dropper in droppers
        for stage in (dropper.vision, dropper.key_tokens, dropper.prefill, dropper.decode)
    ]
    stages += [
        ScheduledGrid((3, 2)), ScheduledRandom(((3, 2),)), ScheduledCache(((3, 2),)),
        SinkRecent(tokens=3),
    ]  # fmt: skip
    return {type(stage): stage for stage in stages if stage is not None}


SOUND = instances()
