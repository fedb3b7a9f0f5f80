"""Run a model on a benchmark under a method at a budget; again, and it goes on or says it is done.

python experiments/run.py                      # PocketLLaVA x PocketVQA x MustDrop at t192
python experiments/run.py method=fastv budget=t128 benchmark.limit=50
python experiments/run.py method=mustdrop controls=standard      # five seeds of random beside it
python experiments/run.py method=vanilla image=wrong             # another question's picture
python experiments/run.py -m method=vanilla,random,mustdrop budget=t192,t128   # ends in a table
python experiments/run.py -m budget=none prefill.alpha=1e-2 prefill.gamma=1e-3,3e-3 vision.tau=62,66
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
from experiments.checks.run_checks import checked, chosen_traces, require_places, require_ready
from experiments.checks.thresholds import differing
from experiments.cli.errors import BAD_INPUT, BUSY, KNOWN, ending, message
from experiments.cli.run_summary import summary
from experiments.sweeps import launch
from experiments.tracking.follow import catch_up, watched
from mustdrop.budgets.closed_form import budget_floor
from mustdrop.evaluation.ranks import OK, RankGroup, next_rank_group
from mustdrop.presets.compose import adopt, conf_dir
from mustdrop.presets.names import require_fields, require_names
from mustdrop.provenance.fingerprint import model_inputs, run_fingerprint
from mustdrop.runs.folder import TornFile, finished, read_record, run_folder
from mustdrop.runs.repair import damage
from mustdrop.runs.shards import put_aside, shards_folder
from mustdrop.runs.summary import floor_record
from mustdrop.runs.writer import Busy, RunWriter, Unwritable, note_failure

if TYPE_CHECKING:
    from rich.console import Console

    from mustdrop.checkpoint import Checkpoint
    from mustdrop.evaluation.job import EvalJob


def run(cfg: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """One cell: what it asks for, done before or done now.

    Args:
        cfg: As composed.
        overrides: What was typed, for the commands that messages hold; None: what Hydra was given.

    Returns:
        Its record.

    Raises:
        Busy: If another process is at work on it.
        ValueError: If the config cannot work (or TypeError, OSError, and Hydra's own); nothing was
            asked of the model then, and the run's status says it.
    """
    config = checked(cfg, typed() if overrides is None else overrides)
    folder = run_folder(config)
    turn = next_rank_group(str(folder))
    try:
        if turn.rank:
            return _follow(cfg, config, folder, turn)
        with turn.publishing("end"), refused_by_name():
            return _lead(cfg, config, folder, turn)
    except Busy:
        raise
    except Exception as error:
        if not turn.rank:
            with suppress(OSError, Unwritable):
                note_failure(folder, error, message(error))
        raise


@contextmanager
def refused_by_name() -> Iterator[None]:
    """A context in which a torn file that nobody can mend is refused, with the way out."""
    try:
        yield
    except TornFile as error:
        command = "the same command"
        if given := typed():
            command = f"python experiments/run.py {shlex.join(given)}"
        raise ValueError(
            f"{error}: {command} force=true starts anew, and keeps the old files aside"
        ) from error


def _lead(
    cfg: DictConfig, config: Mapping[str, Any], folder: Path, turn: RankGroup
) -> dict[str, Any]:
    """The cell in the one process there is, or the first of several."""
    limit, traces = config["benchmark"]["limit"], chosen_traces(config)
    torn = [] if config["force"] else damage(folder, traces)
    for error in torn:
        print(f"damaged: {error}", file=sys.stderr)
    done = None if config["force"] or torn else finished(folder, limit, traces)
    if done is not None:
        told = "done before"
        if run_fingerprint(config).differs(done["fingerprint"]):
            told += " by other code, weights or rows; force=true measures anew"
        print(summary(done, folder, told))
        catch_up(config["tracker"], folder)
        return done
    notes = differing(cfg, config)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    told = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    with (
        watched(config["tracker"], folder) as tracker,
        RunWriter(folder, run_fingerprint(config, fetch=True), told, config["force"]) as ours,
    ):
        tracker.start()
        floor = budget_floor(config)
        if floor is None:
            if config["force"]:
                put_aside(shards_folder(folder, ours.mark.id))
            require_places(config)
            ours.ranks = turn.world
            turn.publish("start")
            record = built(cfg, config).run(ours, turn)
        else:
            record = floor_record(config, ours, floor)
        if notes:
            record["thresholds"] = notes
        ours.finish(record)
    print(summary(record, folder, "done"))
    return record


def _follow(
    cfg: DictConfig, config: Mapping[str, Any], folder: Path, turn: RankGroup
) -> dict[str, Any]:
    """A rank's share of a cell that the first one leads."""
    heard, _ = turn.wait_for("start", "end")
    if heard == "start":
        with turn.publishing(f"share {turn.rank}"):
            built(cfg, config).share(folder, run_fingerprint(config, fetch=True).id, turn)
    _, told = turn.wait_for("end")
    record = read_record(folder)
    if told != OK or record is None:
        raise ValueError(f"rank 0 ended without a record: {told}")
    return record


def run_all(
    cells: Sequence[DictConfig], console: "Console", what: str = ""
) -> Iterator[dict[str, Any]]:
    """One cell after the other, each announced by its number; see :func:`run`.

    Raises:
        ValueError: If one of them cannot work; then none is run.
    """
    for cfg in cells:
        config = checked(cfg)
        if config["force"] or finished(run_folder(config), config["benchmark"]["limit"]) is None:
            require_ready(config)
    for number, cfg in enumerate(cells, 1):
        place = f"{what}{number}/{len(cells)}"
        console.print(f"[bold]{place}[/] {cfg.method.name}", highlight=False)
        yield run(cfg)


def built(cfg: DictConfig, config: Mapping[str, Any]) -> "EvalJob":
    """What the config names. A finished run needs none of these imports."""
    import torch

    from mustdrop.checkpoint import Checkpoint
    from mustdrop.evaluation.job import EvalJob

    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
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
        instantiate(cfg.controls) if config["controls"] else None,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _loaded(checkpoint: "Checkpoint", device: str, weights: tuple[tuple[str, str], ...]) -> Any:
    """The model of the last cell serves the next one too, unless its files were changed since."""
    return checkpoint.load(device)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")
def job(cfg: DictConfig) -> None:
    """One cell of the command line; in a sweep one that fails stops no other."""
    adopt(cfg, HydraConfig.get().runtime.choices)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep:
        place = f"{HydraConfig.get().job.num + 1}/{launch.launched or '?'}"
        print(f"cell {place}: {cfg.method.name}", file=sys.stderr)
    code = attempt(cfg) if sweep else run_one(cfg)
    if code and not sweep:
        raise SystemExit(code)


def main() -> None:
    """The command line, its names checked before anything is composed."""
    code = ending(command_line)
    if code:
        raise SystemExit(code)


def command_line() -> None:
    """Hydra's program, after the names that it was given."""
    require_names(sys.argv[1:])
    if not {"-m", "--multirun"} & {*sys.argv}:  # a sweep checks its runs one by one
        require_fields(sys.argv[1:])
    job()


def run_one(cfg: DictConfig, overrides: Sequence[str] | None = None) -> int:
    """A cell that stands for itself; its exit code. What we did not foresee is raised."""
    try:
        run(cfg, overrides)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BUSY if isinstance(error, Busy) else BAD_INPUT
    return 0


def attempt(cfg: DictConfig, overrides: Sequence[str] | None = None) -> int:
    """A cell among others: whatever happens to it stands in its status and its log.

    Returns:
        0 if it is done.
    """
    try:
        return run_one(cfg, overrides)
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def terminate(number: int, frame: Any) -> None:
    """Stop as by ctrl-C: the run says in its status that it was stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    from experiments.run import main  # under its own name, by which other processes can find it

    signal.signal(signal.SIGTERM, terminate)
    main()
    if launch.failures:
        raise SystemExit(1)
