"""What one cluster wants of a job, from one file; both ways of submitting read it.

Knows nothing about sweeps, cells or Hydra.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, final, get_args, get_type_hints

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "slurm" / "site.yaml"
VARIABLE = "MUSTDROP_SITE"
# What submitit's tasks are warned with: nobody dies of it who does not listen yet. USR2 kills them.
WARNING = "URG"
# what the two ways set by themselves
OURS = ("array", "chdir", "error", "open_mode", "output", "requeue", "signal", "wait")


@final
@dataclass(frozen=True)
class Site:
    """A cluster, as a job of one cell sees it. What is null is left to the cluster.

    Attributes:
        partition: Where jobs queue.
        account: Who pays.
        qos: Quality of service.
        constraint: Features a node must have.
        gres: Devices of a task, like ``gpu:1``.
        cpus_per_task: CPUs of a task; the threads of its torch too.
        mem: Memory of a task, like ``32G``.
        time: Minutes until a task is stopped; it goes on in a new turn.
        array_limit: Tasks at once.
        signal_seconds: How long before ``time`` runs out a task is warned.
        max_restarts: Turns a task may be given after its first.
        logs: The folder of logs, manifests and scripts; relative to where one submits.
        environment: Shell lines before the task: modules, conda, variables.
        run: The command instead of the Python that submits: ``python`` of the environment above, or
            ``apptainer exec --nv image.sif python``.
        options: More of sbatch, by its own long names: ``{exclude: node7}``; true for a bare one.

    Raises:
        ValueError: If a value cannot be meant (TypeError: or is of another type).
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    cpus_per_task: int = 1
    mem: str | None = None
    time: int = 60
    array_limit: int = 8
    signal_seconds: int = 120
    max_restarts: int = 10
    logs: str = "outputs/slurm"
    environment: str = ""
    run: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        for name in ("cpus_per_task", "time", "array_limit", "signal_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts must be 0 or more, got {self.max_restarts}")
        if self.signal_seconds >= 60 * self.time:
            raise ValueError(
                f"signal_seconds must leave some of the {self.time} minutes of time, got "
                f"{self.signal_seconds}"
            )
        _check_options(self.options)
        for name, value in {**self.asked(), "logs": self.logs, "run": self.run}.items():
            if isinstance(value, str) and ("\n" in value or not value.strip()):
                raise ValueError(f"{name} must be one line of text, got {value!r}")

    def asked(self) -> dict[str, Any]:
        """What sbatch is asked for, by its own option names; true for a bare option."""
        names = (
            "partition", "account", "qos", "constraint", "gres", "cpus_per_task", "mem", "time",
        )  # fmt: skip
        ours = {name.replace("_", "-"): getattr(self, name) for name in names}
        more = {name.replace("_", "-"): value for name, value in self.options.items()}
        return {name: value for name, value in {**ours, **more}.items() if value is not None}


def load_site(path: Path | None = None) -> Site:
    """The site in a file; else in the one that MUSTDROP_SITE names, or in slurm/site.yaml.

    Without any file it asks for an hour of one CPU.

    Raises:
        ValueError: If a named file does not exist, or the file says what cannot be meant (or
            TypeError).
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    place = named or FILE
    if not place.is_file():
        if named:
            raise ValueError(f"there is no site file {place}; slurm/site.example.yaml is a start")
        return Site()
    try:
        told = yaml.safe_load(place.read_text())
        plain = yaml.load(place.read_text(), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{place} is not YAML: {error}") from error
    if not isinstance(told, dict):
        raise TypeError(f"{place} must hold keys and values, got {type(told).__name__}")
    known = [each.name for each in fields(Site)]
    unknown = [str(name) for name in told if name not in known]
    if unknown:
        raise ValueError(
            f"{place}: unknown {', '.join(unknown)}; known are {', '.join(known)}, and options for "
            "whatever else sbatch takes"
        )
    for name in told:
        # to YAML 4:00:00 is the number 14400
        if isinstance(told[name], int) and ":" in plain[name]:
            told[name] = plain[name]
    try:
        return Site(**told)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{place}: {error}") from error


def for_submitit(name: str) -> Any:
    """A value of conf/launcher/slurm.yaml, as ``${site:name}``: a key of the site, or one of two.

    ``setup`` is what comes before the task, ``additional_parameters`` what has no place of its own.

    Raises:
        ValueError: If the site cannot be had that way, or there is no such value.
    """
    site = load_site()
    if site.run is not None:
        raise ValueError(
            f"run is {site.run!r} in the site file, but submitit starts the Python that submits: "
            "python experiments/sweep.py submit takes the site's own"
        )
    if name == "setup":
        lines = [
            *site.environment.splitlines(),
            f"export OMP_NUM_THREADS={site.cpus_per_task} PYTHONUNBUFFERED=1",
            "export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}",
            # since 22.05 srun no longer takes it from what sbatch was asked for
            f"export SRUN_CPUS_PER_TASK={site.cpus_per_task}",
            "export WANDB_MODE=${WANDB_MODE:-offline}",
            f"export SUBMITIT_PREEMPT_SIGNAL={WARNING}",
        ]
        return [_literal(_literal(line)) for line in lines]
    if name == "additional_parameters":
        warning = {"requeue": True, "signal": f"{WARNING}@{site.signal_seconds}"}
        return {key.replace("-", "_"): value for key, value in {**site.asked(), **warning}.items()}
    if name not in site.__dataclass_fields__:
        raise ValueError(f"a site has no {name!r}")
    return getattr(site, name)


def _literal(line: str) -> str:
    """What OmegaConf reads as this line; on its way to submitit a line is read twice."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", line)


def _check_options(options: Mapping[str, Any]) -> None:
    keys = {each.name for each in fields(Site)} - {"run", "options"}
    for name, value in options.items():
        word = name.replace("-", "_") if isinstance(name, str) else ""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise ValueError(f"options: {name!r} is no long name of an sbatch option")
        if word in keys or word in OURS:
            kind = "a key of its own" if word in keys else "set by what submits"
            raise ValueError(f"options.{name}: {word} is {kind}")
        # true is a bare option; false would be one too
        if value is False or not isinstance(value, str | int | float):
            raise TypeError(f"options.{name} must be text, a number or true, got {value!r}")


def _check_type(name: str, value: Any, hint: Any) -> None:
    if hint == Mapping[str, Any]:
        kinds: tuple[type, ...] = (Mapping,)
    else:
        kinds = get_args(hint) or (hint,)
    # true is an int to Python, and no count to anybody
    if not isinstance(value, kinds) or isinstance(value, bool):
        words = {str: "text", int: "a whole number", Mapping: "keys and values", NoneType: "null"}
        expected = " or ".join(words[kind] for kind in kinds)
        raise TypeError(f"{name} must be {expected}, got {value!r}")
