"""CPU time of dropping against its reference time, and of the hooks when nothing is dropped.

The reference time of a run is that of the same stock layers, with sdpa, on sequences cut to the
run's counts: no scoring, selection, gather or compaction. A perfect implementation has ratio 1.
Both are timed in turn, in one process on one thread; each ratio is that of one pair of CPU times.

    mustdrop bench                      # about 4 minutes on one core
    mustdrop bench --rounds 40 --out experiments/records/bench.json
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mustdrop import TokenDropper
from mustdrop.cost import DecoderShape, prefill_macs, scoring_macs
from mustdrop.decode.output_aware import OutputAware
from mustdrop.ledger import TokenLedger
from mustdrop.prefill.dual_attention import DualAttention

IMAGE, BEFORE, AFTER = 5, 35, 30
LAYERS = (2, 6, 10, 14)
CASES = ((576, 192), (576, 128), (576, 64), (2880, 320))


def build(slots: int) -> LlavaForConditionalGeneration:
    """Return a random LLaVA with 32 layers of width 256; only its decoder is timed."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=4 * 24, patch_size=4,
        ),
        text_config=LlamaConfig(
            vocab_size=128, hidden_size=256, intermediate_size=688, num_hidden_layers=32,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096,
            pad_token_id=0,
        ),
        image_token_index=IMAGE, image_seq_length=slots, vision_feature_layer=-2,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        # unit-variance logits: attention that differs by token
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight.data.normal_(0, 1.5 / weight.shape[1] ** 0.5, generator=generator)
    return model


def prompt(model: LlavaForConditionalGeneration, slots: int) -> tuple[Tensor, Tensor]:
    """Return ids and embeddings of 35 text, ``slots`` vision and 30 text tokens."""
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(6, 128, (BEFORE + AFTER,), generator=generator)
    ids = torch.cat([text[:BEFORE], torch.full((slots,), IMAGE), text[BEFORE:]])[None]
    embeds = model.get_input_embeddings()(ids)
    vision = torch.randn(slots, 256, generator=generator) * embeds.std()
    embeds[0, BEFORE : BEFORE + slots] = vision
    return ids, embeds


def timed(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


class BenchCase:
    """CPU seconds of the prefill of one prompt: with a dropper, its reference, and plain."""

    def __init__(self, model: LlavaForConditionalGeneration, slots: int) -> None:
        self.model, self.decoder = model, model.model.language_model
        self.ids, self.embeds = prompt(model, slots)

    def prefill(self) -> None:
        self.decoder(inputs_embeds=self.embeds, past_key_values=DynamicCache(), use_cache=True)

    def plain(self) -> float:
        return timed(self.prefill)

    def dropping(self, dropper: TokenDropper) -> tuple[float, TokenLedger]:
        """Return seconds and ledger; attaching once serves many prompts, so it is not timed."""
        with attached(dropper, self) as state:
            return timed(self.prefill), state.ledgers[0]

    def reference(self, ledger: TokenLedger) -> float:
        """Time the stock layers on sequences cut to the ledger's counts."""
        counts = [len(ledger.alive[layer]) for layer in range(ledger.depth)]

        def run() -> None:
            hidden, cache, rotary = self.embeds, DynamicCache(), None
            for layer, count in zip(self.decoder.layers, counts, strict=True):
                if rotary is None or count != hidden.shape[1]:
                    hidden = hidden[:, :count].contiguous()
                    position = torch.arange(count)[None]
                    rotary = self.decoder.rotary_emb(hidden, position_ids=position)
                hidden = layer(
                    hidden, attention_mask=None, position_embeddings=rotary,
                    past_key_values=cache, use_cache=True,
                )  # fmt: skip
            self.decoder.norm(hidden)

        return timed(run)


class attached:
    """Context in which a dropper is attached to a case's model and knows the prompt's ids."""

    def __init__(self, dropper: TokenDropper, case: BenchCase) -> None:
        self.context, self.case = dropper.attach(case.model), case

    def __enter__(self):
        run = self.context.__enter__()
        for hook in self.case.model.model._forward_pre_hooks.values():
            hook(self.case.model.model, (), {"input_ids": self.case.ids})
        return run

    def __exit__(self, *error) -> None:
        self.context.__exit__(*error)


def calibrate(case: BenchCase, target: float) -> DualAttention:
    """Find dual-attention filtering with the executed average ``target``; gamma is bisected."""
    low, high = 0.0, 1.0
    strategy = DualAttention(gamma=high, alpha=1.0, layers=LAYERS)
    for _ in range(30):
        middle = (low + high) / 2
        strategy = replace(strategy, gamma=middle)
        _, ledger = case.dropping(TokenDropper(prefill=strategy))
        average = ledger.counts().executed_average
        if abs(average - target) <= 0.01 * target:
            break
        low, high = (middle, high) if average > target else (low, middle)
    return strategy


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
def measure(rounds: int, progress: Progress) -> list[dict]:
    """Measure every case; return the rows of the record."""
    rows = []
    cases = {slots: BenchCase(build(slots), slots) for slots in {slots for slots, _ in CASES}}
    bar = progress.add_task("bench", total=rounds * (2 * len(CASES) + 1))
    shape = DecoderShape(256, 256, 256, 688, 128)
    tick = partial(progress.advance, bar)

    def compare(
        name: str, case: BenchCase, dropper: TokenDropper, base: Callable[[], float], **about
    ) -> None:
        result = paired(lambda: case.dropping(dropper)[0], base, rounds, tick)
        rows.append({"case": name, **about, **result})

    compare("hooks, nothing dropped / plain", cases[576], TokenDropper(), cases[576].plain)
    for slots, target in CASES:
        case = cases[slots]
        strategy = calibrate(case, target)
        dropper = TokenDropper(prefill=strategy, decode=OutputAware(from_layer=2))
        _, ledger = case.dropping(dropper)
        about = {
            "executed": ledger.counts().executed_average, "slots": slots, "gamma": strategy.gamma,
            "scoring_share": scoring_macs(ledger, shape) / prefill_macs(ledger, shape),
        }  # fmt: skip
        name = f"{slots} -> {target} executed"
        compare(f"{name} / floor", case, dropper, partial(case.reference, ledger), **about)
        compare(f"{name} / plain", case, dropper, case.plain, **about)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", type=Path, help="write the record here (json)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with Progress() as progress:
        rows = measure(options.rounds, progress)
    columns = ("case", "executed", "median", "q1 - q3", "ms", "base ms", "scoring")
    table = Table(*columns, title="CPU time, paired")
    for row in rows:
        executed, share = row.get("executed"), row.get("scoring_share")
        table.add_row(
            row["case"], f"{executed:.1f}" if executed else "", f"{row['median']:.3f}",
            f"{row['q1']:.3f} - {row['q3']:.3f}", f"{row['ms']:.0f}", f"{row['base_ms']:.0f}",
            f"{share:.2%}" if share else "",
        )  # fmt: skip
    Console().print(table)
    if options.out:
        record = {
            "what": "prefill CPU time over its floor", "rows": rows, "torch": torch.__version__,
            "transformers": transformers.__version__, "threads": 1, "cpu": cpu_name(),
            "python": platform.python_version(),
        }  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def cpu_name() -> str:
    """Return the model name of the processor, or its architecture where the name is unknown."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
