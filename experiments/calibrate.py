"""Find the threshold that gives a method a budget's executed average; write it under conf/tuned/.

python experiments/calibrate.py -m budget=t192,t128 prefill.alpha=1e-2
python experiments/calibrate.py method=mustdrop_individual calibration.field=prefill.alpha
python experiments/calibrate.py method=mustdrop_merge budget=t288 calibration.field=vision.tau

A budget that the method cannot meet is written too: its cell then says ``floor <n>`` instead of
running.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
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
from experiments.calibration_batches import batches, moving
from experiments.checks.thresholds import require_own_model
from experiments.cli.errors import BAD_INPUT, KNOWN, ending, message
from experiments.tuned_table import Calibrated, require_free, tuned_path, write
from mustdrop.calibration.observe import observe, unset
from mustdrop.calibration.replay import Replay
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.calibration.threshold import executed, threshold, with_field
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.presets.compose import CLOSED_FORMS, adopt, composed, conf_dir
from mustdrop.presets.names import require_fields, require_names

failures: list[str] = []


class Questions:
    """A model and the questions it is asked: the first ``n`` to search on, the next held out.

    What one budget has loaded, prepared and watched serves the next one too.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str, calibration: str, batch_size: int, n: int
    ) -> None:
        task = instantiate(OmegaConf.create(calibration))
        if not 1 <= n <= len(task.eval_docs) // 2:
            raise ValueError(
                f"calibration.n must be in [1, {len(task.eval_docs) // 2}], half of what "
                f"{task.config.task} has, got {n}"
            )
        self.task, self.batch_size, self.n = task, batch_size, n
        self.model, self.processor = checkpoint.load(device)
        self.replays: dict[tuple, Replay | None] = {}
        self.inputs: dict[int, list[Any]] = {}
        self.passes = 0

    def prompts(self, first: int) -> list[Any]:
        """Batches of ``n`` questions, as the model takes them."""
        if first not in self.inputs:
            asked = range(first, first + self.n)
            self.inputs[first] = batches(
                self.model, self.processor, self.task, asked, self.batch_size
            )
        return self.inputs[first]

    def executed(self, dropper: TokenDropper, first: int, told: str) -> list[float]:
        """The executed average of each question, by running the model."""
        self.passes += 1
        asked = self.prompts(first)
        with moving(f"pass {self.passes}: {told}", len(asked)) as tick:
            return executed(self.model, dropper, asked, tick)

    def watched(self, dropper: TokenDropper, place: str) -> Replay | None:
        """What a pass over the first questions shows, whatever the thresholds."""
        key = unset(dropper, place), place
        if key not in self.replays:
            asked = self.prompts(0)
            with moving("pass 1: watching", len(asked)) as tick:
                self.replays[key] = observe(self.model, dropper, place, asked, tick)
            self.passes += self.replays[key] is not None
        return self.replays[key]


questions = lru_cache(maxsize=1)(Questions)


def calibrate(cfg: DictConfig, console: Console) -> Calibrated:
    """Search on the first ``n`` questions of the calibration split, then measure on the next ``n``.

    Raises:
        ValueError: If there is no budget, no such field, or the split is too small.
    """
    place, n = cfg.calibration.field, cfg.calibration.n
    low, high = _asked(cfg)
    # the value that is looked for may have none yet
    OmegaConf.update(cfg, place, low)
    dropper = instantiate(cfg.dropper)
    with_field(dropper, place, low)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    start = time.monotonic()
    node = OmegaConf.to_yaml(cfg.benchmark.calibration, resolve=True)
    asked = questions(instantiate(cfg.model), cfg.device, node, cfg.batch_size, n)
    asked.passes = 0

    def average(value: float) -> float:
        measured = asked.executed(with_field(dropper, place, value), 0, f"{place} {value:.4g}")
        console.print(f"{place} {value:.4g}: executed {sum(measured) / n:.1f}")
        return sum(measured) / n

    replay = asked.watched(dropper, place)
    tolerance, target = float(cfg.calibration.tolerance), float(cfg.budget.tokens)
    found = threshold(average, replay, dropper, place, target, low, high, tolerance)
    held_out = None
    if isinstance(found, SearchResult):
        held_out = mean_interval(
            asked.executed(with_field(dropper, place, found.value), n, "held out")
        )
    return Calibrated(found, held_out, asked.passes, time.monotonic() - start)


