"""Train PocketLLaVA and export it; after a stop, the same command resumes the training.

python experiments/train_pocket.py
python experiments/train_pocket.py smoke=true
python experiments/train_pocket.py recipe.architecture.layers=12 recipe.probe_layer=10 output=...

The folder ``output`` holds the state, curve.csv, scores.json and the exported model in export/.
``mustdrop.pocket.load(folder=...)`` reads that model; it may replace mustdrop/pocket/checkpoint/.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import json
from functools import partial
from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mustdrop.pocket import SPLITS, Score, answer, exact_match, load, sample
from mustdrop.pocket.training.curve import Curve
from mustdrop.pocket.training.recipe import Recipe
from mustdrop.pocket.training.team import Team, team
from mustdrop.pocket.training.trainer import Training


@hydra.main(version_base=None, config_path="../conf", config_name="train_pocket")
def main(cfg: DictConfig) -> None:
    """Compose the recipe, train, export, and measure on the calibration splits."""
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    console = Console()
    recipe = instantiate(cfg.recipe)
    folder = Path(cfg.output)
    measured = cfg.measured
    if cfg.smoke:
        recipe, folder, measured = recipe.smoke(), folder / "smoke", 7
    device = cfg.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    share = partial(_help, recipe, folder, cfg.workers, cfg.matmul_precision)
    with team(1 if device == "cuda" else cfg.processes, share) as first:
        training = Training(recipe, folder, device, cfg.workers, first)
        curve = Curve(folder / "curve.csv", training.done)
        _run(training, console, curve, cfg.validate_every)
    training.export(folder / "export")
    scores = _measure(folder / "export", measured)
    rows = {name: {"right": score.right, "n": score.n} for name, score in scores.items()}
    (folder / "scores.json").write_text(json.dumps(rows, indent=2) + "\n")
    console.print(_table("exported model", scores))


def _help(recipe: Recipe, folder: Path, workers: int, precision: str, member: Team) -> None:
    """Train as one of the processes after the first."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(precision)
    for _ in Training(recipe, folder, "cpu", workers, member).run():
        pass


def _run(training: Training, console: Console, curve: Curve, validate_every: int) -> None:
    """Train to the end with a progress bar; validate every ``validate_every`` steps."""
    names = list(training.recipe.stages)
    with Progress(
        TextColumn("{task.fields[stage]}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps, {task.fields[rate]:.1f} /s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}{task.fields[right]}"),
        console=console,
    ) as bars:
        task = bars.add_task(
            "",
            total=training.recipe.steps,
            completed=training.done,
            stage=names[0],
            rate=0.0,
            loss=float("nan"),
            right="",
        )
        for report in training.run():
            right = "" if report.right is None else f", right {report.right:.2f}"
            bars.update(
                task,
                completed=report.done,
                stage=report.stage,
                rate=bars.tasks[0].speed or 0.0,
                loss=report.loss,
                right=right,
            )
            stage = training.recipe.stages[report.stage]
            if not curve.due(report):
                continue
            if stage.questions and report.done % validate_every == 0:
                scores = training.validate()
                title = f"{report.stage} {report.step} of {stage.steps}, all vision tokens"
                bars.console.print(_table(title, scores))
                curve.write(scores)
            else:
                curve.write({})


def _measure(folder: Path, n: int) -> dict[str, Score]:
    """Score the calibration splits with plain ``generate``; the test splits stay unseen."""
    model, processor = load(folder=folder)
    scores = {}
    for name in SPLITS:
        if name.endswith("calibration"):
            samples = [sample(name, index) for index in range(n)]
            scores[name] = exact_match(answer(model, processor, samples), samples)
    return scores


def _table(title: str, scores: dict[str, Score]) -> Table:
    table = Table("", "right", "n", "95 % interval", title=title)
    for name, score in scores.items():
        low, high = score.interval()
        table.add_row(name, f"{score.share:.3f}", str(score.n), f"{low:.3f} - {high:.3f}")
    return table


if __name__ == "__main__":
    main()
