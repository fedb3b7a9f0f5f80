"""Run a model on a benchmark with a method at a budget; a second call resumes or reports the run.

mustdrop run                      # PocketLLaVA x PocketVQA x MustDrop at t192
mustdrop run method=fastv budget=t128 benchmark.limit=50
mustdrop run method=mustdrop controls=standard      # with five seeds of random
mustdrop run method=vanilla image=wrong             # another question's picture
mustdrop run -m method=vanilla,random,mustdrop budget=t192,t128   # ends in a table
mustdrop run -m budget=none prefill.alpha=1e-2 prefill.gamma=1e-3,3e-3 vision.tau=62,66
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.checks.remedies import typed
from experiments.checks.run_checks import checked, chosen_traces, require_folders, require_ready
from experiments.checks.thresholds import borrowed, differing
from experiments.cli.errors import BAD_INPUT, BUSY, KNOWN, message
from experiments.cli.hydra_program import run_hydra
from experiments.cli.run_summary import summary
from experiments.sweeps import launch
from experiments.threads import set_threads
from experiments.tracking.follow import catch_up, watched
from mustdrop.evaluation.ranks import OK, RankGroup, next_rank_group
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import budget_floor
from mustdrop.provenance.fingerprint import model_inputs, run_fingerprint
from mustdrop.runs.disk import Unwritable
from mustdrop.runs.folder import TornFile, finished, read_record, run_folder
from mustdrop.runs.repair import damage
from mustdrop.runs.shards import put_aside, shards_folder
from mustdrop.runs.summary import floor_record
from mustdrop.runs.writer import Busy, RunWriter, note_failure

if TYPE_CHECKING:
    from rich.console import Console

    from mustdrop.checkpoint import Checkpoint
    from mustdrop.evaluation.frame_cache import FrameCache
    from mustdrop.evaluation.job import EvalJob

Config = Mapping[str, Any]


def run(cfg: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate one cell, or return its record if it is finished already.

    Args:
        cfg: Composed config.
        overrides: Command-line overrides, quoted in messages; None takes those of Hydra.

    Raises:
        Busy: If another process is writing the run.
        ValueError: If the config cannot work (or TypeError, OSError, and Hydra's own errors). The
            model has answered nothing then, and the run's status holds the reason.
    """
    config = checked(cfg, typed() if overrides is None else overrides)
    folder = run_folder(config)
    group = next_rank_group(str(folder))
    try:
        if group.rank:
            return _follow(cfg, config, folder, group)
        with group.publishing("end"), torn_files_explained():
            return _lead(cfg, config, folder, group)
    except Busy:
        raise
    except Exception as error:
        if not group.rank:
            with suppress(OSError, Unwritable):
                note_failure(folder, error, message(error))
        raise


@contextmanager
def torn_files_explained() -> Iterator[None]:
    """Add the command that starts again to the error about a file that cannot be repaired."""
    try:
        yield
    except TornFile as error:
        given = typed()
        command = f"mustdrop run {shlex.join(given)}" if given else "the same command"
        raise ValueError(
            f"{error}: {command} force=true starts again and keeps the old files aside"
        ) from error


def _lead(cfg: DictConfig, config: Config, folder: Path, group: RankGroup) -> dict[str, Any]:
    """Evaluate a cell as the only process, or as the first of several."""
    limit, traces = config["benchmark"]["limit"], chosen_traces(config)
    torn = [] if config["force"] else damage(folder, traces)
    for error in torn:
        print(f"damaged: {error}", file=sys.stderr)
    done = None if config["force"] or torn else finished(folder, limit, traces)
    if done is not None:
        outcome = "done before"
        if run_fingerprint(config).differs(done["fingerprint"]):
            outcome += " by other code, weights or rows; force=true measures again"
        print(summary(done, folder, outcome))
        catch_up(config["tracker"], folder)
        return done
    notes = {"thresholds": differing(cfg, config), "calibrated_on": list(borrowed(cfg))}
    for note in notes["thresholds"]:
        print(f"note: {note}", file=sys.stderr)
    text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    with (
        watched(config["tracker"], folder) as tracker,
        RunWriter(folder, run_fingerprint(config, fetch=True), text, config["force"]) as writer,
    ):
        tracker.start()
        floor = budget_floor(config)
        if floor is None:
            if config["force"]:
                put_aside(shards_folder(folder, writer.mark.id))
            require_folders(config)
            writer.ranks = group.world
            group.publish("start")
            record = built(cfg, config).run(writer, group)
        else:
            record = floor_record(config, writer, floor)
        writer.finish({**record, **{name: value for name, value in notes.items() if value}})
    print(summary(record, folder, "done"))
    return record


