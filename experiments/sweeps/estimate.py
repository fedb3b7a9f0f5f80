"""Estimate of a sweep's time before it starts: FLOPs of each run, in seconds by a probe of vanilla.

The model's time of a run is that of vanilla times the ratio of their FLOPs, with the budget as the
number of vision tokens in every layer; the encoder counts as whole. The range goes from the fastest
batch of the probe to its slowest one without any saving by dropped tokens, because time falls less
than FLOPs where a device waits for memory or for Python. Loading a model is not counted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.cli.errors import KNOWN, message
from experiments.sweeps.cells import SweepCell
from experiments.sweeps.forecast import spoken
from experiments.sweeps.probes import Probe, kept_probe, measured_probe, probe_config
from mustdrop.budget import Budget
from mustdrop.presets.from_budget import budget_floor
from mustdrop.runs.status import SETTLED

QUESTIONS = 20  # of a probe, if no other number is given


@dataclass
class RunTimes:
    """Estimated times of the runs of one model on one benchmark.

    Attributes:
        name: Model and benchmark.
        probe: Probe of vanilla.
        runs: Number of runs that are not done.
        samples: Number of questions that are left in them.
        seconds: Estimated seconds.
        low: Lower end of their range.
        high: Upper end.
    """

    name: str
    probe: Probe
    runs: int = 0
    samples: int = 0
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def add(self, config: Mapping[str, Any], answered: int) -> None:
        """Add a run of which some questions are answered already."""
        limit, probe = config["benchmark"]["limit"], self.probe
        wanted = probe.available if limit is None else min(limit, probe.available)
        left = max(wanted - answered, 0)
        passes = 1 + control_passes(config["controls"])
        ratio = flops_ratio(probe, Budget.read(config["budget"]))
        self.runs, self.samples = self.runs + 1, self.samples + left
        self.seconds += left * (probe.processor + passes * ratio * probe.model)
        self.low += left * (probe.processor + passes * ratio * probe.fastest)
        self.high += left * (probe.processor + passes * probe.slowest)


@dataclass(frozen=True)
class Estimate:
    """Estimated time of a sweep.

    Attributes:
        times: Times by model and benchmark.
        unknown: Reason for each model and benchmark without an estimate.
    """

    times: Sequence[RunTimes]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Estimated seconds of all runs."""
        return sum(times.seconds for times in self.times)

    def show(self, console: Console) -> None:
        """Print the estimate as a table."""
        table = Table("model, benchmark", "runs", "samples", "s each", "time", "range", box=None)
        for times in self.times:
            per_sample = times.seconds / times.samples if times.samples else 0.0
            table.add_row(
                times.name, str(times.runs), f"{times.samples:,}", f"{per_sample:.3g}",
                spoken(times.seconds), _range(times.low, times.high),
            )  # fmt: skip
        if len(self.times) > 1:
            low, high = (
                sum(getattr(times, end) for times in self.times) for end in ("low", "high")
            )
            table.add_row(
                "all", str(sum(times.runs for times in self.times)),
                f"{sum(times.samples for times in self.times):,}", "", spoken(self.seconds),
                _range(low, high), style="bold",
            )  # fmt: skip
        if self.times:
            console.print(table)
        for name, reason in self.unknown.items():
            console.print(f"no estimate for {name}: {escape(reason)}", soft_wrap=True)


def estimated(cells: Sequence[SweepCell], count: int, measure: bool, console: Console) -> Estimate:
    """Estimate the time of the unfinished runs.

    Args:
        cells: Runs of the sweep; those without a config are left out.
        count: Number of questions of a probe.
        measure: Whether to measure the probes that are missing.
        console: Where the probes are announced.
    """
    rows: dict[str, RunTimes] = {}
    unknown: dict[str, str] = {}
    probes: dict[str, Probe | str] = {}
    for cell in cells:
        config = cell.config
        if config is None or cell.status.state in SETTLED or budget_floor(config) is not None:
            continue  # a budget out of reach takes no time
        name = " ".join(config[group]["name"] for group in ("model", "benchmark"))
        benchmark = {**config["benchmark"], "limit": None}
        shared = (config[part] for part in ("model", "batch_size", "device", "threads"))
        key = json.dumps([*shared, benchmark])
        if key not in probes:
            cfg = probe_config(cell.overrides, count)
            probes[key] = _probe(cfg, name, measure, console)
        probe = probes[key]
        if isinstance(probe, str):
            unknown[name] = probe
            continue
        rows.setdefault(key, RunTimes(name, probe)).add(config, cell.status.n)
    return Estimate(list(rows.values()), unknown)


def flops_ratio(probe: Probe, budget: Budget | None) -> float:
    """FLOPs of encoder and prefill over those of vanilla, on the mean prompt of a probe."""
    if budget is None or not probe.vision:
        return 1.0
    kept = min(budget.target(round(probe.vision)), probe.vision)
    return _macs(probe, kept) / _macs(probe, probe.vision)


def control_passes(controls: Mapping[str, Any] | None) -> int:
    """Largest number of further passes over each batch, for the token controls of a run."""
    if controls is None:
        return 0
    seeds = (*controls["schedule_random"], *controls["flat_random"])
    return len(seeds) + bool(controls["flat_grid"])


def _macs(probe: Probe, vision: float) -> float:
    """Multiply-accumulates of a prompt with as many vision tokens in every layer."""
    layer = probe.decoder.layer_macs(round(probe.text + vision))
    return probe.encoder_macs + probe.depth * layer + probe.decoder.hidden * probe.decoder.vocab


def _probe(cfg: DictConfig, name: str, measure: bool, console: Console) -> Probe | str:
    """Probe of a model and a benchmark, or the reason why there is none."""
    try:
        probe = kept_probe(cfg)
        if probe is not None:
            return probe
        if not measure:
            return "it was not measured on this machine yet"
        console.print(f"[bold]probe[/] {name}", highlight=False)
        return measured_probe(cfg)
    except KNOWN as error:
        return message(error)


def _range(low: float, high: float) -> str:
    return f"{spoken(low)} to {spoken(high)}"
