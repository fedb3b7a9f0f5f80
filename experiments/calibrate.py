"""Find the threshold that gives a method a budget's executed average; write it under conf/tuned/.

python experiments/calibrate.py budget=t128 prefill.alpha=1e-2
python experiments/calibrate.py method=mustdrop_official budget=t128 prefill.alpha=1e-2
python experiments/calibrate.py calibration.field=vision.tau calibration.low=36 calibration.high=71

A budget that the method cannot meet is written too: its cell then says ``floor <n>`` instead of
running.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from experiments.compose import conf_dir
from experiments.run import BAD_INPUT, KNOWN, message
from mustdrop.harness.calibrate import Found, OutOfReach, bisect, executed_average, with_field
from mustdrop.harness.chat import prompt_inputs, read_chat


def calibrate(cfg: DictConfig, console: Console) -> tuple[Found | OutOfReach, float | None]:
    """Search on the first ``n`` questions of the calibration split, then measure on the next ``n``.

    Returns:
        Where the search ended, and the executed average on what was held out.

    Raises:
        ValueError: If there is no budget, or no such field.
    """
    if cfg.budget is None:
        raise ValueError("there is no budget to meet: choose one, as in budget=t128")
    if cfg.benchmark.calibration is None:
        raise ValueError(
            f"benchmark {cfg.benchmark.name} has no split to choose thresholds on: choose them on "
            f"another one, and give them to its runs, as in {cfg.calibration.field}=1e-3"
        )
    place, n = cfg.calibration.field, cfg.calibration.n
    # the value that is looked for may have none yet
    OmegaConf.update(cfg, place, cfg.calibration.low)
    dropper = instantiate(cfg.dropper)
    task = instantiate(cfg.benchmark.calibration)
    if len(task.eval_docs) < 2 * n:
        raise ValueError(
            f"calibration.n={n} needs {2 * n} questions, half of them held out; split "
            f"{cfg.benchmark.calibration.split} has {len(task.eval_docs)}"
        )
    model, processor = instantiate(cfg.model).load(cfg.device)

    def prompts(first: int) -> Sequence[Any]:
        chats = [
            read_chat(cfg.benchmark.name, index, task.doc_to_messages(task.eval_docs[index]))
            for index in range(first, first + n)
        ]
        size = cfg.batch_size
        return [
            prompt_inputs(model, processor, chats[start : start + size])
            for start in range(0, n, size)
        ]

    seen = prompts(0)

    def measure(value: float) -> float:
        average = executed_average(model, with_field(dropper, place, value), seen)
        console.print(f"{place} {value:.4g}: executed {average:.1f}")
        return average

    found = bisect(
        measure,
        float(cfg.budget.tokens),
        float(cfg.calibration.low),
        float(cfg.calibration.high),
        float(cfg.calibration.tolerance),
    )
    if isinstance(found, OutOfReach):
        return found, None
    return found, executed_average(model, with_field(dropper, place, found.value), prompts(n))


def write(cfg: DictConfig, found: Found | OutOfReach, held_out: float | None) -> Path:
    """The yaml that ``run.yaml`` picks up for this model, benchmark, strategy and budget."""
    choices = HydraConfig.get().runtime.choices
    stage, _, name = cfg.calibration.field.partition(".")
    folder = conf_dir() / "tuned" / cfg.model.name / cfg.benchmark.name
    # what the strategy's own yaml leaves open belongs together; what it holds is not repeated
    bare = OmegaConf.load(conf_dir() / stage / f"{choices[stage]}.yaml")
    fixed = {
        str(key): number(cfg[stage][key])
        for key in bare
        if OmegaConf.is_missing(bare, key) and key != name
    }
    source = (
        f"# Source: experiments/calibrate.py, {cfg.benchmark.calibration.split}, seed {cfg.seed}, "
        f"method {cfg.method.name}.\n"
    )
    if isinstance(found, OutOfReach):
        path = folder / f"{cfg.method.name}_{cfg.budget.name}_floor.yaml"
        told = ", ".join(f"{key} {value}" for key, value in fixed.items())
        text = (
            f"# Out of reach by {name} with {told}: the least executed average of "
            f"{cfg.calibration.n} questions.\n{source}floor: {found.nearest:.1f}\n"
        )
    else:
        assert held_out is not None
        path = folder / f"{choices[stage]}_{cfg.budget.name}.yaml"
        miss = held_out / found.target - 1
        text = (
            f"# {name} found by bisection, all else fixed: executed average {found.measured:.1f} "
            f"of {cfg.calibration.n} questions,\n# {held_out:.1f} ({miss:+.1%} off the budget) of "
            f"as many held out.\n{source}{name}: {number(found.value)}\n"
            + "".join(f"{key}: {value}\n" for key, value in fixed.items())
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def number(value: float | None) -> str:
    """As thresholds are written: 1.234e-03, which plain YAML reads as a number too."""
    return "null" if value is None else f"{value:.3e}"


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="calibrate")
def main(cfg: DictConfig) -> None:
    """Search, tell, write."""
    console = Console()
    try:
        found, held_out = calibrate(cfg, console)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    if isinstance(found, OutOfReach):
        told = f"out of reach: the nearest is {found.nearest:.1f}"
        if found.nearest < found.target:
            console.print(
                f"{told}; the method drops more than {found.target:g} would need at any value"
            )
            raise SystemExit(BAD_INPUT)
    else:
        told = f"{cfg.calibration.field} = {found.value:.4g}: executed {found.measured:.1f}"
        told += f", held out {held_out:.1f}"
    console.print(f"{cfg.method.name} at {cfg.budget.name}: {told}")
    if cfg.calibration.write:
        console.print(f"written: {write(cfg, found, held_out)}", soft_wrap=True)


if __name__ == "__main__":
    main()
