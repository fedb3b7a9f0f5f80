"""CPU time to the first token over that of vanilla: encoder, projector, prefill and head.

The model is narrow. Its encoder has five blocks, so that it has the share of the operations that
LLaVA-1.5's has. Each arm executes 64 of 576 vision tokens on average:

  mustdrop       Windows merge until 440 tokens are left, as in the paper's Table 3. The dual
                 attention drops the others.
  short encoder  All windows merge behind the first block, by the rules of the authors' code. The
                 encoder runs on 64 tokens, and the dual attention drops none of them.

The arms are measured in turn on one thread, in CPU time. A ratio is taken within a round, and the
interval of its median covers 95 %.

    mustdrop bench first_token                # about 2 minutes on one core
    mustdrop bench first_token --rounds 40 --out first_token.json
"""

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.bench_cases import EncoderCase
from experiments.bench_shapes import FIRST_TOKEN, BenchShape
from experiments.profiling.thresholds import MERGED, ThresholdSearch
from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.profiling.counting import counted_flops
from mustdrop.profiling.device import Device, processor_name
from mustdrop.profiling.measure import VANILLA, Arm, BatchBench
from mustdrop.profiling.rounds import RoundPlan, run_rounds
from mustdrop.profiling.summary import ratio_interval, summarised

MUSTDROP, SHORT = "mustdrop", "short encoder"
# Share of key tokens: with the authors' 8 % of 440 tokens, the average is at least 74.
KEYS = 0.05
WARM_UPS = 1


@dataclass(frozen=True)
class CpuTime(Device):
    """A CPU whose marks are the CPU time of this process: other programs disturb it less."""

    def mark(self) -> float:
        return time.process_time()


def droppers(shape: BenchShape, model: Any) -> dict[str, TokenDropper]:
    """The droppers that are measured, at the first target of the shape."""
    inputs = shape.prompt()
    merge, _ = EncoderCase(shape, model).calibrate(MERGED)
    base = TokenDropper(
        vision=merge,
        key_tokens=ClsAttention(rule="ratio", ratio=KEYS),
        prefill=DualAttention(0.0, 1.0, shape.layers),
        decode=OutputAware(from_layer=2),
        vision_positions="compact",
    )
    search, target = ThresholdSearch(model, inputs), Budget(tokens=shape.targets[0])
    whole_windows = replace(merge, tau=-1.0, strict=False, order="similarity")
    short = replace(
        base,
        vision=whole_windows,
        prefill=DualAttention(0.0, 1.0, shape.layers, strict=True, min_keep=0),
    )
    return {MUSTDROP: search.budget(base, "prefill.gamma", target), SHORT: short}


def measure(shape: BenchShape, rounds: int, progress: Progress) -> dict[str, Any]:
    """Measure the arms on one prompt.

    Returns:
        encoder_share, the share of encoder and projector in vanilla's operations; arms, which holds
        for each arm the tokens behind the encoder, the executed average, the operations, the
        summary of its times, and the ratio of vanilla's time to its own.
    """
    model = shape.model()
    bench = BatchBench(CpuTime("cpu"), model, shape.prompt())
    chosen = droppers(shape, model)
    arms = [Arm(VANILLA, None), *(Arm(name, dropper) for name, dropper in chosen.items())]
    plan = RoundPlan(rounds, WARM_UPS, [1])
    entry: dict[str, Any] = {"batch": 1}
    task = progress.add_task("first token", total=plan.steps(len(arms)))
    run_rounds(bench, arms, entry, plan, tick=lambda _: progress.advance(task))
    measured, summaries = entry["arms"], summarised(entry)
    times = {name: arm["rounds"]["ttft_ms"] for name, arm in measured.items()}
    encoder = counted_flops(EncoderCase(shape, model).encode)
    return {
        "encoder_share": encoder / measured[VANILLA]["facts"]["flops"],
        "arms": {
            name: {
                "encoder_tokens": arm["facts"]["encoder"][-1],
                "executed": arm["facts"]["executed_average"], "flops": arm["facts"]["flops"],
                "summary": summaries[name], "faster": ratio_interval(times[VANILLA], times[name]),
            }
            for name, arm in measured.items()
        },
    }  # fmt: skip


def shown(record: Mapping[str, Any]) -> Table:
    """Table of the arms."""
    columns = (
        "arm", "behind the encoder", "executed", "first token, ms", "encoder, ms", "layers, ms",
        "decisions, ms", "GFLOPs", "vanilla / arm",
    )  # fmt: skip
    share = f"encoder: {record['encoder_share']:.1%} of vanilla's operations"
    table = Table(*columns, title=f"CPU time to the first token; {share}")
    for name, arm in record["arms"].items():
        keys = ("ttft_ms", "part_encoder_ms", "part_layers_ms", "decisions_ms")
        times = [f"{arm['summary'][key]['median']:.1f}" for key in keys]
        table.add_row(
            name, str(arm["encoder_tokens"]), f"{arm['executed']:.1f}", *times,
            f"{arm['flops'] / 1e9:.2f}", _ratio(arm["faster"]),
        )  # fmt: skip
    return table


def _ratio(faster: Mapping[str, Any]) -> str:
    low, high = faster["low"], faster["high"]
    interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f"{faster['median']:.2f}{interval}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(
        prog="mustdrop bench first_token",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", type=Path, help="write the record here (json)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with Progress() as progress:
        record = measure(FIRST_TOKEN, options.rounds, progress)
    Console(width=140).print(shown(record))
    if options.out:
        record |= {
            "what": "CPU time to the first token, vanilla's over the arm's", "threads": 1,
            "rounds": options.rounds, "cpu": processor_name(), "torch": torch.__version__,
            "transformers": transformers.__version__, "python": platform.python_version(),
        }  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