def _follow(cfg: DictConfig, config: Config, folder: Path, group: RankGroup) -> dict[str, Any]:
    """Evaluate this rank's share of a cell that rank 0 leads."""
    event, _ = group.wait_for("start", "end")
    if event == "start":
        with group.publishing(f"share {group.rank}"):
            built(cfg, config).share(folder, run_fingerprint(config, fetch=True).id, group)
    _, outcome = group.wait_for("end")
    record = read_record(folder)
    if outcome != OK or record is None:
        raise ValueError(f"rank 0 ended without a record: {outcome}")
    return record


def run_all(
    cells: Sequence[DictConfig], console: "Console", label: str = ""
) -> Iterator[dict[str, Any]]:
    """Run one cell after the other and print the number of each; see :func:`run`.

    Raises:
        ValueError: If the config of a cell cannot work; no cell is run then.
    """
    for cfg in cells:
        config = checked(cfg)
        if config["force"] or finished(run_folder(config), config["benchmark"]["limit"]) is None:
            require_ready(config)
    for number, cfg in enumerate(cells, 1):
        console.print(f"[bold]{label}{number}/{len(cells)}[/] {cfg.method.name}", highlight=False)
        yield run(cfg)


def built(cfg: DictConfig, config: Config) -> "EvalJob":
    """Build the evaluation job of a config; a finished run needs none of these imports."""
    import torch

    from mustdrop.checkpoint import Checkpoint
    from mustdrop.evaluation.job import EvalJob

    set_threads(config["threads"])
    torch.manual_seed(config["seed"])
    dropper, task, checkpoint = (
        instantiate(node) for node in (cfg.dropper, cfg.benchmark.task, cfg.model)
    )
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"model must name a Checkpoint, got {type(checkpoint).__name__}")
    weights = tuple(sorted(model_inputs(config["model"], fetch=True).items()))
    model, processor = _loaded(checkpoint, config["device"], weights)
    return EvalJob(
        model, processor, dropper, task, config, config["benchmark"]["limit"],
        chosen_traces(config), instantiate(cfg.image),
        instantiate(cfg.controls) if config["controls"] else None, _frame_cache(config),
    )  # fmt: skip


def _frame_cache(config: Config) -> "FrameCache | None":
    """Cache of decoded videos for a run's benchmark; None where the config sets no size."""
    from mustdrop.evaluation.frame_cache import FrameCache

    gigabytes = config.get("frame_cache")  # configs of older runs have none
    folder = Path(config["output_root"], ".frames", config["benchmark"]["name"])
    return FrameCache(folder, int(gigabytes * 1e9)) if gigabytes else None


@lru_cache(maxsize=1)
def _loaded(checkpoint: "Checkpoint", device: str, weights: tuple[tuple[str, str], ...]) -> Any:
    """Load a model, or reuse that of the last cell if its files have not changed since."""
    return checkpoint.load(device)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")
def job(cfg: DictConfig) -> None:
    """Run one cell of the command line; in a sweep, a failed cell does not stop the others."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        position = f"{HydraConfig.get().job.num + 1}/{launch.launched or '?'}"
        print(f"cell {position}: {cfg.method.name}", file=sys.stderr)
        attempt(cfg)
    elif code := run_cell(cfg):
        raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot work ends it with an exit code."""
    run_hydra(job, arguments, __doc__)


def program(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 1 if runs of a sweep failed."""
    signal.signal(signal.SIGTERM, terminate)
    main(arguments)
    return 1 if launch.failures else 0


def run_cell(cfg: DictConfig, overrides: Sequence[str] | None = None) -> int:
    """Run a single cell and return its exit code; unexpected errors are raised."""
    try:
        run(cfg, overrides)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BUSY if isinstance(error, Busy) else BAD_INPUT
    return 0


def attempt(cfg: DictConfig, overrides: Sequence[str] | None = None) -> int:
    """Run one cell of several; its status and log hold any error. Returns 0 if it is done."""
    try:
        return run_cell(cfg, overrides)
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def terminate(number: int, frame: Any) -> None:
    """Stop as with ctrl-C, so that the run's status becomes ``stopped``."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    from experiments.run import program  # by its module, so that other processes can import it

    sys.exit(program(sys.argv[1:]))
