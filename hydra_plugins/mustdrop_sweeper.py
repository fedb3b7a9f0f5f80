"""Sweeper of ``mustdrop run -m``; Hydra loads plugins only from this package."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CellSweeper(Sweeper):
    """Launches the unfinished cells of an experiment with any Hydra launcher.

    Args:
        cells: List of products of varied values, as in a preset under conf/experiment/; if empty,
            the command line varies values.
        unready: Action if some cells cannot start: refuse, skip or launch.
    """

    def __init__(self, cells: Sequence[Mapping[str, Any]], unready: str = "refuse") -> None:
        self.cells, self.unready = cells, unready
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None
        self.config: DictConfig | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        # Imported here, because Hydra imports every plugin at the start of every program.
        from experiments.sweeps.cells import expand
        from experiments.sweeps.launch import sweep

        assert self.context is not None and self.config is not None and self.launcher is not None
        loader, config = self.context.config_loader, self.config
        return sweep(
            expand(self.cells, arguments, loader),
            lambda overrides: loader.load_sweep_config(config, list(overrides)),
            self.launcher,
            self.unready,
        )
