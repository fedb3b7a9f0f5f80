"""Settings of the jobs on one cluster, from one file; both ways of submitting read it.

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
# signal that warns submitit's tasks; USR2 would kill a Python that is still importing
WARNING = "URG"
# sbatch options that mustdrop sets
RESERVED = ("array", "chdir", "error", "open_mode", "output", "requeue", "signal", "wait")


@final
@dataclass(frozen=True)
class Site:
    """Settings of a job on a cluster; null leaves a setting to the cluster.

    Attributes:
        partition: Queue of the jobs.
        account: Account that is charged.
        qos: Quality of service.
        constraint: Features that a node must have.
        gres: Devices of a task, like ``gpu:1``.
        cpus_per_task: Number of CPUs, and of torch threads, of a task.
        mem: Memory of a task, like ``32G``.
        time: Minutes until a task is stopped; it is then requeued and resumes.
        array_limit: Number of tasks that run at once.
        signal_seconds: Seconds between the warning of a task and the end of ``time``.
        max_restarts: Number of times that a task may be requeued.
        logs: Folder of logs, manifests and scripts; relative to the folder of the submission.
        environment: Shell lines before the task: modules, conda, variables.
        run: Command that replaces the submitting Python: ``python`` of the environment above, or
            ``apptainer exec --nv image.sif python``.
        options: Other sbatch options by their long names: ``{exclude: node7}``; true for a flag.

    Raises:
        ValueError: If a value is out of range (or TypeError, if its type is wrong).
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
                f"signal_seconds must be less than the {self.time} minutes of time, got "
                f"{self.signal_seconds}"
            )
        _check_options(self.options)
        for name, value in {**self.sbatch_options(), "logs": self.logs, "run": self.run}.items():
            if isinstance(value, str) and ("\n" in value or not value.strip()):
                raise ValueError(f"{name} must be one line of text, got {value!r}")

    def sbatch_options(self) -> dict[str, Any]:
        """Options of sbatch by their long names; true for a flag."""
        names = (
            "partition", "account", "qos", "constraint", "gres", "cpus_per_task", "mem", "time",
        )  # fmt: skip
        keys = {name.replace("_", "-"): getattr(self, name) for name in names}
        more = {name.replace("_", "-"): value for name, value in self.options.items()}
        return {name: value for name, value in {**keys, **more}.items() if value is not None}


def load_site(path: Path | None = None) -> Site:
    """Read the site from a file, by default from that of MUSTDROP_SITE or slurm/site.yaml.

    Without any file, a job requests one CPU for an hour.

    Raises:
        ValueError: If a named file does not exist, or a value in it is wrong (or TypeError).
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    file = named or FILE
    if not file.is_file():
        if named:
            raise ValueError(
                f"there is no site file {file}; copy slurm/site.example.yaml to begin with"
            )
        return Site()
    try:
        values = yaml.safe_load(file.read_text())
        texts = yaml.load(file.read_text(), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise TypeError(f"{file} must hold keys and values, got {type(values).__name__}")
    known = [key.name for key in fields(Site)]
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise ValueError(
            f"{file}: unknown {', '.join(unknown)}; known keys are {', '.join(known)}; all other "
            "sbatch options belong under options"
        )
    for name in values:
        # YAML reads 4:00:00 as the number 14400
        if isinstance(values[name], int) and ":" in texts[name]:
            values[name] = texts[name]
    try:
        return Site(**values)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{file}: {error}") from error


def for_submitit(name: str) -> Any:
    """Resolve ``${site:name}`` of conf/launcher/slurm.yaml.

    Args:
        name: Key of the site; or ``setup``, the shell lines before the task; or
            ``additional_parameters``, the options that submitit has no parameter for.

    Raises:
        ValueError: If submitit cannot use the site, or the site has no such key.
    """
    site = load_site()
    if site.run is not None:
        raise ValueError(
            f"run is {site.run!r} in the site file, but submitit starts the Python that submits: "
            "use mustdrop sweep submit, which respects run"
        )
    if name == "setup":
        lines = [
            *site.environment.splitlines(),
            f"export OMP_NUM_THREADS={site.cpus_per_task} PYTHONUNBUFFERED=1",
            "export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}",
            # since 22.05 srun no longer takes the number from sbatch's options
            f"export SRUN_CPUS_PER_TASK={site.cpus_per_task}",
            "export WANDB_MODE=${WANDB_MODE:-offline}",
            f"export SUBMITIT_PREEMPT_SIGNAL={WARNING}",
        ]
        return [_literal(_literal(line)) for line in lines]
    if name == "additional_parameters":
        warning = {"requeue": True, "signal": f"{WARNING}@{site.signal_seconds}"}
        options = {**site.sbatch_options(), **warning}
        return {key.replace("-", "_"): value for key, value in options.items()}
    if name not in site.__dataclass_fields__:
        raise ValueError(f"a site has no key {name!r}")
    return getattr(site, name)


def _literal(line: str) -> str:
    """Escape a line for OmegaConf, which reads it twice on its way to submitit."""
    return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", line)


def _check_options(options: Mapping[str, Any]) -> None:
    keys = {key.name for key in fields(Site)} - {"run", "options"}
    for name, value in options.items():
        word = name.replace("-", "_") if isinstance(name, str) else ""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise ValueError(f"options: {name!r} is no long name of an sbatch option")
        if word in keys:
            raise ValueError(f"options.{name}: set {word} as a key of the site, not in options")
        if word in RESERVED:
            raise ValueError(f"options.{name}: mustdrop sets {word}, so the site cannot")
        # true stands for a flag; false has no meaning
        if value is False or not isinstance(value, str | int | float):
            raise TypeError(f"options.{name} must be text, a number or true, got {value!r}")


def _check_type(name: str, value: Any, hint: Any) -> None:
    if hint == Mapping[str, Any]:
        kinds: tuple[type, ...] = (Mapping,)
    else:
        kinds = get_args(hint) or (hint,)
    # true is an int in Python, but it is no count
    if not isinstance(value, kinds) or isinstance(value, bool):
        words = {str: "text", int: "a whole number", Mapping: "keys and values", NoneType: "null"}
        expected = " or ".join(words[kind] for kind in kinds)
        raise TypeError(f"{name} must be {expected}, got {value!r}")
