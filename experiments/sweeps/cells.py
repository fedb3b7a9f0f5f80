"""The cells of an experiment: its runs, and the status of each.

A preset under conf/experiment/ lists them under ``hydra.sweeper.cells``. A name on the command line
replaces the same name in the preset; a method goes to the entries that list it. Launches nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.checks.remedies import NeedsCalibration
from experiments.checks.run_checks import checked
from experiments.cli.errors import KNOWN, message
from experiments.sweeps.compositions import Compositions
from mustdrop.presets.folders import conf_dir, preset_names, user_configs
from mustdrop.presets.from_budget import STAGES
from mustdrop.presets.names import require_fields, require_names
from mustdrop.runs.folder import TornFile, run_folder
from mustdrop.runs.key import UNKEYED
from mustdrop.runs.repair import damage, read_config
from mustdrop.runs.status import SETTLED, RunStatus, run_status

Overrides = tuple[str, ...]

METHOD = "method="
VANILLA = f"{METHOD}vanilla"
# overrides that a cell's name leaves out: its folder shows them, or all cells share them
PLAIN = ("experiment", "model", "method", "budget", "benchmark", "benchmark.limit", *UNKEYED)


@dataclass(frozen=True, eq=False)
class SweepCell:
    """One run of an experiment.

    Attributes:
        overrides: Arguments of ``mustdrop run`` for this run.
        config: Resolved config; None if it cannot be composed.
        folder: Folder of the run; None without a config.
        error: Reason why the config cannot be composed.
        calibration: Words of the command that finds the run's missing thresholds, after
            ``mustdrop``; empty if nothing is missing, or no command can find it.
    """

    overrides: Overrides
    config: Mapping[str, Any] | None
    folder: Path | None
    error: str = ""
    calibration: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, overrides: Overrides, compose: Callable[[Sequence[str]], DictConfig]
    ) -> "SweepCell":
        """Compose a cell; the error of a config that cannot work is stored, not raised."""
        try:
            require_names(overrides)
            cfg = compose(overrides)
            config = checked(cfg, overrides)
            return cls(overrides, config, run_folder(config))
        except KNOWN as error:
            command = error.command if isinstance(error, NeedsCalibration) else ()
            return cls(overrides, None, None, _reason(error, overrides, compose), command)

    @property
    def name(self) -> str:
        """Method, budget, benchmark and the other overrides of the cell."""
        if self.config is None:
            return " ".join(self.overrides)
        budget = self.config["budget"]
        words = [self.config[name]["name"] for name in ("method", "benchmark")]
        words.insert(1, budget["name"] if budget else "none")
        if not self.overrides and self.folder is not None:
            words[-1] = self.folder.name
        chosen = [text for text in self.overrides if text.partition("=")[0] not in PLAIN]
        return " ".join([*words, *chosen])

    @property
    def status(self) -> RunStatus:
        """Present status of the run, read from its folder."""
        if self.config is None or self.folder is None:
            state = "needs calibration" if self.calibration else "unready"
            return RunStatus(state, error=self.error)
        traces = self.config["traces"]
        return run_status(
            self.folder,
            self.config["benchmark"]["limit"],
            range(traces) if isinstance(traces, int) else traces,
        )

    @property
    def torn(self) -> list[TornFile]:
        """Errors of the run's files that cannot be read."""
        if self.config is None or self.folder is None:
            return []
        traces = self.config["traces"]
        return damage(self.folder, range(traces) if isinstance(traces, int) else traces)

    @property
    def unfinished(self) -> bool:
        """Whether samples are left to answer, because they are missing, torn or forced again."""
        if self.config is not None and self.config["force"]:
            return True
        return self.status.state not in SETTLED or bool(self.torn)


