"""Run a model on a benchmark under a method at a budget; again, and it goes on or says it is done.

python experiments/run.py                      # PocketLLaVA x PocketVQA x MustDrop at t192
python experiments/run.py method=fastv budget=t128 benchmark.limit=50
python experiments/run.py method=mustdrop controls=standard      # five seeds of random beside it
python experiments/run.py method=vanilla image=wrong             # another question's picture
python experiments/run.py -m method=vanilla,random,mustdrop budget=t192,t128   # ends in a table
python experiments/run.py -m budget=none prefill.alpha=1e-2 prefill.gamma=1e-3,3e-3 vision.tau=62,66
"""

import mustdrop.harness.waiting  # noqa: F401  # isort: skip  # before torch loads
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.compose import conf_dir, resolved
from experiments.messages import BAD_INPUT, BUSY, KNOWN, message
from experiments.outcome import summary
from experiments.sweeps import launch
from experiments.tracking.follow import catch_up, watched
from mustdrop.harness.budget import unreachable
from mustdrop.harness.fingerprint import Fingerprint
from mustdrop.harness.parts import parts_folder, put_aside
from mustdrop.harness.ranks import OK, Turn, next_turn
from mustdrop.harness.record import finished, read_record, run_folder
from mustdrop.harness.run import Busy, Run, Unwritable, note_failure
from mustdrop.harness.summary import floor_record

if TYPE_CHECKING:
    from rich.console import Console

    from mustdrop.harness.cell import Cell
    from mustdrop.harness.checkpoint import Checkpoint


def run(cfg: DictConfig) -> dict[str, Any]:
    """One cell: what it asks for, done before or done now.

    Returns:
        Its record.

    Raises:
        Busy: If another process is at work on it.
        ValueError: If the config cannot work (or TypeError, OSError, and Hydra's own); nothing was
            asked of the model then, and the run's status says it.
    """
    config = resolved(cfg)
    folder = run_folder(config)
    turn = next_turn(str(folder))
    try:
        _require(config)
        if turn.rank:
            return _follow(cfg, config, folder, turn)
        with turn.telling("end"):
            return _lead(cfg, config, folder, turn)
    except Busy:
        raise
    except Exception as error:
        if not turn.rank:
            with suppress(OSError, Unwritable):
                note_failure(folder, error, message(error))
        raise


def _require(config: Mapping[str, Any]) -> None:
    """Check what is counted; a wrong count must not become another run."""
    _count("benchmark.limit", config["benchmark"]["limit"], none=True)
    _traces(config)
    _count("batch_size", config["batch_size"])
    if config["budget"] and not config["budget"]["tokens"] >= 0:
        raise ValueError(
            f"budget.tokens must be a count, 0 or more, got {config['budget']['tokens']!r}"
        )


def _lead(cfg: DictConfig, config: Mapping[str, Any], folder: Path, turn: Turn) -> dict[str, Any]:
    """The cell in the one process there is, or the first of several."""
    limit, traces = config["benchmark"]["limit"], _traces(config)
    done = None if config["force"] else finished(folder, limit, traces)
    if done is not None:
        told = "done before"
        if done["fingerprint"] != Fingerprint.now().id:
            told += " by other code; force=true measures anew"
        print(summary(done, folder, told))
        catch_up(config["tracker"], folder)
        return done
    told = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    with (
        watched(config["tracker"], folder) as tracker,
        Run(folder, Fingerprint.now(), told, config["force"]) as ours,
    ):
        tracker.start()
        floor = unreachable(config)
        if floor is None:
            if config["force"]:
                put_aside(parts_folder(folder, ours.mark.id))
            turn.say("start")
            record = built(cfg, config).run(ours, turn)
        else:
            record = floor_record(config, ours, floor)
        ours.finish(record)
    print(summary(record, folder, "done"))
    return record


def _follow(cfg: DictConfig, config: Mapping[str, Any], folder: Path, turn: Turn) -> dict[str, Any]:
    """A rank's share of a cell that the first one leads."""
    heard, _ = turn.hear("start", "end")
    if heard == "start":
        with turn.telling(f"share {turn.rank}"):
            built(cfg, config).share(folder, Fingerprint.now().id, turn)
    _, told = turn.hear("end")
    record = read_record(folder)
    if told != OK or record is None:
        raise ValueError(f"rank 0 ended without a record: {told}")
    return record


def run_all(
    cells: Sequence[DictConfig], console: "Console", what: str = ""
) -> Iterator[dict[str, Any]]:
    """One cell after the other, each announced by its number; see :func:`run`."""
    for number, cfg in enumerate(cells, 1):
        place = f"{what}{number}/{len(cells)}"
        console.print(f"[bold]{place}[/] {cfg.method.name}", highlight=False)
        yield run(cfg)


def built(cfg: DictConfig, config: Mapping[str, Any]) -> "Cell":
    """What the config names. A finished run needs none of these imports."""
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
    return Cell(
        model, processor, dropper, task, config, config["benchmark"]["limit"], _traces(config),
        instantiate(cfg.image), instantiate(cfg.controls) if config["controls"] else None,
    )  # fmt: skip


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


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")
def main(cfg: DictConfig) -> None:
    """One cell of the command line; in a sweep one that fails stops no other."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep:
        place = f"{HydraConfig.get().job.num + 1}/{launch.launched or '?'}"
        print(f"cell {place}: {cfg.method.name}", file=sys.stderr)
    code = attempt(cfg) if sweep else run_one(cfg)
    if code and not sweep:
        raise SystemExit(code)


def run_one(cfg: DictConfig) -> int:
    """A cell that stands for itself; its exit code. What we did not foresee is raised."""
    try:
        run(cfg)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BUSY if isinstance(error, Busy) else BAD_INPUT
    return 0


def attempt(cfg: DictConfig) -> int:
    """A cell among others: whatever happens to it stands in its status and its log.

    Returns:
        0 if it is done.
    """
    try:
        return run_one(cfg)
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def terminate(number: int, frame: Any) -> None:
    """Stop as if asked at the keyboard: the run says in its status that it was stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    from experiments.run import main  # under its own name, by which other processes can find it

    signal.signal(signal.SIGTERM, terminate)
    main()
    if launch.failures:
        raise SystemExit(1)
