"""Find the threshold at which a method meets a budget, and write it under conf/tuned/.

mustdrop calibrate -m budget=t192,t128 prefill.alpha=1e-2
mustdrop calibrate method=mustdrop_individual calibration.field=prefill.alpha
mustdrop calibrate method=mustdrop_merge budget=t288 calibration.field=vision.tau

A budget that the method cannot meet is written too: its cell then reads ``floor <n>`` and is not
run.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.statistics.intervals import mean_interval
from experiments.calibration_batches import batches, progress_bar
from experiments.checks.thresholds import require_matching_model
from experiments.cli.errors import BAD_INPUT, FILES_KEPT, KNOWN, message
from experiments.cli.hydra_program import run_hydra
from experiments.tuned_table import Calibrated, require_free, tuned_path, write
from mustdrop.calibration.observe import observe, unset
from mustdrop.calibration.replay import Replay
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.calibration.threshold import executed, threshold, with_field
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.presets.compose import adopt, composed, conf_dir
from mustdrop.presets.from_budget import follows

failures: list[str] = []


class Questions:
    """A model and its calibration questions: ``n`` to search on, and the next ``n`` held out.

    The model, the prepared prompts and the observed passes are reused for the next budget.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str, calibration: str, batch_size: int, n: int
    ) -> None:
        task = instantiate(OmegaConf.create(calibration))
        if not 1 <= n <= len(task.eval_docs) // 2:
            raise ValueError(
                f"calibration.n must be in [1, {len(task.eval_docs) // 2}], half of the questions "
                f"of {task.config.task}, got {n}"
            )
        self.task, self.batch_size, self.n = task, batch_size, n
        self.model, self.processor = checkpoint.load(device)
        self.replays: dict[tuple, Replay | None] = {}
        self.inputs: dict[int, list[Any]] = {}
        self.passes = 0

    def prompts(self, first: int) -> list[Any]:
        """Prepare the model's input batches of the ``n`` questions from index ``first`` on."""
        if first not in self.inputs:
            indices = range(first, first + self.n)
            self.inputs[first] = batches(
                self.model, self.processor, self.task, indices, self.batch_size
            )
        return self.inputs[first]

    def executed(self, dropper: TokenDropper, first: int, label: str) -> list[float]:
        """Run the model; return the executed average of each question."""
        self.passes += 1
        prompts = self.prompts(first)
        with progress_bar(f"pass {self.passes}: {label}", len(prompts)) as tick:
            return executed(self.model, dropper, prompts, tick)

    def observed(self, dropper: TokenDropper, field: str) -> Replay | None:
        """Observe a pass over the first questions, from which any threshold can be replayed."""
        key = unset(dropper, field), field
        if key not in self.replays:
            prompts = self.prompts(0)
            with progress_bar("pass 1: observing", len(prompts)) as tick:
                self.replays[key] = observe(self.model, dropper, field, prompts, tick)
            self.passes += self.replays[key] is not None
        return self.replays[key]


questions = lru_cache(maxsize=1)(Questions)


def calibrate(cfg: DictConfig, console: Console) -> Calibrated:
    """Search on the first ``n`` questions of the calibration split, then measure on the next ``n``.

    Raises:
        ValueError: If there is no budget, no such field, or the split is too small.
    """
    field, n = cfg.calibration.field, cfg.calibration.n
    low, high = _search_range(cfg)
    # the config may hold no value yet for the field that is searched
    OmegaConf.update(cfg, field, low)
    dropper = instantiate(cfg.dropper)
    with_field(dropper, field, low)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    start = time.monotonic()
    node = OmegaConf.to_yaml(cfg.benchmark.calibration, resolve=True)
    session = questions(instantiate(cfg.model), cfg.device, node, cfg.batch_size, n)
    session.passes = 0

    def average(value: float) -> float:
        measured = session.executed(with_field(dropper, field, value), 0, f"{field} {value:.4g}")
        console.print(f"{field} {value:.4g}: executed {sum(measured) / n:.1f}")
        return sum(measured) / n

    replay = session.observed(dropper, field)
    tolerance, target = float(cfg.calibration.tolerance), float(cfg.budget.tokens)
    result = threshold(average, replay, dropper, field, target, low, high, tolerance)
    held_out = None
    if isinstance(result, SearchResult):
        held_out = mean_interval(
            session.executed(with_field(dropper, field, result.value), n, "held out")
        )
    return Calibrated(result, held_out, session.passes, time.monotonic() - start)