def expand(
    entries: Sequence[Mapping[str, Any]], arguments: Sequence[str], loader: ConfigLoader
) -> list[Overrides]:
    """Expand entries and arguments into the overrides of every cell, by the product of values.

    A method that the arguments name goes to the entries that list it. One that no entry lists goes
    to all entries but that of vanilla, without their fields of strategies, which are those of
    other methods.

    Args:
        entries: Entries of a preset; without any, the arguments alone are expanded.
        arguments: Overrides of the command line, such as ``budget=t192,t64``.
        loader: Loader that lists the options of ``glob(*)``.

    Raises:
        ValueError: If an argument varies over a range without listing its values.
    """
    given = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    named = {override.get_key_element().lstrip("+~") for override in given}
    # if a name is given twice, the last value counts, as in Hydra
    varied = {override.get_key_element(): _choices(override) for override in given}.values()
    cells: dict[Overrides, None] = {}
    for entry in entries or [{}]:
        for chosen in product(*varied):
            method = next((text for text in chosen if text.startswith(METHOD)), None)
            listed = method is None or not entry.get("method") or method in _methods(entry)
            if not listed and not _takes(entry, method, entries):
                continue
            options = [
                [f"{name}={_text(value)}" for value in (values if _is_list(values) else [values])]
                for name, values in entry.items()
                if name not in named and (listed or name.split(".")[0] not in STAGES)
            ]
            cells |= dict.fromkeys((*chosen, *rest) for rest in product(*options))
    return list(cells)


def _methods(entry: Mapping[str, Any]) -> list[str]:
    """Overrides of the methods that an entry lists."""
    methods = entry.get("method", [])
    return [f"{METHOD}{name}" for name in (methods if _is_list(methods) else [methods])]


def _takes(
    entry: Mapping[str, Any], method: str | None, entries: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether an entry takes a method that it does not list."""
    if any(method in _methods(other) for other in entries):
        return False
    return _methods(entry) != [VANILLA] or all(_methods(other) == [VANILLA] for other in entries)


def plan(experiment: str, arguments: Sequence[str] = ()) -> list[SweepCell]:
    """List the cells of a preset, one for each run.

    Raises:
        ValueError: If there is no such preset, or an argument chooses an option that is missing.
        HydraException: If an argument names a field that is missing.
    """
    known = preset_names("experiment")
    if experiment not in known:
        raise ValueError(f"experiment must be one of {', '.join(known)}, got {experiment!r}")
    require_names(arguments)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def compose(overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
            return loader.load_configuration("run", [*overrides, *user_configs()], mode)

        given = [f"experiment={experiment}", *arguments]
        entries = _entries(given, compose, loader)
        return cells_of(expand(entries, given, loader), compose)


def cells_of(
    runs: Sequence[Overrides], compose: Callable[[Sequence[str]], DictConfig]
) -> list[SweepCell]:
    """Compose the cells of a sweep, one for each run."""
    shared = Compositions(compose)
    return distinct([SweepCell.of(overrides, shared) for overrides in runs])


def _entries(
    overrides: Sequence[str], compose: Callable[..., DictConfig], loader: ConfigLoader
) -> Any:
    try:
        return compose(overrides, RunMode.MULTIRUN).hydra.sweeper.cells
    except HydraException:  # Hydra leaves out choices of several, which other overrides may need
        given = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
        first = [_choices(override)[0] for override in given]
    try:
        return compose(first, RunMode.MULTIRUN).hydra.sweeper.cells
    except HydraException as error:
        raise ValueError(_reason(error, first, compose)) from error


def cells_under(root: Path) -> list[SweepCell]:
    """List all runs under a folder of results as cells."""
    cells = []
    for path in sorted(Path(root).rglob("config.yaml")):
        try:
            cells.append(SweepCell((), read_config(path.parent), path.parent))
        except TornFile as error:
            cells.append(SweepCell((str(path.parent),), None, None, str(error)))
    return cells


def distinct(cells: Sequence[SweepCell]) -> list[SweepCell]:
    """Keep one cell for each folder, as vanilla's at all budgets, and all without a config."""
    return list({cell.folder or cell.overrides: cell for cell in cells}.values())


def _reason(error: Exception, overrides: Sequence[str], compose: Callable[..., DictConfig]) -> str:
    """Explain why a run cannot be composed; a misspelt name gives a one-line reason."""
    if isinstance(error, HydraException):
        try:
            require_fields(overrides, lambda groups: compose(tuple(groups)))
        except ValueError as reason:
            return str(reason)
    return message(error)


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise ValueError(f"{override.input_line} has no list: name the values, as in tau=62,64,66")
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _text(value: Any) -> str:
    """Format a value as the command line writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_text, value))}]" if _is_list(value) else str(value)
