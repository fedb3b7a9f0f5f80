"""The cells of an experiment: which runs it is made of, and where each of them stands.

A preset under conf/experiment/ lists them under ``hydra.sweeper.cells``; what the command line says
of a name replaces what the preset says. Launches nothing.
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

from experiments.checks.run_checks import checked
from experiments.cli.errors import KNOWN, message
from mustdrop.presets.compose import adopt, conf_dir
from mustdrop.presets.names import require_fields, require_names
from mustdrop.runs.folder import UNKEYED, TornFile, run_folder
from mustdrop.runs.repair import damage, read_config
from mustdrop.runs.status import SETTLED, RunStatus, run_status

Overrides = tuple[str, ...]


# What a cell's name need not repeat: it stands in its folder, or holds for the whole experiment.
PLAIN = ("experiment", "model", "method", "budget", "benchmark", "benchmark.limit", *UNKEYED)


@dataclass(frozen=True, eq=False)
class SweepCell:
    """One run of an experiment.

    Attributes:
        overrides: ``python experiments/run.py`` with these runs it.
        config: Resolved; None where it cannot be composed.
        folder: Where it lives; None where it has no config.
        error: Why it cannot be composed.
    """

    overrides: Overrides
    config: Mapping[str, Any] | None
    folder: Path | None
    error: str = ""

    @classmethod
    def of(cls, overrides: Overrides, compose: Callable[[Overrides], DictConfig]) -> "SweepCell":
        """Composed now; a config that cannot work is told, not raised, for the sake of others."""
        try:
            require_names(overrides)
            cfg = compose(overrides)
            if "hydra" in cfg:
                adopt(cfg, cfg.hydra.runtime.choices)
            config = checked(cfg, overrides)
            return cls(overrides, config, run_folder(config))
        except KNOWN as error:
            return cls(overrides, None, None, _reason(error, overrides, compose))

    @property
    def name(self) -> str:
        """Method, budget, benchmark, and what else was chosen for it."""
        if self.config is None:
            return " ".join(self.overrides)
        budget = self.config["budget"]
        called = [self.config[name]["name"] for name in ("method", "benchmark")]
        called.insert(1, budget["name"] if budget else "none")
        if not self.overrides and self.folder is not None:
            called[-1] = self.folder.name
        chosen = [text for text in self.overrides if text.partition("=")[0] not in PLAIN]
        return " ".join([*called, *chosen])

    @property
    def status(self) -> RunStatus:
        """Where it stands now, by its folder."""
        if self.config is None or self.folder is None:
            return RunStatus("unready", error=self.error)
        traces = self.config["traces"]
        return run_status(
            self.folder,
            self.config["benchmark"]["limit"],
            range(traces) if isinstance(traces, int) else traces,
        )

    @property
    def torn(self) -> list[TornFile]:
        """What of its files cannot be read."""
        if self.config is None or self.folder is None:
            return []
        traces = self.config["traces"]
        return damage(self.folder, range(traces) if isinstance(traces, int) else traces)

    @property
    def unfinished(self) -> bool:
        """Whether there is work left, asked for anew, or lost in a torn file."""
        if self.config is not None and self.config["force"]:
            return True
        return self.status.state not in SETTLED or bool(self.torn)


def expand(
    entries: Sequence[Mapping[str, Any]], arguments: Sequence[str], loader: ConfigLoader
) -> list[Overrides]:
    """The overrides of every cell: each entry's product, with the command line's own.

    Args:
        entries: Of a preset; none: what the command line varies is all.
        arguments: Of the command line, such as ``budget=t192,t64``.
        loader: Tells which options ``glob(*)`` means.

    Raises:
        ValueError: If an argument varies over a range that has no list.
    """
    given = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    named = {override.get_key_element().lstrip("+~") for override in given}
    # of a name given twice the last one counts, as for Hydra
    varied = {override.get_key_element(): _choices(override) for override in given}.values()
    cells: dict[Overrides, None] = {}
    for entry in entries or [{}]:
        own = [
            [f"{name}={_text(value)}" for value in (values if _is_list(values) else [values])]
            for name, values in entry.items()
            if name not in named
        ]
        cells |= dict.fromkeys(product(*varied, *own))
    return list(cells)


def plan(experiment: str, arguments: Sequence[str] = ()) -> list[SweepCell]:
    """The cells of a preset, one a run.

    Raises:
        ValueError: If there is no such preset, or the command line chooses what is not there.
        HydraException: If it names what is not there.
    """
    known = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
    if experiment not in known:
        raise ValueError(f"experiment must be one of {', '.join(known)}, got {experiment!r}")
    require_names(arguments)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def compose(overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
            return loader.load_configuration("run", list(overrides), mode)

        asked = [f"experiment={experiment}", *arguments]
        entries = _entries(asked, compose)
        return distinct([SweepCell.of(cell, compose) for cell in expand(entries, asked, loader)])


def _entries(asked: Sequence[str], compose: Callable[..., DictConfig]) -> Any:
    try:
        return compose(asked, RunMode.MULTIRUN).hydra.sweeper.cells
    except HydraException as error:
        raise ValueError(_reason(error, asked, compose)) from error


def found(root: Path) -> list[SweepCell]:
    """The runs under a folder of results, whoever asked for them."""
    cells = []
    for path in sorted(Path(root).rglob("config.yaml")):
        try:
            cells.append(SweepCell((), read_config(path.parent), path.parent))
        except TornFile as error:
            cells.append(SweepCell((str(path.parent),), None, None, str(error)))
    return cells


def distinct(cells: Sequence[SweepCell]) -> list[SweepCell]:
    """One cell a folder: vanilla is one run, whatever its budget. Those without config are kept."""
    return list({cell.folder or cell.overrides: cell for cell in cells}.values())


def _reason(error: Exception, overrides: Sequence[str], compose: Callable[..., DictConfig]) -> str:
    """Why a run cannot be composed, in one line where a name is all that is wrong."""
    if isinstance(error, HydraException):
        try:
            require_fields(overrides, lambda groups: compose(tuple(groups)))
        except ValueError as closer:
            return str(closer)
    return message(error)


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise ValueError(f"{override.input_line}: name the values, as in tau=62,64,66")
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _text(value: Any) -> str:
    """A value as the command line writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_text, value))}]" if _is_list(value) else str(value)
