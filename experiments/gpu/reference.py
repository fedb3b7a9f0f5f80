"""The reference time: the model's own layers on sequences that are simply cut to given lengths.

No hooks, no scores, no selection and no gather: a perfect implementation of a method would take
this time. The contents of the tokens are meaningless; only their number is that of the method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from experiments.gpu.device import Device, Mark
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for


@dataclass(frozen=True)
class Lengths:
    """Lengths of a run; where its prompts differ, the longest one.

    Attributes:
        encoder: Patch tokens at the input of each encoder block, then at the projector's.
        layers: Tokens at the input of each decoder layer.
        cached: Tokens in each layer's KV cache while decoding.
        text: Text tokens of a prompt.
        ragged: Whether the prompts' lengths differ anywhere.
    """

    encoder: tuple[int, ...]
    layers: tuple[int, ...]
    cached: tuple[int, ...]
    text: int
    ragged: bool

    @classmethod
    def of(cls, ledgers: Sequence[TokenLedger], blocks: int) -> "Lengths":
        """Read the lengths from ledgers of prompts with images of one size."""
        rows, columns = ledgers[0].grids[0]
        patches = rows * columns
        images = [image for ledger in ledgers for image in ledger.encoder]
        encoder = [[image.get(b, patches) for image in images] for b in range(blocks + 1)]
        depth = ledgers[0].depth
        alive = [[len(ledger.alive[layer]) for ledger in ledgers] for layer in range(depth)]
        cached = [[len(ledger.cached[layer]) for ledger in ledgers] for layer in range(depth)]
        return cls(
            tuple(max(row, default=patches) for row in encoder),
            tuple(map(max, alive)),
            tuple(map(max, cached)),
            max(ledger.text_tokens for ledger in ledgers),
            any(len(set(row)) > 1 for row in (*encoder, *alive, *cached)),
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


class Reference:
    """A model's own blocks and layers, called one after the other on cut sequences.

    Args:
        model: Model without a dropper.
        inputs: input_ids and pixel_values of prompts with one image each, without padding.
        lengths: Lengths to cut to.
        device: Device to measure on.
    """

    def __init__(
        self, model: Any, inputs: dict[str, Tensor], lengths: Lengths, device: Device
    ) -> None:
        self.model, self.adapter = model, adapter_for(model)
        self.inputs, self.lengths, self.device = inputs, lengths, device
        is_vision = inputs["input_ids"][0] == model.config.image_token_id
        first = int(is_vision.nonzero()[0])
        self.before = inputs["input_ids"][:, :first]
        self.after = inputs["input_ids"][:, first + int(is_vision.sum()) :]
        self.decoder = self.adapter.language_model
        (self.encoder,) = self.adapter.encoders
        self.cls = int(self.encoder.has_cls)

    @torch.inference_mode()
    def prefill(self) -> tuple[Tensor, DynamicCache, dict[str, Mark]]:
        """Return first tokens, cache, and marks at the start, after each part and at the end."""
        marks = {"start": self.device.mark()}
        embed = self.model.get_input_embeddings()
        features = self._encode()
        hidden = torch.cat([embed(self.before), features, embed(self.after)], 1)
        marks["decoder"] = self.device.mark()
        cache = DynamicCache(config=self.decoder.config)
        rotary = None
        for layer, length in zip(self.adapter.layers, self.lengths.layers, strict=True):
            if rotary is None or length != hidden.shape[1]:
                hidden = hidden[:, :length].contiguous()
                position = torch.arange(length, device=hidden.device)[None]
                rotary = self.decoder.rotary_emb(hidden, position_ids=position)
            hidden = self._layer(layer, hidden, rotary, cache)
        hidden = self.decoder.norm(hidden)
        marks["head"] = self.device.mark()
        token = self.model.lm_head(hidden[:, -1:])[:, -1].argmax(-1)
        marks["end"] = self.device.mark()
        return token, cache, marks

    @torch.inference_mode()
    def generate(self, steps: int) -> dict[str, Mark]:
        """Generate ``steps`` new tokens; return marks at the start and at the end."""
        token, cache, marks = self.prefill()
        layers: list[Any] = cache.layers
        for layer, length in zip(layers, self.lengths.cached, strict=True):
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        embed = self.model.get_input_embeddings()
        first = self.before.shape[1] + self.after.shape[1] + self.lengths.encoder[-1]
        for step in range(steps - 1):
            hidden = embed(token[:, None])
            position = torch.full((1, 1), first + step, device=hidden.device)
            rotary = self.decoder.rotary_emb(hidden, position_ids=position)
            for layer in self.adapter.layers:
                hidden = self._layer(layer, hidden, rotary, cache)
            token = self.model.lm_head(self.decoder.norm(hidden))[:, -1].argmax(-1)
        return {"start": marks["start"], "end": self.device.mark()}

    def _encode(self) -> Tensor:
        """Compute projected features with all blocks of the encoder, on shorter sequences."""
        hidden = self.encoder.embed(self.inputs["pixel_values"])
        features = hidden
        for index, (block, length) in enumerate(
            zip(self.encoder.blocks, self.lengths.encoder[:-1], strict=True)
        ):
            if self.cls + length != hidden.shape[1]:
                hidden = hidden[:, : self.cls + length].contiguous()
            hidden = block(hidden, None)
            if index == self.adapter.facts.feature_block:
                features = hidden
        return self.adapter.projector(features[:, self.cls : self.cls + self.lengths.encoder[-1]])

    def _layer(self, layer: Any, hidden: Tensor, rotary: Any, cache: DynamicCache) -> Tensor:
        return layer(
            hidden, attention_mask=None, position_embeddings=rotary, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
