"""The front of accuracy against executed tokens: thresholds drawn by Optuna, each a run of its own.

python experiments/pareto.py                               # MustDrop on PocketLLaVA, 24 trials
python experiments/pareto.py pareto.trials=60 pareto.workers=2 threads=1
python experiments/pareto.py pareto.validate=true           # the front's settings on test questions

Stopped anywhere, the same command goes on; started twice, two share the work. Every trial is an
ordinary run on questions of the calibration split, under <output_root>/front/<name>/.
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
    """What is drawn, by stage and field.

    Raises:
        ValueError: If a field is none of a stage in use, or nothing is drawn.
    """
    out = {}
    for stage, fields in (cfg.pareto.space or {}).items():
        for name, ends in (fields or {}).items():
            # a field without a value is one too
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
        raise ValueError("pareto.space names no field to draw")
    return out


def questions(cfg: DictConfig, validate: bool = False) -> DictConfig:
    """A run's config of the study's: on calibration questions, or to validate on test questions."""
    own = cfg.copy()
    task = OmegaConf.to_container(cfg.benchmark.calibration, resolve=True)
    assert isinstance(task, dict)
    with open_dict(own):
        own.output_root, own.experiment = str(Path(cfg.output_root, "pareto")), cfg.pareto.name
        own.benchmark.calibration = task
        if not validate:
            own.benchmark.task, own.benchmark.name = task, task["name"]
        del own["pareto"]
    return own


def setting(cfg: DictConfig, values: Mapping[str, float], validate: bool = False) -> DictConfig:
    """The run of one trial; four digits, so that its record can be read and repeated."""
    own = questions(cfg, validate)
    for place, value in values.items():
        OmegaConf.update(own, place, float(f"{value:.4g}"))
    return own


def shared(cfg: DictConfig) -> SharedStudy:
    """The study of a config, begun or gone on with."""
    drawn = space(cfg)
    # whatever decides what a trial comes to, but for what is drawn
    own = setting(cfg, {place: ends.low for place, ends in drawn.items()})
    fixed = OmegaConf.to_container(own)
    assert isinstance(fixed, dict)
    kept = ("model", "benchmark", "vision", "key_tokens", "prefill", "decode", "seed")
    asked = {
        **{str(name): fixed[name] for name in kept},
        "space": {place: [ends.low, ends.high, ends.log] for place, ends in drawn.items()},
        "code": run_fingerprint(resolved(own)).id,
    }
    folder = Path(cfg.output_root, "pareto", cfg.pareto.name)
    return SharedStudy(folder, drawn, asked, cfg.pareto.seed)


def work(cfg: DictConfig, study: SharedStudy) -> None:
    """Ask, run, tell, until as many trials as wanted are finished or in other workers' hands."""
    with study.at_work():
        while (trial := study.ask(cfg.pareto.trials)) is not None:
            print(f"trial {trial.number}, {study.count(TrialState.COMPLETE)} done")
            record = run(setting(cfg, trial.params))
            study.tell(
                trial, record["metrics"][record["metric"]], record["counts"]["executed_average"]
            )


def _worker(config: str, log: Path) -> None:
    """A further process; what it says goes to a file of its own."""
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    with log.open("a", buffering=1) as told, redirect_stdout(told), redirect_stderr(told):
        work(cfg, shared(cfg))


def team(cfg: DictConfig, folder: Path) -> list[BaseProcess]:
    """The other workers of this start."""
    context = get_context("spawn")
    out = []
    for number in range(1, cfg.pareto.workers):
        log = folder / f"worker-{number}.log"
        out.append(context.Process(target=_worker, args=(OmegaConf.to_yaml(cfg), log), daemon=True))
        out[-1].start()
    return out


def controls(cfg: DictConfig, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The methods beside the trials, on the same questions; nothing of the method is theirs."""
    theirs = [
        told for told in overrides if told.lstrip("+~").split("=")[0].split(".")[0] not in METHODS
    ]
    name = f"pareto.name={cfg.pareto.name}"
    for method in cfg.pareto.controls:
        for budget in ["none"] if method == "vanilla" else cfg.pareto.budgets:
            yield questions(
                composed(*theirs, f"method={method}", f"budget={budget}", name, name="pareto")
            )


def main(overrides: Sequence[str]) -> None:
    """Go on with the study, then show what is there."""
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
        asked = [setting(cfg, _values(point["config"], study.space), True) for point in best]
        list(run_all(asked, console, "held out "))
    found = read(root, *names)
    console.print()
    console.print(table(found, list(study.space)))
    for ending in ("svg", "png"):
        console.print(
            f"drawn: {draw(found, root / f'pareto.{ending}')}", soft_wrap=True, markup=False
        )
    left = study.count(TrialState.RUNNING)
    if left:
        console.print(f"{left} trials are still at work elsewhere; the same command shows them too")
    lost = [process.exitcode for process in others if process.exitcode]
    if lost:
        raise SystemExit(f"{len(lost)} workers failed; see {root}/worker-*.log")


def _values(config: Mapping[str, Any], places: Mapping[str, Any]) -> dict[str, float]:
    return {place: config[place.split(".")[0]][place.split(".")[1]] for place in places}


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