def _asked(cfg: DictConfig) -> tuple[float, float]:
    """The range to search, checked before any model is loaded."""
    if cfg.budget is None:
        raise ValueError("there is no budget to meet: choose one, as in budget=t128")
    if cfg.benchmark.calibration is None:
        raise ValueError(
            f"benchmark {cfg.benchmark.name} has no split to choose thresholds on: choose them on "
            f"another one, and give them to its runs, as in {cfg.calibration.field}=1e-3"
        )
    place = cfg.calibration.field
    stage, _, name = place.partition(".")
    node = cfg.get(stage)
    if not isinstance(node, DictConfig) or name not in list(
        node
    ):  # one without a value is there too
        raise ValueError(
            f"{place} is no field of a stage in use; write stage.field, as in prefill.gamma"
        )
    bare = OmegaConf.to_container(node, resolve=False)
    assert isinstance(bare, dict)
    if any(f"{{{form.__name__}:" in str(bare[name]) for form in CLOSED_FORMS):
        raise ValueError(f"{place} follows from the budget in closed form: run it as it is")
    low, high = OmegaConf.select(cfg.calibration.ranges, place) or (None, None)
    if place == "vision.tau" and node.score == "sum":
        pairs = node.window**2 * (node.window**2 - 1)
        low, high = low * pairs, high * pairs
    low = low if cfg.calibration.low is None else cfg.calibration.low
    high = high if cfg.calibration.high is None else cfg.calibration.high
    if low is None or high is None:
        raise ValueError(f"{place} has no range: give calibration.low and calibration.high")
    return float(low), float(high)


def told(cfg: DictConfig, done: Calibrated) -> str:
    """The outcome in a sentence."""
    found = done.found
    cost = f"{done.passes} passes over {cfg.calibration.n} questions, {done.seconds:.0f} s"
    if isinstance(found, OutOfReach):
        return f"out of reach: the nearest is {found.nearest:.1f} ({cost})"
    assert done.held_out is not None
    held = done.held_out
    return (
        f"{cfg.calibration.field} = {found.value:.4g}: executed {found.measured:.1f}, held out "
        f"{held.value:.1f} ({held.low:.1f} to {held.high:.1f}) ({cost})"
    )


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="calibrate")
def job(cfg: DictConfig) -> None:
    """Search, tell, write; in a sweep a budget that cannot work stops no other."""
    adopt(cfg, HydraConfig.get().runtime.choices)
    # a line cut to 80 columns helps nobody who reads it in a file
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        require_own_model(cfg)
        if cfg.calibration.write and cfg["budget"] is not None:
            require_free(cfg, tuned_path(cfg))
        done = calibrate(cfg, console)
        console.print(f"{cfg.method.name} at {cfg.budget.name}: {told(cfg, done)}")
        found = done.found
        if isinstance(found, OutOfReach) and found.nearest < found.target:
            raise ValueError(
                f"the method drops more than {found.target:g} would need at any value of "
                f"{cfg.calibration.field}: nothing is written"
            )
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise SystemExit(BAD_INPUT) from None
        failures.append(message(error))
        return
    if cfg.calibration.write:
        console.print(f"written: {write(cfg, done)}", soft_wrap=True, markup=False)


def main() -> None:
    """The command line, its names checked before anything is composed."""
    code = ending(command_line)
    if code:
        raise SystemExit(code)


def command_line() -> None:
    """Hydra's program, after the names that it was given."""
    require_names(sys.argv[1:])
    if not {"-m", "--multirun"} & {*sys.argv}:
        require_fields(sys.argv[1:], lambda groups: composed(*groups, name="calibrate"))
    job()


if __name__ == "__main__":
    main()
    if failures:
        raise SystemExit(f"{len(failures)} of the budgets failed:\n  " + "\n  ".join(failures))
