"""Run a model on a benchmark under a method at a budget; again, and it goes on or says it is done.

python experiments/run.py                      # PocketLLaVA x PocketVQA x MustDrop at t192
python experiments/run.py method=fastv budget=t128 benchmark.limit=50
python experiments/run.py -m method=vanilla,random,mustdrop budget=t192,t128
python experiments/run.py -m budget=none prefill.alpha=1e-2 prefill.gamma=1e-3,3e-3 vision.tau=62,66
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from experiments.compose import conf_dir, resolved
from experiments.track import catch_up, watched
from mustdrop.harness.budget import unreachable
from mustdrop.harness.fingerprint import Fingerprint
from mustdrop.harness.record import Run, finished, run_folder
from mustdrop.harness.summary import floor_record

if TYPE_CHECKING:
    from rich.console import Console

    from mustdrop.harness.checkpoint import Checkpoint

BAD_INPUT = 2
KNOWN = (ValueError, TypeError, FileNotFoundError, OmegaConfBaseException, HydraException)
failures: list[str] = []


def run(cfg: DictConfig) -> dict[str, Any]:
    """One cell: what it asks for, done before or done now.

    Returns:
        Its record.

    Raises:
        ValueError: If the config cannot work (or TypeError, FileNotFoundError, and Hydra's own);
            nothing was asked of the model then.
    """
    config = resolved(cfg)
    limit, traces = (
        _count("benchmark.limit", config["benchmark"]["limit"], none=True),
        _traces(config),
    )
    _count("batch_size", config["batch_size"])
    if config["budget"] and not config["budget"]["tokens"] >= 0:
        raise ValueError(
            f"budget.tokens must be a count, 0 or more, got {config['budget']['tokens']!r}"
        )
    folder = run_folder(config)
    done = None if config["force"] else finished(folder, limit, traces)
    if done is not None:
        told = "done before"
        if done["fingerprint"] != Fingerprint.now().id:
            told += " by other code; force=true measures anew"
        print(summary(done, folder, told))
        catch_up(config["tracker"], folder)
        return done
    told = OmegaConf.to_yaml(OmegaConf.create(config))
    with (
        watched(config["tracker"], folder) as tracker,
        Run(folder, Fingerprint.now(), told, config["force"]) as ours,
    ):
        tracker.start()
        floor = unreachable(config)
        record = _measure(cfg, config, ours) if floor is None else floor_record(config, ours, floor)
        ours.finish(record)
    print(summary(record, folder, "done"))
    return record


def run_all(
    cells: Sequence[DictConfig], console: "Console", what: str = ""
) -> Iterator[dict[str, Any]]:
    """One cell after the other, each announced by its number; see :func:`run`."""
    for number, cfg in enumerate(cells, 1):
        place = f"{what}{number}/{len(cells)}"
        console.print(f"[bold]{place}[/] {cfg.method.name}", highlight=False)
        yield run(cfg)


def _measure(cfg: DictConfig, config: Mapping[str, Any], ours: Run) -> dict[str, Any]:
    """Build what the config names, and run it. A finished run needs none of these imports."""
    import torch

    from mustdrop.harness.cell import Cell
    from mustdrop.harness.checkpoint import Checkpoint

    if config["threads"] is not None:
        torch.set_num_threads(_count("threads", config["threads"]))
    torch.manual_seed(config["seed"])
    dropper, task, checkpoint = (
        instantiate(node) for node in (cfg.dropper, cfg.benchmark.task, cfg.model)
    )
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"model must name a Checkpoint, got {type(checkpoint).__name__}")
    model, processor = _loaded(checkpoint, config["device"])
    cell = Cell(
        model, processor, dropper, task, config, config["benchmark"]["limit"], _traces(config)
    )
    return cell.run(ours)


@lru_cache(maxsize=1)
def _loaded(checkpoint: "Checkpoint", device: str) -> Any:
    """The model of the last cell serves the next one too."""
    return checkpoint.load(device)


def _count(name: str, value: Any, none: bool = False) -> Any:
    if (value is None and none) or (
        isinstance(value, int) and not isinstance(value, bool) and value >= 1
    ):
        return value
    raise ValueError(
        f"{name} must be a count of 1 or more{', or null' if none else ''}, got {value!r}"
    )


def _traces(config: Mapping[str, Any]) -> Sequence[int]:
    asked = config["traces"]
    if isinstance(asked, int) and asked >= 0:
        return range(asked)
    if isinstance(asked, list) and all(isinstance(doc, int) and doc >= 0 for doc in asked):
        return asked
    raise ValueError(f"traces must be how many samples, or a list of doc_ids, got {asked!r}")


def summary(record: Mapping[str, Any], folder: Path, told: str) -> str:
    """A run in three lines."""
    name = f"{record['model']} x {record['benchmark']} x {record['method']} at {record['budget']}"
    if record["floor"] is not None:
        return (
            f"{told}: {name}: floor {record['floor']:g}, the budget cannot be reached\n  {folder}"
        )
    score = record["metric"]
    counts = " · ".join(
        f"{name.replace('_', ' ')} {'-' if value is None else f'{value:.1f}'}"
        for name, value in record["counts"].items()
    )
    return (
        f"{told}: {name}: {score} {record['metrics'][score]:.3f} of {record['n']}\n"
        f"  {counts} · FLOPs {record['flops_ratio']:.3f} of vanilla"
        f" · KV {record['kv_bytes'] / 2**20:.2f} MiB\n  {folder}"
    )


def message(error: Exception) -> str:
    """What went wrong, in a sentence or two, and where in the config."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give it, or choose a budget with one in conf/tuned/"
    if isinstance(error, InstantiationException):
        where = str(error).rpartition("full_key: ")[2].strip()
        return f"{where}: {error.__cause__ or error}"
    if isinstance(error, OmegaConfBaseException):
        # what a resolver raised stands in the first line, behind what OmegaConf says of it
        reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2]
        return f"{error.full_key}: {reason}"
    return str(error)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")
def main(cfg: DictConfig) -> None:
    """One cell of the command line; in a sweep one that fails stops no other."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        run(cfg)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        if not sweep:
            raise SystemExit(BAD_INPUT) from None
        failures.append(message(error))
    except (
        Exception
    ) as error:  # the boundary of a sweep's cell; its status and log hold the whole of it
        if not sweep:
            raise
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        failures.append(str(error))


if __name__ == "__main__":
    main()
    if failures:
        raise SystemExit(f"{len(failures)} cells of the sweep failed:\n  " + "\n  ".join(failures))
