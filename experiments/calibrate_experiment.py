"""Calibrate every threshold that the cells of an experiment need, and skip those that exist.

python experiments/calibrate_experiment.py smol
python experiments/calibrate_experiment.py smol calibration.n=96 budget=t128

A threshold counts as existing if the model's table has it for the same weights and number of
questions. After a stop, the same command begins with the threshold at which it stopped.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from experiments import calibrate, vtw_layer
from experiments.cli.errors import BAD_INPUT, leave
from experiments.sweeps.cells import plan
from experiments.sweeps.forecast import spoken
from mustdrop.presets.compose import composed
from mustdrop.presets.from_budget import STAGES
from mustdrop.presets.tuned import Row, references, tuned_row
from mustdrop.provenance.weights_mark import same_weights

QUESTIONS = 96  # questions to search on, and as many to measure on
COARSE = 12  # questions of a first search over a wide range
AROUND = (1.3, 3.0)  # factors around the coarse value, within which the search goes on in turn
ALPHAS = (1.0e-2, 3.0e-2, 1.0e-1, 1.0)  # tried in this order until the budget is in reach
CALIBRATION = "calibration."
CHOSEN = ("method=", *(f"{stage}=" for stage in STAGES))


@dataclass(frozen=True)
class WantedThreshold:
    """Tuned values that a cell needs.

    Attributes:
        strategy: Name of the strategy's yaml file.
        stage: Stage of the strategy.
        fields: Fields whose values come from the table.
        overrides: Overrides of the cell that choose model, benchmark, method and budget.
        row: Row of the table that holds the values now; None without one.
    """

    strategy: str
    stage: str
    fields: tuple[str, ...]
    overrides: tuple[str, ...]
    row: Row | None

    @property
    def name(self) -> str:
        """Strategy, method, budget and benchmark."""
        return " ".join((self.strategy, *self.overrides))


def wanted(cfg: DictConfig, overrides: Sequence[str]) -> Iterator[WantedThreshold]:
    """List the tuned values without a default that a config refers to."""
    for stage in STAGES:
        fields = [(name, by) for name, by, has_default in references(cfg, stage) if not has_default]
        if fields:
            strategy = fields[0][1]
            names = tuple(name for name, _ in fields)
            row = tuned_row(cfg, strategy, names[0])
            yield WantedThreshold(strategy, stage, names, tuple(overrides), row)


def thresholds(experiment: str, arguments: Sequence[str]) -> list[WantedThreshold]:
    """Thresholds that the cells of an experiment need, each one once.

    Those of one benchmark and strategy follow each other, because they share prompts and passes.

    Args:
        experiment: Name of a preset under conf/experiment/.
        arguments: Overrides of all cells.
    """
    by_key: dict[tuple[object, ...], WantedThreshold] = {}
    closed_form: set[tuple[str, ...]] = set()  # what needs no threshold, at any budget
    for cell in plan(experiment, arguments):
        chosen = tuple(text for text in cell.overrides if text.startswith(CHOSEN))
        if chosen in closed_form:
            continue
        cfg = composed(*cell.overrides)
        options = [text for text in chosen if not text.startswith("method=")]
        named = [f"{group}={cfg[group].name}" for group in ("model", "method", "benchmark")]
        tuned = list(wanted(cfg, [*named[:2], *options, named[2], f"budget={cfg.budget}"]))
        for threshold in tuned:
            by_key.setdefault((threshold.strategy, *threshold.overrides[-2:]), threshold)
        if not tuned:
            closed_form.add(chosen)
    return sorted(by_key.values(), key=lambda wanted: (wanted.overrides[-2], wanted.strategy))


def exists(threshold: WantedThreshold, model: Mapping[str, object], n: int) -> bool:
    """Whether the table holds a threshold for these weights, from as many questions."""
    row = threshold.row
    if row is None or "model" not in row or not same_weights(row["model"], model):
        return False
    return threshold.strategy == vtw_layer.STRATEGY or row["n"] == n


def search(threshold: WantedThreshold, settings: Sequence[str], n: int) -> None:
    """Search one threshold, and write it to the model's table.

    Raises:
        SystemExit: If the search fails.
    """
    common = [*threshold.overrides, *settings, "force=true"]
    if threshold.strategy == vtw_layer.STRATEGY:
        common = [text for text in common if not text.startswith((CALIBRATION, "prefill="))]
        vtw_layer.main([*common, "write=true"])
        return
    common += [f"{CALIBRATION}n={n}"]
    if set(threshold.fields) == {"gamma", "alpha"}:
        for alpha in ALPHAS:
            calibrate.main([*common, f"prefill.alpha={alpha}", f"{CALIBRATION}field=prefill.gamma"])
            if "values" in written_row(threshold):
                return
    elif "scale" in threshold.fields:
        common += ["prefill.bias=0.0", f"{CALIBRATION}field=prefill.scale"]
        few = min(n, COARSE)
        coarsely = (f"n={few}", f"held_out={few}", "tolerance=0.1", "low=1.0")
        if _within(common, coarsely):
            value = written_row(threshold)["values"]["scale"]
            for factor in AROUND:
                narrow = (f"low={value / factor:.4g}", f"high={value * factor:.4g}", "points=2")
                if _within(common, narrow):
                    return
        calibrate.main(common)
    else:
        calibrate.main([*common, f"{CALIBRATION}field={threshold.stage}.{threshold.fields[0]}"])


def _within(common: Sequence[str], settings: Sequence[str]) -> bool:
    """Search within a part of the range; returns whether the budget is met there."""
    try:
        calibrate.main([*common, *(CALIBRATION + text for text in settings)])
    except SystemExit as end:
        if end.code != BAD_INPUT:
            raise
        return False
    return True


def written_row(threshold: WantedThreshold) -> Row:
    """Row of the table that a search has just written."""
    cfg = composed(*threshold.overrides)
    row = tuned_row(cfg, threshold.strategy, threshold.fields[0])
    assert row is not None, threshold.name
    return row


def main(arguments: Sequence[str]) -> int:
    """Search what is missing; returns 1 if a search failed."""
    if not arguments or "=" in arguments[0]:
        raise ValueError("name the experiment first, as in: calibrate_experiment.py smol")
    experiment, *given = arguments
    settings = [text for text in given if text.startswith((CALIBRATION, "threads=", "batch_size="))]
    overrides = [text for text in given if text not in settings]
    given_n = [text for text in settings if text.startswith(f"{CALIBRATION}n=")]
    n = int(given_n[-1].partition("=")[2]) if given_n else QUESTIONS
    settings = [text for text in settings if text not in given_n]
    needed = thresholds(experiment, overrides)
    work = []
    for threshold in needed:
        if not exists(threshold, composed(*threshold.overrides).model, n):
            work.append(threshold)
    print(f"{len(needed)} thresholds, {len(work)} to search", flush=True)
    failed, start = [], time.monotonic()
    for number, threshold in enumerate(work):
        passed = time.monotonic() - start
        left = spoken(passed / number * (len(work) - number)) if number else "?"
        print(f"{number + 1}/{len(work)} {threshold.name}: {left} left", flush=True)
        try:
            search(threshold, settings, n)
        except SystemExit as end:
            if end.code == 130:  # ctrl-C
                raise
            failed.append(threshold.name)
    print(f"{len(work) - len(failed)} searched in {spoken(time.monotonic() - start)}")
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
