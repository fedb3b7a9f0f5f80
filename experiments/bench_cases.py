"""CPU seconds of a prefill and of an encoder call: with a dropper, without, and at least.

The reference runs the same stock layers or blocks on sequences cut to the counts of a run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from experiments.bench_shapes import BEFORE, BenchShape
from mustdrop import TokenDropper
from mustdrop.engine.layout import Masks, padding
from mustdrop.ledger import TokenLedger
from mustdrop.masked import plain_inputs
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.profiling.reference import (
    Call,
    joined_images,
    recorded_calls,
    run_blocks,
    run_layers,
)
from mustdrop.vision.local_merge import LocalMerge


def timed(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def executed(ledgers: Sequence[TokenLedger]) -> float:
    """Executed average of the prompts of a batch."""
    return fmean(ledger.counts().executed_average for ledger in ledgers)


class attached:
    """Context in which a dropper is attached to a model and knows the prompt."""

    def __init__(self, dropper: TokenDropper, model: Any, inputs: dict[str, Tensor]) -> None:
        self.context, self.base, self.inputs = dropper.attach(model), model.model, inputs

    def __enter__(self):
        run = self.context.__enter__()
        for hook in self.base._forward_pre_hooks.values():
            hook(self.base, (), self.inputs)
        return run

    def __exit__(self, *error) -> None:
        self.context.__exit__(*error)


class PrefillCase:
    """Prefill of a batch of prompts, which differ in their vision tokens, by the decoder alone."""

    def __init__(self, shape: BenchShape, model: Any, batch: int = 1) -> None:
        self.shape, self.model, self.adapter = shape, model, adapter_for(model)
        self.decoder, self.inputs = self.adapter.language_model, shape.prompt(batch)
        given = plain_inputs(model, self.adapter, shape.prompt())
        embeds = given["inputs_embeds"].repeat(batch, 1, 1)
        generator = torch.Generator().manual_seed(3)
        drawn = torch.randn(batch, shape.slots, embeds.shape[-1], generator=generator)
        # vision tokens of the text's size, so that text attends to them
        embeds[:, BEFORE : BEFORE + shape.slots] = drawn * embeds[0, :BEFORE].std()
        positions = given.get("position_ids")
        if positions is not None:
            positions = positions.expand(*positions.shape[:-2], batch, -1)
        self.embeds, self.positions = embeds, positions
        self.others: dict[str, Any] = {}
        if given.get("deepstack_visual_embeds") is not None:  # states added between layers
            rows = given["deepstack_visual_embeds"]
            self.others["deepstack_visual_embeds"] = [states.repeat(batch, 1) for states in rows]
            self.others["visual_pos_masks"] = given["visual_pos_masks"].repeat(batch, 1)
        if not self.adapter.causal:
            masks = given["attention_mask"]
            named = isinstance(masks, Mapping)
            repeated = {
                kind: None if mask is None else mask.expand(batch, -1, -1, -1)
                for kind, mask in (masks if named else {"": masks}).items()
            }
            self.others["attention_mask"] = repeated if named else repeated[""]

    def prefill(self) -> None:
        self.decoder(
            inputs_embeds=self.embeds, position_ids=self.positions, use_cache=True,
            past_key_values=DynamicCache(), **self.others,
        )  # fmt: skip

    def plain(self) -> float:
        return timed(self.prefill)

    def dropping(self, dropper: TokenDropper) -> tuple[float, list[TokenLedger]]:
        """Return seconds and ledgers; attaching once serves many prompts, so it is not timed."""
        with attached(dropper, self.model, self.inputs) as run:
            return timed(self.prefill), run.ledgers

    def reference(self, ledgers: Sequence[TokenLedger]) -> float:
        """Time the stock layers on sequences cut to the ledgers' counts.

        A batch is padded to its longest prompt. The masks of the padding are made before the clock
        starts.
        """
        form, made = Masks(eager=False, flash=False), {}
        lengths, masks = [], []
        for layer in range(ledgers[0].depth):
            counts = tuple(len(ledger.alive[layer]) for ledger in ledgers)
            if counts not in made:
                made[counts] = form.prefill(padding(counts), max(counts), self.embeds)
            lengths.append(max(counts))
            masks.append(made[counts])
        return timed(lambda: run_layers(self.adapter, self.embeds, lengths, DynamicCache(), masks))

    def calibrate(self, target: float) -> DualAttention:
        """Find dual attention with the executed average ``target``; gamma is bisected."""
        strategy = DualAttention(gamma=1.0, alpha=1.0, layers=self.shape.layers)
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            strategy = replace(strategy, gamma=middle)
            _, ledgers = self.dropping(TokenDropper(prefill=strategy))
            average = executed(ledgers)
            if abs(average - target) <= 0.01 * target:
                break
            low, high = (middle, high) if average > target else (low, middle)
        return strategy


class EncoderCase:
    """Call of the encoder and the projector for the images of one prompt."""

    def __init__(self, shape: BenchShape, model: Any) -> None:
        self.shape, self.model, self.adapter = shape, model, adapter_for(model)
        self.inputs = shape.prompt()
        (self.part,) = self.adapter.encoders
        self.images = {
            name: value
            for name, value in self.inputs.items()
            if name.startswith(("pixel", "image"))
        }
        visual = self.adapter.visual_inputs(self.inputs).values()
        shown = [image for images in visual for image in images]
        self.encoded = joined_images(
            [pixels for image in shown for pixels in image.pixels],
            [grid for image in shown for grid in image.grids],
        )

    def encode(self) -> None:
        self.model.model.get_image_features(**self.images)

    def plain(self) -> float:
        return timed(self.encode)

    def dropping(self, dropper: TokenDropper) -> float:
        """Return seconds; attaching is not timed."""
        with attached(dropper, self.model, self.inputs):
            return timed(self.encode)

    def recorded(self, dropper: TokenDropper) -> list[Call]:
        """Calls of the blocks and of the projector under a dropper."""
        with attached(dropper, self.model, self.inputs), recorded_calls(self.adapter) as calls:
            self.encode()
            return calls

    def reference(self, calls: list[Call]) -> float:
        """Time the patch embedding, the stock blocks and the projector on states cut to a run's."""
        return timed(lambda: run_blocks(self.adapter, self.encoded, calls))

    def calibrate(self, share: float) -> tuple[LocalMerge, float]:
        """Find local merging that leaves this share of the tokens; tau is bisected.

        Returns:
            The strategy, and the share that it leaves.
        """
        # crops of one length need no padding, and edges are kept where a window does not fit
        crops = "own" if self.part.packed else "fewest"
        low, high, left = -1.0, 1.0, 1.0
        strategy = LocalMerge(0.0, self.shape.window, score="mean", crops=crops, edges="keep")
        for _ in range(30):
            middle = (low + high) / 2
            strategy = replace(strategy, tau=middle)
            lengths = [length for length, _, _ in self.recorded(TokenDropper(vision=strategy))]
            left = lengths[1] / lengths[0]
            if abs(left - share) <= 0.01:
                break
            low, high = (middle, high) if left < share else (low, middle)
        return strategy, left
