"""Train PocketSmol and export it; after a stop, the same command resumes the training.

python experiments/train_smol.py
python experiments/train_smol.py smoke=true
python experiments/train_smol.py export_now=true    # the state as it is, without training
python experiments/train_smol.py recipe.start_weights=mustdrop/pocket/checkpoint_smol \
    recipe.start_stage=long_answers    # start from exported weights

The folder ``output`` holds the state, curve.csv and the exported weights in export/.
``mustdrop.pocket.smol.load_smol(folder=...)`` reads them.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import shutil
from pathlib import Path
from time import perf_counter

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.training.curve import Curve
from mustdrop.pocket.training.smol.recipe import TYPES
from mustdrop.pocket.training.smol.trainer import SmolTraining

CURVE = "curve.csv"


@hydra.main(version_base=None, config_path="../conf", config_name="train_smol")
def main(cfg: DictConfig) -> None:
    """Compose the recipe, train, and export."""
    recipe = instantiate(cfg.recipe)
    folder = Path(cfg.output)
    if cfg.smoke:
        recipe, folder = recipe.smoke(), folder / "smoke"
    training = SmolTraining(recipe, folder)
    if not cfg.export_now:
        _continue_curve(recipe.start_weights, folder)
        curve = Curve(folder / CURVE, training.done, cfg.log_every, TYPES)
        _run(training, curve, cfg.validate_every)
    training.export(folder / "export")
    print(f"exported {training.done} of {recipe.steps} steps to {folder / 'export'}", flush=True)


def _continue_curve(start: str | None, folder: Path) -> None:
    """Begin the curve of a new training with that of the weights from which it starts."""
    if start is None or (folder / CURVE).is_file() or not (Path(start) / CURVE).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(start) / CURVE, folder / CURVE)


def _run(training: SmolTraining, curve: Curve, validate_every: int) -> None:
    """Train to the end; print a line with the time left, and validate, every few steps."""
    total = training.recipe.steps
    time, done = perf_counter(), training.done
    for report in training.run():
        if not curve.due(report):
            continue
        seconds = (perf_counter() - time) / (report.done - done)
        right = "" if report.right is None else f", right {report.right:.2f}"
        print(
            f"{report.stage}: step {report.done} of {total}, {seconds:.1f} s a step, "
            f"{seconds * (total - report.done) / 60:.0f} min left, loss {report.loss:.3f}{right}",
            flush=True,
        )
        scores: dict[str, Score] = {}
        if report.right is not None and report.done % validate_every == 0:
            scores = {**training.validate(long=False), **training.validate(long=True)}
            print(" ".join(f"{name} {score.share:.2f}" for name, score in scores.items()))
        curve.write(scores)
        time, done = perf_counter(), report.done


if __name__ == "__main__":
    main()
