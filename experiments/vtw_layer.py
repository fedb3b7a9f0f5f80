"""Find the layer at which vision tokens can leave for good: VTW's own choice of its layer.

python experiments/vtw_layer.py model=pocket n=20 eta=0.003
python experiments/vtw_layer.py model=llava15_7b benchmark=textvqa write=true

Tells KL(withdrawn || full) of the next token for each K, the number of layers that see vision
tokens, and writes K - 1 into the output folder; ``write=true``: where prefill=vtw_kl finds it.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import math
import sys
from pathlib import Path
from textwrap import indent

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analysis.statistics.intervals import Interval, mean_interval
from experiments.calibration_batches import batches, moving
from experiments.checks.thresholds import weights
from experiments.cli.errors import BAD_INPUT, KNOWN, ending, message
from experiments.tuned_table import body, command, measured_on
from mustdrop.calibration.vtw import divergences, first_within
from mustdrop.checkpoint import Checkpoint
from mustdrop.presets.compose import CALIBRATED, composed, conf_dir, read_yaml
from mustdrop.presets.names import require_fields, require_names
from mustdrop.provenance.weights_mark import same_weights

FILE = "vtw_kl.yaml"


def search(cfg: DictConfig) -> list[Interval]:
    """The mean divergence of each K from ``first`` on, over the first ``n`` questions.

    Raises:
        ValueError: If there are no such questions, or K, or eta cannot be.
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
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    model, processor = checkpoint.load(cfg.device)
    asked = batches(model, processor, task, range(cfg.n), cfg.batch_size)
    with moving("prefills", len(asked) * (depth - cfg.first + 1)) as tick:
        found = divergences(model, asked, depth, cfg.first, tick)
    return [mean_interval(row.tolist()) for row in found.cpu()]


def table(cfg: DictConfig, found: list[Interval]) -> list[str]:
    """A line for each K."""
    return [
        f"K {cfg.first + at:>2}: {kl.value:.2e} nats (95 % interval {kl.low:.2e} to {kl.high:.2e})"
        for at, kl in enumerate(found)
    ]


def choose(cfg: DictConfig, found: list[Interval]) -> int:
    """K.

    Raises:
        ValueError: If no divergence is as small as eta.
    """
    chosen = first_within([kl.value for kl in found], cfg.eta, cfg.first)
    if chosen is None:
        least = min(range(len(found)), key=lambda at: found[at].value)
        raise ValueError(
            f"no K from {cfg.first} on has a divergence of at most eta={cfg.eta:g}: the least is "
            f"{found[least].value:.2e} at K={cfg.first + least}"
        )
    return chosen


def tuned_path(cfg: DictConfig) -> Path:
    """Where prefill=vtw_kl finds the layer of this model."""
    return conf_dir() / "tuned" / cfg.model.name / "layers" / FILE


def require_free(cfg: DictConfig) -> None:
    """Make sure that the layer of other weights is not overwritten.

    Raises:
        ValueError: If there is one, and ``force=true`` was not said.
    """
    path = tuned_path(cfg)
    made = read_yaml(path)["prefill"].get(CALIBRATED) if path.is_file() else None
    if cfg.write and made and not cfg.force and not same_weights(made.model, cfg.model):
        raise ValueError(
            f"{path} holds the layer of {made.model.pretrained}: write=false finds a value to give "
            "by hand, a preset of your own under conf/model keeps both, force=true replaces it"
        )


def write(cfg: DictConfig, found: list[Interval], chosen: int) -> list[Path]:
    """The yaml in the output folder, and where it was asked for, among the tuned ones."""
    split = cfg.benchmark.calibration.split
    lines = "".join(f"#   {line}\n" for line in table(cfg, found))
    text = (
        f"# The first K at which KL(withdrawn || full) of the next token is at most {cfg.eta:g}: "
        f"{chosen}; layer is K - 1.\n# Mean over the first {cfg.n} questions of {split}:\n{lines}"
        f"# Source: {command('vtw_layer')}\n# Measured on {measured_on(cfg)}.\n"
        f"prefill:\n{indent(body({'layer': chosen - 1}, {'model': weights(cfg)}), '  ')}"
    )
    paths = [Path(cfg.output_root) / cfg.experiment / cfg.model.name / cfg.benchmark.name / FILE]
    if cfg.write:
        paths.append(tuned_path(cfg))
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="vtw_layer")
def job(cfg: DictConfig) -> None:
    """Measure, tell, write."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        require_free(cfg)
        found = search(cfg)
        for line in table(cfg, found):
            console.print(line)
        chosen = choose(cfg, found)
        console.print(f"{cfg.model.name}: K = {chosen}, layer = {chosen - 1} (eta {cfg.eta:g})")
        for path in write(cfg, found, chosen):
            console.print(f"written: {path}", soft_wrap=True, markup=False)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None


def main() -> None:
    """The command line, its names checked before anything is composed."""
    code = ending(command_line)
    if code:
        raise SystemExit(code)


def command_line() -> None:
    """Hydra's program, after the names that it was given."""
    require_names(sys.argv[1:])
    require_fields(sys.argv[1:], lambda groups: composed(*groups, name="vtw_layer"))
    job()


if __name__ == "__main__":
    main()
