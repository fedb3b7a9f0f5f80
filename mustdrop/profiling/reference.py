"""The reference time: the model's own blocks and layers on sequences cut to the lengths of a run.

No hooks, no scores, no selection and no gather: a perfect implementation of a method would take
this time. The contents of the tokens are meaningless; only their number is that of the method.
Where a block drops tokens in its middle, as ToMe's do, its MLP runs on all tokens of its input.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from mustdrop.dropper import TokenDropper
from mustdrop.engine.run import DropRun
from mustdrop.engine.transformers_api import cache_name, with_cache
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter, adapter_for
from mustdrop.profiling.device import Device, Mark

Call = tuple[int, tuple, dict[str, Any]]  # length of the states, other arguments by order and name
Images = tuple[Tensor, tuple[int, int]]  # pixels of images of one grid, and the grid


@dataclass(frozen=True)
class Lengths:
    """Lengths of a run; where its prompts differ, the longest one.

    Attributes:
        encoder: Tokens at the input of each encoder block, then at the projector's, without [CLS].
        layers: Tokens at the input of each decoder layer.
        cached: Tokens in each layer's KV cache while decoding.
        text: Text tokens of a prompt.
        ragged: Whether the prompts' lengths differ anywhere in the decoder.
    """

    encoder: tuple[int, ...]
    layers: tuple[int, ...]
    cached: tuple[int, ...]
    text: int
    ragged: bool

    @classmethod
    def of(cls, ledgers: Sequence[TokenLedger], encoder: Sequence[int]) -> "Lengths":
        """Read the lengths in the decoder from the ledgers of a batch."""
        depth = ledgers[0].depth
        alive = [[len(ledger.alive[layer]) for ledger in ledgers] for layer in range(depth)]
        cached = [[len(ledger.cached[layer]) for ledger in ledgers] for layer in range(depth)]
        return cls(
            tuple(encoder),
            tuple(map(max, alive)),
            tuple(map(max, cached)),
            max(ledger.text_tokens for ledger in ledgers),
            any(len(set(row)) > 1 for row in (*alive, *cached)),
        )

    @property
    def executed_average(self) -> float:
        """Vision tokens that enter a layer, averaged over the layers."""
        return sum(length - self.text for length in self.layers) / len(self.layers)

    def describe(self) -> dict[str, Any]:
        """Describe the lengths as numbers of vision tokens."""
        return {
            "encoder": list(self.encoder),
            "vision_tokens": [length - self.text for length in self.layers],
            "resident_tokens": [length - self.text for length in self.cached],
            "executed_average": self.executed_average, "ragged": self.ragged,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class RecordedWork:
    """Work of one prefill: what its encoder blocks and decoder layers got.

    Attributes:
        images: Images that the encoder gets, see :func:`joined_images`.
        calls: Calls of the encoder's blocks and of the projector.
        lengths: Lengths of the run.
    """

    images: Sequence[Images]
    calls: Sequence[Call]
    lengths: Lengths


@torch.inference_mode()
def recorded(
    model: Any, inputs: Mapping[str, Tensor], dropper: TokenDropper
) -> tuple[RecordedWork, DropRun]:
    """Run one prefill under a dropper and record its work.

    Raises:
        ValueError: If the model does not encode all images in one call.
    """
    adapter, pixels = adapter_for(model), []
    part = adapter.encoders[0]

    def record(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        pixels.append(part.pixels(args, kwargs))

    with dropper.attach(model) as run, ExitStack() as stack:
        hook = part.module.register_forward_pre_hook(record, with_kwargs=True)
        stack.callback(hook.remove)
        calls = stack.enter_context(recorded_calls(adapter))
        model(**inputs, logits_to_keep=1)
    if len(pixels) != 1:
        raise ValueError(f"the reference needs one call of the encoder, got {len(pixels)}")
    images = joined_images(pixels[0], [grid for ledger in run.ledgers for grid in ledger.grids])
    front = [int(part.has_cls)] * len(part.blocks) + [int(adapter.keeps_cls(part))]
    lengths = [length - extra for (length, _, _), extra in zip(calls, front, strict=True)]
    return RecordedWork(images, calls, Lengths.of(run.ledgers, lengths)), run


def joined_images(pixels: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> list[Images]:
    """Join the images of one grid that follow one another, as patch embeddings take them."""
    pairs = groupby(zip(grids, pixels, strict=True), key=lambda pair: pair[0])
    return [(torch.stack([part for _, part in group]), grid) for grid, group in pairs]


@contextmanager
def recorded_calls(adapter: ModelAdapter) -> Iterator[list[Call]]:
    """Context that records the calls of the encoder's blocks and of the projector.

    Hooks run in the order in which they were added: these see what an attached dropper leaves.
    """
    part, calls = adapter.encoders[0], []

    def record(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append((args[0].shape[-2], args[1:], kwargs))

    with ExitStack() as stack:
        for module in (*part.blocks, adapter.feature_entry):
            hook = module.register_forward_pre_hook(record, with_kwargs=True)
            stack.callback(hook.remove)
        yield calls


def run_blocks(adapter: ModelAdapter, images: Sequence[Images], calls: Sequence[Call]) -> Tensor:
    """Run the patch embedding, the stock blocks and the projector on states cut to these calls."""
    part = adapter.encoders[0]
    embedded = [part.embed(pixels, grid) for pixels, grid in images]
    hidden = torch.cat([states.flatten(0, 1) if part.packed else states for states in embedded])
    features = hidden
    for index, (block, (length, args, kwargs)) in enumerate(
        zip(part.blocks, calls[:-1], strict=True)
    ):
        states = block(_cut(hidden, length), *args, **kwargs)
        hidden = states if isinstance(states, Tensor) else states[0]
        if index == adapter.facts.feature_block:
            features = hidden
        if index in part.added_projectors:
            part.added_projectors[index](hidden)
    if adapter.feature_norm is not None:
        features = adapter.feature_norm(features)
    if part.gathered:
        features = part.gather(features[:, int(part.has_cls) :])
    return adapter.project(_cut(features, calls[-1][0]))


def _cut(hidden: Tensor, length: int) -> Tensor:
    """The last states; the first one is the [CLS], which a projector may not get."""
    return hidden if length == hidden.shape[-2] else hidden[..., -length:, :].contiguous()


def run_layers(
    adapter: ModelAdapter,
    hidden: Float[Tensor, "batch tokens dim"],
    lengths: Sequence[int],
    cache: DynamicCache,
    masks: Sequence[Tensor | None] | None = None,
) -> Float[Tensor, "batch left dim"]:
    """Run the stock decoder layers and the last norm on states cut to these lengths."""
    name = cache_name(adapter.layers[0])
    rotary: dict[str, Any] = {}
    masks = [None] * len(lengths) if masks is None else masks
    for index, (layer, length, mask) in enumerate(zip(adapter.layers, lengths, masks, strict=True)):
        if length != hidden.shape[1]:
            hidden, rotary = hidden[:, :length].contiguous(), {}
        kind = adapter.kind(index)
        if kind not in rotary:
            positions = torch.arange(length, device=hidden.device)[None]
            rotary[kind] = adapter.rotary(hidden, positions, index)
        hidden = run_layer(layer, hidden, rotary[kind], cache, name, mask)
    assert adapter.final_norm is not None
    return adapter.final_norm(hidden)


def run_layer(
    layer: Any,
    hidden: Tensor,
    rotary: Any,
    cache: DynamicCache,
    name: str,
    mask: Tensor | None = None,
) -> Tensor:
    """Run one stock decoder layer, whose KV cache has this name among its arguments."""
    given = {"attention_mask": mask, "position_embeddings": rotary, "use_cache": True}
    return layer(hidden, **with_cache(given, name, cache))


class Reference:
    """A model's own blocks and layers, called one after the other on cut sequences.

    Args:
        model: Model without a dropper.
        inputs: Prompts of one batch.
        work: Recorded work of the method.
        device: Device to measure on.
    """

    def __init__(
        self, model: Any, inputs: Mapping[str, Tensor], work: RecordedWork, device: Device
    ) -> None:
        self.model, self.adapter, self.work, self.device = model, adapter_for(model), work, device
        is_vision = vision_slots(model, inputs)
        order = _text_first(is_vision)[:, : work.lengths.layers[0]].sort(-1).values
        self.ids = inputs["input_ids"].gather(1, order)
        self.slots = is_vision.gather(1, order).flatten().nonzero()[:, 0]

    @torch.inference_mode()
    def prefill(self) -> tuple[Tensor, DynamicCache, dict[str, Mark]]:
        """Return first tokens, cache, and marks at the start, after each part and at the end."""
        marks = {"start": self.device.mark()}
        hidden = self.model.get_input_embeddings()(self.ids)
        features = run_blocks(self.adapter, self.work.images, self.work.calls)
        features = features.reshape(-1, hidden.shape[-1])
        slots = self.slots[: len(features)]  # newlines are slots without features
        hidden.view(-1, hidden.shape[-1]).index_copy_(
            0, slots, features[: len(slots)].to(hidden.dtype)
        )
        marks["decoder"] = self.device.mark()
        cache = DynamicCache(config=self.adapter.language_model.config)
        hidden = run_layers(self.adapter, hidden, self.work.lengths.layers, cache)
        marks["head"] = self.device.mark()
        token = self.model.get_output_embeddings()(hidden[:, -1:])[:, -1].argmax(-1)
        marks["end"] = self.device.mark()
        return token, cache, marks

    @torch.inference_mode()
    def generate(self, steps: int) -> dict[str, Mark]:
        """Generate ``steps`` new tokens; return marks at the start, first, last token and end."""
        token, cache, marks = self.prefill()
        layers: list[Any] = cache.layers
        for layer, length in zip(layers, self.work.lengths.cached, strict=True):
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        embed, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        first, name = self.ids.shape[1], cache_name(self.adapter.layers[0])
        for step in range(steps - 1):
            hidden = embed(token[:, None])
            position = torch.full((1, 1), first + step, device=hidden.device)
            rotary: dict[str, Any] = {}
            for index, layer in enumerate(self.adapter.layers):
                kind = self.adapter.kind(index)
                if kind not in rotary:
                    rotary[kind] = self.adapter.rotary(hidden, position, index)
                hidden = run_layer(layer, hidden, rotary[kind], cache, name)
            assert self.adapter.final_norm is not None
            token = head(self.adapter.final_norm(hidden))[:, -1].argmax(-1)
        last = self.device.mark()
        return {"start": marks["start"], "first": marks["end"], "last": last, "end": last}


def vision_slots(model: Any, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch tokens"]:
    """Whether each token of the prompts is a slot of an image or of a video."""
    ids = inputs["input_ids"]
    slots = torch.tensor([*adapter_for(model).visual_inputs(inputs)], device=ids.device)
    return torch.isin(ids, slots)


def _text_first(is_vision: Tensor) -> Int[Tensor, "batch tokens"]:
    """Positions of each prompt: its text tokens, then its vision tokens, both in order."""
    return is_vision.long().argsort(dim=-1, stable=True)
