"""Find the threshold at which a method meets a budget, and write it to the model's table.

mustdrop calibrate -m budget=t192,t128,22.2% prefill.alpha=1e-2
mustdrop calibrate method=mustdrop_merge budget=t288

The table is conf/tuned/<model>.yaml. A share is met on average over prompts of any size. A budget
that the method cannot meet is written too: its cell then reads ``floor <n>`` and is not run.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from math import isnan
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.statistics.intervals import mean_interval
from experiments.calibration_batches import batches, progress_bar
from experiments.calibration_field import (
    require_floor,
    require_points,
    search_range,
    searched_field,
)
from experiments.checks.thresholds import require_matching_model
from experiments.cli.errors import BAD_INPUT, FILES_KEPT, KNOWN, message
from experiments.cli.hydra_program import run_hydra
from experiments.threads import set_threads
from experiments.tuned_table import (
    Calibrated,
    calibrated_row,
    held_out_questions,
    number,
    require_free,
    table_path,
    write_row,
)
from mustdrop.budget import Budget
from mustdrop.calibration.observe import observe, unset
from mustdrop.calibration.replay import Replay
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.calibration.threshold import executed, threshold, with_field
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir

failures: list[str] = []


class Questions:
    """A model and its calibration questions: ``n`` to search on, and ``held_out`` behind them.

    The model, the prompts of the search and the observed passes are reused for the next budget.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str,
        calibration: str,
        batch_size: int,
        n: int,
        held_out: int,
    ) -> None:
        task = instantiate(OmegaConf.create(calibration))
        total = len(task.eval_docs)
        if n < 1 or held_out < 1 or n + held_out > total:
            raise ValueError(
                "calibration.n and calibration.held_out must be at least 1 and at most "
                f"{total} together, the questions of {task.config.task}, got {n} and {held_out}"
            )
        self.task, self.batch_size, self.n, self.held_out = task, batch_size, n, held_out
        self.model, self.processor = checkpoint.load(device)
        self.replays: dict[tuple, Replay | None] = {}
        self.passes = 0

    @cached_property
    def prompts(self) -> list[Any]:
        """Input batches of the questions that are searched on."""
        return self._batches(range(self.n))

    def searched(self, dropper: TokenDropper, label: str, shares: bool = False) -> list[float]:
        """Executed average of each question that is searched on, a share if ``shares``."""
        self.passes += 1
        with progress_bar(f"pass {self.passes}: {label}", len(self.prompts)) as tick:
            return executed(self.model, dropper, self.prompts, tick, shares)

    def measured(self, dropper: TokenDropper, shares: bool = False) -> list[float]:
        """Executed average of each held-out question; their prompts are not kept in memory."""
        stop = self.n + self.held_out
        starts = range(self.n, stop, self.batch_size)
        averages: list[float] = []
        with progress_bar("held out", len(starts)) as tick:
            for start in starts:
                part = self._batches(range(start, min(start + self.batch_size, stop)))
                averages += executed(self.model, dropper, part, tick, shares)
        return averages

    def _batches(self, indices: Sequence[int]) -> list[Any]:
        return batches(self.model, self.processor, self.task, indices, self.batch_size)

    def observed(self, dropper: TokenDropper, field: str) -> Replay | None:
        """Observe a pass over the first questions, from which any threshold can be replayed."""
        key = unset(dropper, field), field
        if key not in self.replays:
            with progress_bar("pass 1: observing", len(self.prompts)) as tick:
                self.replays[key] = observe(self.model, dropper, field, self.prompts, tick)
            self.passes += self.replays[key] is not None
        return self.replays[key]


questions = lru_cache(maxsize=1)(Questions)


def calibrate(cfg: DictConfig, console: Console) -> Calibrated:
    """Search on the first ``n`` questions of the calibration split, then measure on others.

    Raises:
        ValueError: If there is no budget, no such field, or the split is too small.
    """
    field, n, budget = searched_field(cfg), cfg.calibration.n, Budget.parse(cfg.budget)
    low, high = search_range(cfg, field)
    assert budget is not None  # checked with the range
    shares = budget.share is not None
    # the config may hold no value yet for the field that is searched
    OmegaConf.update(cfg, field, low)
    dropper = instantiate(cfg.dropper)
    with_field(dropper, field, low)
    set_threads(cfg.threads)
    start = time.monotonic()
    node = OmegaConf.to_yaml(cfg.benchmark.calibration, resolve=True)
    held = held_out_questions(cfg)
    session = questions(instantiate(cfg.model), cfg.device, node, cfg.batch_size, n, held)
    session.passes = 0

    def average(value: float) -> float:
        value = float(number(value))  # as the table writes it, so that a run repeats the average
        label = f"{field} {value:.4g}"
        measured = session.searched(with_field(dropper, field, value), label, shares)
        console.print(f"{label}: executed {_amount(sum(measured) / n, budget)}")
        return sum(measured) / n

    replay = session.observed(dropper, field)
    tolerance = float(cfg.calibration.tolerance)
    result = threshold(
        average, replay, dropper, field, budget, low, high, tolerance, cfg.calibration.points
    )
    held_out = None
    if isinstance(result, SearchResult):
        result = replace(result, value=float(number(result.value)))
        held_out = mean_interval(session.measured(with_field(dropper, field, result.value), shares))
    return Calibrated(result, held_out, session.passes, time.monotonic() - start)


def described(cfg: DictConfig, field: str, done: Calibrated) -> str:
    """Describe the outcome of a calibration in one line."""
    result, budget = done.result, Budget.parse(cfg.budget)
    assert budget is not None
    cost = (
        f"{done.passes} passes over {cfg.calibration.n} questions, {held_out_questions(cfg)} held "
        f"out, {done.seconds:.0f} s"
    )
    if isinstance(result, OutOfReach):
        nearest = _amount(result.nearest, budget)
        return f"out of reach: the nearest executed average is {nearest} ({cost})"
    assert done.held_out is not None
    held = done.held_out
    amounts = (result.measured, held.value, held.low, held.high)
    executed, value, low, high = (_amount(amount, budget) for amount in amounts)
    interval = "too few questions for an interval" if isnan(held.low) else f"{low} to {high}"
    return (
        f"{field} = {result.value:.4g}: executed {executed}, held out {value} ({interval}; "
        f"{held.value / result.target - 1:+.1%} off the budget) ({cost})"
    )


def _amount(executed: float, budget: Budget) -> str:
    """Format an executed average as the budget states it."""
    return f"{executed:.1f}" if budget.share is None else f"{100 * executed:.2f} %"


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="calibrate")
def job(cfg: DictConfig) -> None:
    """Search, print and write; in a sweep, a budget that fails does not stop the others."""
    # in a file, a line must not be cut to 80 columns
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        budget, field = Budget.parse(cfg.budget), searched_field(cfg)
        require_matching_model(cfg, field)
        cfg.calibration.field = field
        search_range(cfg, field)
        require_points(cfg)
        if cfg.calibration.write:
            require_free(cfg, field)
        done = calibrate(cfg, console)
        assert budget is not None  # checked with the range
        console.print(f"{cfg.method.name} at {budget.name}: {described(cfg, field, done)}")
        if isinstance(done.result, OutOfReach):
            require_floor(cfg, field, done.result)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise SystemExit(BAD_INPUT) from None
        failures.append(message(error))
        return
    if cfg.calibration.write:
        write_row(table_path(cfg), calibrated_row(cfg, field, done), cfg.model.name)
        console.print(f"written: {table_path(cfg)}", soft_wrap=True, markup=False)


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
