"""The sweeper of ``experiments/run.py -m``, in the one package from which Hydra takes plugins."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CellSweeper(Sweeper):
    """Launches the cells of an experiment that are not finished, with any launcher of Hydra's.

    Args:
        cells: What varies, an entry a product, as a preset under conf/experiment/ lists it; with
            none, what the command line varies.
        unready: What to do where some of them cannot start: refuse, skip or launch.
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
        # Hydra looks into every plugin at every start, of any program: what is heavy waits
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
