"""Pareto front of accuracy against executed tokens; Optuna draws the thresholds of each run.

mustdrop pareto                               # MustDrop on PocketLLaVA, 24 trials
mustdrop pareto pareto.trials=60 pareto.workers=2 threads=1
mustdrop pareto pareto.validate=true           # the front's settings on test questions

After a stop, the same command resumes; two processes of the same command share the work. Every
trial is an ordinary run on the calibration split, under <output_root>/pareto/<name>/.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from rich.console import Console

from experiments.cli.errors import leave
from experiments.run import run, run_all
from experiments.study import SharedStudy
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.names import require_fields, require_names
from mustdrop.provenance.fingerprint import run_fingerprint

METHODS = ("method", "budget", "vision", "key_tokens", "prefill", "decode", "dropper")


def space(cfg: DictConfig) -> dict[str, FloatDistribution]:
    """Return the distribution of each field that is drawn.

    Raises:
        ValueError: If a field belongs to no stage in use, or no field is drawn.
    """
    out = {}
    for stage, fields in (cfg.pareto.space or {}).items():
        for name, ends in (fields or {}).items():
            # the list also holds fields without a value
            if cfg.get(stage) is None or name not in list(cfg[stage]):
                raise ValueError(
                    f"pareto.space: {stage}.{name} is no field of a stage in use; leave it out "
                    f"with '~pareto.space.{stage}'"
                )
            if not isinstance(ends, DictConfig) or {*ends} != {"low", "high", "log"}:
                raise ValueError(
                    f"pareto.space: {stage}.{name} needs low, high and log, got {ends}"
                )
            out[f"{stage}.{name}"] = FloatDistribution(ends.low, ends.high, log=ends.log)
    if not out:
        raise ValueError("pareto.space must name a field to draw, got none")
    return out


def questions(cfg: DictConfig, validate: bool = False) -> DictConfig:
    """Make a run's config from the study's: on calibration questions, or validated on test ones."""
    config = cfg.copy()
    task = OmegaConf.to_container(cfg.benchmark.calibration, resolve=True)
    assert isinstance(task, dict)
    with open_dict(config):
        config.output_root = str(Path(cfg.output_root, "pareto"))
        config.experiment = cfg.pareto.name
        config.benchmark.calibration = task
        if not validate:
            config.benchmark.task, config.benchmark.name = task, task["name"]
        del config["pareto"]
    return config


def setting(cfg: DictConfig, values: Mapping[str, float], validate: bool = False) -> DictConfig:
    """Make the config of one trial; values get four digits, so that they can be typed again."""
    config = questions(cfg, validate)
    for field, value in values.items():
        OmegaConf.update(config, field, float(f"{value:.4g}"))
    return config


def shared(cfg: DictConfig) -> SharedStudy:
    """Create or open the study of a config."""
    drawn = space(cfg)
    # all settings that affect a trial's result, except those that are drawn
    config = setting(cfg, {field: ends.low for field, ends in drawn.items()})
    fixed = OmegaConf.to_container(config)
    assert isinstance(fixed, dict)
    kept = ("model", "benchmark", "vision", "key_tokens", "prefill", "decode", "seed")
    settings = {
        **{str(name): fixed[name] for name in kept},
        "space": {field: [ends.low, ends.high, ends.log] for field, ends in drawn.items()},
        "code": run_fingerprint(resolved(config)).id,
    }
    folder = Path(cfg.output_root, "pareto", cfg.pareto.name)
    return SharedStudy(folder, drawn, settings, cfg.pareto.seed)


def work(cfg: DictConfig, study: SharedStudy) -> None:
    """Request and run trials until enough are finished or running in other workers."""
    with study.at_work():
        while (trial := study.ask(cfg.pareto.trials)) is not None:
            print(f"trial {trial.number}, {study.count(TrialState.COMPLETE)} done")
            record = run(setting(cfg, trial.params))
            study.tell(
                trial, record["metrics"][record["metric"]], record["counts"]["executed_average"]
            )


def _worker(config: str, log: Path) -> None:
    """Work in another process, with its output in ``log``."""
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        work(cfg, shared(cfg))


def team(cfg: DictConfig, folder: Path) -> list[BaseProcess]:
    """Start the other workers."""
    context = get_context("spawn")
    out = []
    for number in range(1, cfg.pareto.workers):
        log = folder / f"worker-{number}.log"
        out.append(context.Process(target=_worker, args=(OmegaConf.to_yaml(cfg), log), daemon=True))
        out[-1].start()
    return out


def controls(cfg: DictConfig, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Compose the control methods on the same questions, without the method's own overrides."""
    kept = [
        override
        for override in overrides
        if override.lstrip("+~").split("=")[0].split(".")[0] not in METHODS
    ]
    name = f"pareto.name={cfg.pareto.name}"
    for method in cfg.pareto.controls:
        for budget in ["none"] if method == "vanilla" else cfg.pareto.budgets:
            yield questions(
                composed(*kept, f"method={method}", f"budget={budget}", name, name="pareto")
            )


def main(overrides: Sequence[str]) -> None:
    """Continue the study, then show its results."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    require_names(overrides)
    require_fields(overrides, lambda groups: composed(*groups, name="pareto"))
    cfg = composed(*overrides, name="pareto")
    for name in ("trials", "workers"):
        if not isinstance(cfg.pareto[name], int) or cfg.pareto[name] < 1:
            raise ValueError(
                f"pareto.{name} must be a count of 1 or more, got {cfg.pareto[name]!r}"
            )
    root = Path(cfg.output_root, "pareto", cfg.pareto.name)
    study = shared(cfg)
    others = team(cfg, root)
    work(cfg, study)
    for process in others:
        process.join()
    list(run_all(list(controls(cfg, overrides)), console, "control "))

    from analysis.figures.pareto import draw, read, table

    names = cfg.benchmark.calibration.name, cfg.method.name
    if cfg.pareto.validate:
        best = read(root, *names).front
        tested = [setting(cfg, _values(point["config"], study.space), True) for point in best]
        list(run_all(tested, console, "held out "))
    front = read(root, *names)
    console.print()
    console.print(table(front, list(study.space)))
    for ending in ("svg", "png"):
        console.print(
            f"drawn: {draw(front, root / f'pareto.{ending}')}", soft_wrap=True, markup=False
        )
    left = study.count(TrialState.RUNNING)
    if left:
        console.print(f"{left} trials still run in other processes; call again to show them too")
    lost = [process.exitcode for process in others if process.exitcode]
    if lost:
        raise SystemExit(f"{len(lost)} workers failed; see {root}/worker-*.log")


def _values(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, float]:
    return {field: config[field.split(".")[0]][field.split(".")[1]] for field in fields}


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
