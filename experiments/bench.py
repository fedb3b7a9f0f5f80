"""CPU time of dropping against its reference time, and of the hooks when nothing is dropped.

The reference time of a run is that of the same stock layers, with sdpa, on sequences cut to the
run's counts: no scoring, selection, gather or compaction. A perfect implementation has ratio 1.
Both are timed in turn, in one process on one thread; each ratio is that of one pair of CPU times.
The encoder is timed the same way, with windows merged behind its first block. A model is narrow,
with random weights and the depth, image and prompt of the preset that it stands for.

    mustdrop bench                      # LLaVA-1.5: about 4 minutes on one core
    mustdrop bench model=llava_next_7b,qwen2_5_vl_7b
    mustdrop bench --batch 1 8          # prompts that differ in length after a drop are padded
    mustdrop bench --rounds 40 --out experiments/records/bench.json
    mustdrop bench first_token          # the first token, encoder included, over that of vanilla
    mustdrop bench harness              # a run over a bare loop of generate; --help explains it
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments import bench_first_token
from experiments.bench_cases import EncoderCase, PrefillCase, executed
from experiments.bench_shapes import SHAPE_OF, SHAPES, BenchShape
from experiments.profiling.thresholds import MERGED
from mustdrop import TokenDropper
from mustdrop.cost import prefill_macs, scoring_macs
from mustdrop.decode.output_aware import OutputAware
from mustdrop.models import adapter_for
from mustdrop.models.shapes import decoder_shape
from mustdrop.profiling.device import processor_name


def paired(method: Callable[[], float], base: Callable[[], float], rounds: int, tick) -> dict:
    """Time both in turn, in changing order, and summarise the ratio of each pair."""
    method()
    base()
    pairs = []
    for number in range(rounds):
        order = (method, base) if number % 2 else (base, method)
        times = {run: run() for run in order}
        pairs.append((times[method], times[base]))
        tick()
    ratios = sorted(a / b for a, b in pairs)
    quarter = statistics.quantiles(ratios, n=4)
    return {
        "median": statistics.median(ratios), "q1": quarter[0], "q3": quarter[2], "min": ratios[0],
        "max": ratios[-1], "rounds": rounds, "ms": 1e3 * statistics.median(a for a, _ in pairs),
        "base_ms": 1e3 * statistics.median(b for _, b in pairs),
    }  # fmt: skip


@torch.inference_mode()
def measure(
    name: str,
    shape: BenchShape,
    batches: Sequence[int],
    rounds: int,
    progress: Progress,
    keep: Callable[[dict], None],
) -> None:
    """Measure one shape; hand each row of the record to ``keep`` once it is measured."""
    model = shape.model()
    adapter = adapter_for(model)
    merges = adapter.facts.whole_encoder is None and len(adapter.encoders) == 1
    steps = len(batches) * (2 * len(shape.targets) + 1) + 2 * merges
    tick = partial(progress.advance, progress.add_task(name, total=rounds * steps))

    def compare(text: str, method: Callable[[], float], base: Callable[[], float], **about) -> None:
        result = paired(method, base, rounds, tick)
        keep({"case": text, "shape": name, **about, **result})

    for batch in batches:
        prompts = f"{batch} prompts: " if batch > 1 else ""
        _compare_prefill(PrefillCase(shape, model, batch), prompts, partial(compare, batch=batch))
    if not merges:
        return
    encoder = EncoderCase(shape, model)
    merge, left = encoder.calibrate(MERGED)
    merging = TokenDropper(vision=merge)
    calls, work = encoder.recorded(merging), partial(encoder.dropping, merging)
    text = f"encoder, {left:.0%} of the tokens left"
    compare(f"{text} / reference", work, partial(encoder.reference, calls), tau=merge.tau)
    compare(f"{text} / plain", work, encoder.plain, tau=merge.tau)


def _compare_prefill(case: PrefillCase, prompts: str, compare: Callable) -> None:
    """Compare the prefill of one shape and batch at all budgets of the shape."""

    def dropping(dropper: TokenDropper) -> Callable[[], float]:
        return lambda: case.dropping(dropper)[0]

    compare(f"{prompts}hooks, nothing dropped / plain", dropping(TokenDropper()), case.plain)
    sizes, slots = decoder_shape(case.adapter), case.shape.slots
    for target in case.shape.targets:
        strategy = case.calibrate(target)
        dropper = TokenDropper(prefill=strategy, decode=OutputAware(from_layer=2))
        _, ledgers = case.dropping(dropper)
        scoring = sum(scoring_macs(ledger, sizes) for ledger in ledgers)
        about = {
            "executed": executed(ledgers), "slots": slots, "gamma": strategy.gamma,
            "scoring_share": scoring / sum(prefill_macs(ledger, sizes) for ledger in ledgers),
        }  # fmt: skip
        text = f"{prompts}{slots} -> {target} executed"
        reference = partial(case.reference, ledgers)
        compare(f"{text} / reference", dropping(dropper), reference, **about)
        compare(f"{text} / plain", dropping(dropper), case.plain, **about)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record."""
    if arguments and arguments[0] == "harness":
        from experiments.bench_harness import main as harness  # lmms-eval: only where it is used

        return harness(arguments[1:])
    if arguments and arguments[0] == "first_token":
        return bench_first_token.main(arguments[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument(
        "model", type=_shapes, nargs="?", default=["llava15"],
        help="model=NAMES: presets in conf/model, with commas between them; default llava15_7b",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="prompts of a batch")
    parser.add_argument("--out", type=Path, help="write the record here (json)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict] = []

    def keep(row: dict) -> None:
        rows.append(row)
        if options.out:
            write_record(options.out, rows)

    with Progress() as progress:
        for name in options.model:
            measure(name, SHAPES[name], options.batch, options.rounds, progress, keep)
    Console().print(_table(rows))


def _shapes(text: str) -> list[str]:
    """Names of the shapes that stand for ``model=NAMES``, each once."""
    field, _, names = text.partition("=")
    presets = names.split(",")
    unknown = [text] if field != "model" else [name for name in presets if name not in SHAPE_OF]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"expected model= and names of these presets: {', '.join(SHAPE_OF)}; got "
            f"{', '.join(unknown)}"
        )
    return list(dict.fromkeys(SHAPE_OF[name] for name in presets))


def _table(rows: Sequence[dict]) -> Table:
    columns = ("shape", "case", "executed", "median", "q1 - q3", "ms", "base ms", "scoring")
    table = Table(*columns, title="CPU time, paired")
    for row in rows:
        average, share = row.get("executed"), row.get("scoring_share")
        table.add_row(
            row["shape"], row["case"], f"{average:.1f}" if average else "",
            f"{row['median']:.3f}",
            f"{row['q1']:.3f} - {row['q3']:.3f}", f"{row['ms']:.0f}", f"{row['base_ms']:.0f}",
            f"{share:.2%}" if share else "",
        )  # fmt: skip
    return table


def write_record(file: Path, rows: Sequence[dict]) -> None:
    """Write what has been measured so far, so that a killed bench loses one row at most."""
    record = {
        "what": "prefill CPU time over its reference time", "rows": rows,
        "torch": torch.__version__,
        "transformers": transformers.__version__, "threads": 1, "cpu": processor_name(),
        "python": platform.python_version(),
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(file)


if __name__ == "__main__":
    main()
