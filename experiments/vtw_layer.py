"""Find the layer after which all vision tokens can be dropped, by VTW's own rule.

mustdrop vtw model=pocket n=20 eta=0.003
mustdrop vtw model=llava15_7b benchmark=textvqa write=true

Prints KL(withdrawn || full) of the next token for each K, the number of layers that see vision
tokens, and writes K - 1 into the output folder; ``write=true`` also writes it for prefill=vtw_kl.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.statistics.intervals import Interval, mean_interval
from experiments.calibration_batches import batches, progress_bar
from experiments.checks.thresholds import weights
from experiments.cli.errors import BAD_INPUT, FILES_KEPT, KNOWN, message
from experiments.cli.hydra_program import run_hydra
from experiments.threads import set_threads
from experiments.tuned_table import command, row_text, table_path, versions, write_row
from mustdrop.calibration.vtw import divergences, first_within
from mustdrop.checkpoint import Checkpoint
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.tuned import inputs_of, same_inputs, tuned_row
from mustdrop.provenance.weights_mark import same_weights

STRATEGY = "vtw_kl"


def search(cfg: DictConfig) -> list[Interval]:
    """Measure the mean divergence of each K from ``first`` on, over the first ``n`` questions.

    Raises:
        ValueError: If the benchmark has no calibration split, or n, first or eta is out of range.
    """
    if cfg.benchmark.calibration is None:
        raise ValueError(f"benchmark {cfg.benchmark.name} has no split to choose a layer on")
    if not (isinstance(cfg.eta, float | int) and math.isfinite(cfg.eta) and cfg.eta >= 0):
        raise ValueError(f"eta must be a divergence in nats, 0 or more, got {cfg.eta}")
    checkpoint: Checkpoint = instantiate(cfg.model)
    depth = checkpoint.layers
    if not isinstance(cfg.first, int) or not 0 <= cfg.first < depth:
        raise ValueError(f"first must be in [0, {depth - 1}], got {cfg.first}")
    task = instantiate(OmegaConf.create(OmegaConf.to_yaml(cfg.benchmark.calibration, resolve=True)))
    if not isinstance(cfg.n, int) or not 1 <= cfg.n <= len(task.eval_docs):
        raise ValueError(f"n must be in [1, {len(task.eval_docs)}], got {cfg.n}")
    set_threads(cfg.threads)
    model, processor = checkpoint.load(cfg.device)
    prompts = batches(model, processor, task, range(cfg.n), cfg.batch_size)
    with progress_bar("prefills", len(prompts) * (depth - cfg.first + 1)) as tick:
        measured = divergences(model, prompts, depth, cfg.first, tick)
    return [mean_interval(row.tolist()) for row in measured.cpu()]


def table(cfg: DictConfig, measured: list[Interval]) -> list[str]:
    """Format the divergences, one line for each K."""
    return [
        f"K {k:>2}: {kl.value:.2e} nats (95 % interval {kl.low:.2e} to {kl.high:.2e})"
        for k, kl in enumerate(measured, cfg.first)
    ]


def choose(cfg: DictConfig, measured: list[Interval]) -> int:
    """Return the first K with a divergence of at most eta.

    Raises:
        ValueError: If every divergence is larger than eta.
    """
    chosen = first_within([kl.value for kl in measured], cfg.eta, cfg.first)
    if chosen is None:
        least = min(range(len(measured)), key=lambda index: measured[index].value)
        raise ValueError(
            f"no K from {cfg.first} on has a divergence of at most eta={cfg.eta:g}: the least is "
            f"{measured[least].value:.2e} at K={cfg.first + least}"
        )
    return chosen


def require_free(cfg: DictConfig) -> None:
    """Make sure that the layer of other weights is not overwritten.

    Raises:
        ValueError: If the table holds the layer of other weights, and ``force`` is false.
    """
    row = tuned_row(cfg, STRATEGY, "layer")
    if row is None or not cfg.write or cfg.force or not same_inputs(row, cfg.model):
        return
    if not same_weights(row["model"], cfg.model):
        raise ValueError(
            f"{table_path(cfg)} holds the layer of {row['model']['pretrained']}: use write=false "
            "to get a value to give by hand, a new preset under conf/model to keep both, or "
            "force=true to replace the row"
        )


def write(cfg: DictConfig, measured: list[Interval], chosen: int) -> list[Path]:
    """Write a table to the output folder and, with ``write=true``, the row to the tuned values."""
    split = cfg.benchmark.calibration.split
    row = {
        "strategy": STRATEGY,
        "values": {"layer": chosen - 1},
        "n": cfg.n,
        "command": command("vtw"),
        "model": weights(cfg),
        "inputs": inputs_of(cfg.model),
        "versions": versions(cfg),
    }
    lines = "".join(f"#   {line}\n" for line in table(cfg, measured))
    text = (
        f"# The first K at which KL(withdrawn || full) of the next token is at most {cfg.eta:g}: "
        f"{chosen}; layer is K - 1.\n# Mean over the first {cfg.n} questions of {split}:\n{lines}"
    )
    folder = Path(cfg.output_root) / cfg.experiment / cfg.model.name / cfg.benchmark.name
    paths = [folder / f"{STRATEGY}.yaml"]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(text + row_text(row))
    if cfg.write:
        paths.append(table_path(cfg))
        write_row(paths[1], row, cfg.model.name)
    return paths


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="vtw_layer")
def job(cfg: DictConfig) -> None:
    """Measure the divergences, print them and write the layer."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        require_free(cfg)
        measured = search(cfg)
        for line in table(cfg, measured):
            console.print(line)
        chosen = choose(cfg, measured)
        console.print(f"{cfg.model.name}: K = {chosen}, layer = {chosen - 1} (eta {cfg.eta:g})")
        for path in write(cfg, measured, chosen):
            console.print(f"written: {path}", soft_wrap=True, markup=False)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot work ends it with an exit code."""
    run_hydra(
        job, arguments, __doc__, lambda groups: composed(*groups, name="vtw_layer"), FILES_KEPT
    )


if __name__ == "__main__":
    main()
