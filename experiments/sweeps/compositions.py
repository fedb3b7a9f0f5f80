"""Configs of a sweep's cells, composed by Hydra once for all cells with the same options of groups.

Composing takes a tenth of a second, and most cells differ in plain values, such as the budget. Such
a value is set in a copy, as Hydra would set it.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mustdrop.presets.names import is_group


class Compositions:
    """Composes configs as another function does, which it calls once for each choice of options.

    The list of overrides in the config's ``hydra`` node lacks the plain values.

    Args:
        compose: Function that composes a config from overrides.
    """

    def __init__(self, compose: Callable[[Sequence[str]], DictConfig]) -> None:
        self.compose = compose
        self.configs: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if _is_plain_value(override)]
        options = tuple(str(item.input_line) for item in parsed if item not in values)
        if options not in self.configs:
            self.configs[options] = self.compose(options)
        cfg = deepcopy(self.configs[options])
        try:
            for override in values:
                OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return self.compose(overrides)  # raises Hydra's own error
        return cfg


def _is_plain_value(override: Override) -> bool:
    """Whether an override only sets a field that exists, and no setting of Hydra."""
    key = str(override.key_or_group)
    sets = override.type is OverrideType.CHANGE and override.package is None
    return sets and not (override.is_sweep_override() or is_group(key) or key.startswith("hydra."))
