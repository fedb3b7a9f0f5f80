"""Probes: short runs of vanilla that measure seconds per question on this machine.

A probe is a run under ``<output_root>/probe``, which is kept: the next estimate on this machine
reads it. It answers one batch to warm up, and then at least the questions to measure.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from mustdrop.cost import DecoderShape
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.from_budget import STAGES
from mustdrop.runs.disk import write_json
from mustdrop.runs.folder import finished, read_samples, run_folder

EXPERIMENT = "probe"  # folder of the runs
FILE = "probe.json"
# Overrides of a run that its probe does not take: they choose the method, or other runs' work.
METHODS = (
    "method", "budget", "dropper", "controls", "image", "tracker", "traces", "force", "limit",
    "calibrate_with", *STAGES,
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """Times and sizes of vanilla on a benchmark, means over the measured questions.

    Attributes:
        available: Number of questions of the benchmark.
        processor: Seconds of the processor for a question.
        model: Seconds of the model for a question.
        fastest: Seconds of the model for a question, in the fastest batch.
        slowest: The same in the slowest batch.
        text: Number of tokens of a prompt that are no vision tokens.
        vision: Number of vision tokens of a prompt.
        encoder_macs: Multiply-accumulates of the vision encoder.
        depth: Number of decoder layers.
        decoder: Sizes of the decoder.
    """

    available: int
    processor: float
    model: float
    fastest: float
    slowest: float
    text: float
    vision: float
    encoder_macs: float
    depth: int
    decoder: DecoderShape


def probe_config(overrides: Sequence[str], count: int) -> DictConfig:
    """Config of the probe of a run: its model and questions, without its method.

    Args:
        overrides: Overrides of the run.
        count: Least number of questions to measure, after a batch to warm up.
    """
    kept = []
    for text in overrides:
        name = text.partition("=")[0].lstrip("+~")
        first = name.replace("/", ".").replace("@", ".").partition(".")[0]
        if first not in METHODS and name != "benchmark.limit":
            kept.append(text)
    cfg = composed(*kept, "method=vanilla", "budget=none", "controls=none", "tracker=none")
    cfg.experiment, cfg.traces = EXPERIMENT, 0
    cfg.benchmark.limit = cfg.batch_size + count
    return cfg


def kept_probe(cfg: DictConfig) -> Probe | None:
    """Probe that was measured on this machine before; None without one of as many questions."""
    config = resolved(cfg)
    path = run_folder(config) / FILE
    if finished(path.parent, config["benchmark"]["limit"]) is None or not path.is_file():
        return None
    made = json.loads(path.read_text(encoding="utf-8"))
    if made["machine"] != _machine(config):
        return None
    return read_probe(path.parent)


def measured_probe(cfg: DictConfig) -> Probe:
    """Measure a probe and keep it.

    Raises:
        ValueError: If the run cannot work or fails (or TypeError, OSError, Hydra's own errors).
    """
    from experiments.doctor.rows import scorable
    from experiments.run import attempt, built
    from mustdrop.evaluation.metrics import CostMeter

    config = resolved(cfg)
    folder = run_folder(config)
    job = built(cfg, config)
    cfg.benchmark.limit = scorable(job.task, cfg.benchmark.limit)
    cfg.force = finished(folder, cfg.benchmark.limit) is not None  # measured on another machine
    if attempt(cfg, ()):
        raise ValueError(f"the run of the probe failed, its error is in {folder / 'status.json'}")
    shape = CostMeter.from_model(job.model).decoder
    write_json(folder / FILE, {"machine": _machine(config), "decoder": asdict(shape)})
    return read_probe(folder)


def read_probe(folder: Path) -> Probe:
    """Read a probe from the folder of its run."""
    samples = read_samples(folder)
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    shape = json.loads((folder / FILE).read_text(encoding="utf-8"))["decoder"]
    batches = [list(group) for _, group in groupby(samples, lambda line: line["model_seconds"])]
    timed = batches[1:] or batches  # the first one warms up
    seconds = [batch[0]["model_seconds"] for batch in timed]
    lines = [line for batch in timed for line in batch]
    vision = fmean(line["counts"]["executed_average"] for line in lines)
    return Probe(
        available=record["available"],
        processor=fmean(line["processor_seconds"] for line in lines),
        model=fmean(line["model_seconds"] for line in lines),
        fastest=min(seconds),
        slowest=max(seconds),
        text=fmean(line["prompt_tokens"] for line in lines) - vision,
        vision=vision,
        encoder_macs=fmean(line["encoder_macs"] for line in lines),
        depth=len(lines[0]["vision_tokens"]),
        decoder=DecoderShape(**shape),
    )


def _machine(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the seconds of a probe hold for."""
    return {"host": platform.node(), **{name: config[name] for name in ("device", "threads")}}