def _search_range(cfg: DictConfig) -> tuple[float, float]:
    """Return the range to search; everything is checked before a model is loaded."""
    if cfg.budget is None:
        raise ValueError("there is no budget to meet: choose one, as in budget=t128")
    if cfg.benchmark.calibration is None:
        raise ValueError(
            f"benchmark {cfg.benchmark.name} has no split to choose thresholds on: calibrate on "
            f"another benchmark and give its values to the run, as in {cfg.calibration.field}=1e-3"
        )
    field = cfg.calibration.field
    stage, _, name = field.partition(".")
    node = cfg.get(stage)
    # the list also holds fields without a value
    if not isinstance(node, DictConfig) or name not in list(node):
        raise ValueError(
            f"{field} is no field of a stage in use; write stage.field, as in prefill.gamma"
        )
    if follows(node, name):
        raise ValueError(
            f"{field} follows from the budget in closed form, so no calibration is needed"
        )
    # the strategy, which knows the range of its thresholds, needs a value first
    if OmegaConf.is_missing(node, name):
        OmegaConf.update(cfg, field, 0.0)
    low, high = instantiate(cfg.dropper[stage]).thresholds.get(name, (None, None))
    low = low if cfg.calibration.low is None else cfg.calibration.low
    high = high if cfg.calibration.high is None else cfg.calibration.high
    if low is None or high is None:
        raise ValueError(f"{field} has no range: give calibration.low and calibration.high")
    return float(low), float(high)


def described(cfg: DictConfig, done: Calibrated) -> str:
    """Describe the outcome of a calibration in one line."""
    result = done.result
    cost = f"{done.passes} passes over {cfg.calibration.n} questions, {done.seconds:.0f} s"
    if isinstance(result, OutOfReach):
        return f"out of reach: the nearest executed average is {result.nearest:.1f} ({cost})"
    assert done.held_out is not None
    held = done.held_out
    return (
        f"{cfg.calibration.field} = {result.value:.4g}: executed {result.measured:.1f}, held out "
        f"{held.value:.1f} ({held.low:.1f} to {held.high:.1f}) ({cost})"
    )


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="calibrate")
def job(cfg: DictConfig) -> None:
    """Search, print and write; in a sweep, a budget that fails does not stop the others."""
    adopt(cfg, HydraConfig.get().runtime.choices)
    # in a file, a line must not be cut to 80 columns
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        require_matching_model(cfg)
        if cfg.calibration.write and cfg["budget"] is not None:
            require_free(cfg, tuned_path(cfg))
        done = calibrate(cfg, console)
        console.print(f"{cfg.method.name} at {cfg.budget.name}: {described(cfg, done)}")
        result = done.result
        if isinstance(result, OutOfReach) and result.nearest < result.target:
            raise ValueError(
                f"at every value of {cfg.calibration.field} the method keeps fewer than "
                f"{result.target:g} tokens, so nothing is written"
            )
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise SystemExit(BAD_INPUT) from None
        failures.append(message(error))
        return
    if cfg.calibration.write:
        console.print(f"written: {write(cfg, done)}", soft_wrap=True, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot work ends it with an exit code."""
    run_hydra(
        job, arguments, __doc__, lambda groups: composed(*groups, name="calibrate"), FILES_KEPT
    )


def program(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 1 if a budget failed."""
    main(arguments)
    if failures:
        print(f"{len(failures)} budgets failed:\n  " + "\n  ".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))
