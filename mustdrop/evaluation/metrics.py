"""Token counts, costs and target recall of one prompt, from its ledger. Knows no benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mustdrop import cost
from mustdrop.ledger import OFF_GRID, TokenLedger
from mustdrop.models import adapter_for
from mustdrop.models.shapes import decoder_shape, encoder_shape
from mustdrop.reduction import Reduction

# A patch counts in full from this share of a token on: a tenth.
FULL_SHARE = 0.1


def target_recall(
    ledger: TokenLedger,
    target: Bool[np.ndarray, "rows columns"],
    mixed: Mapping[int, Reduction] | None = None,
) -> dict[str, float | None]:
    """Share of the target patches that the remaining tokens still represent.

    A patch has a share in each token, given by its weight in that token. A patch counts by its
    largest share: 1 from a tenth of a token on, in proportion below. So a dropped patch counts 0, a
    kept patch 1, and each of the nine patches of a merged 3 x 3 window 1; a token that mixes many
    patches, such as PruMerge's remainder, represents at most ten patches.

    Args:
        ledger: Ledger of a prompt with one image.
        target: Patches that the question is about.
        mixed: Layer -> decision of the prompt after that layer, for layers after which a prefill
            strategy mixed tokens.

    Returns:
        ``target_recall_input``: at the language model's input; ``target_recall``: in its last
        layer. Both are None if there are no target patches.
    """
    names = {"target_recall_input": 0, "target_recall": ledger.depth - 1}
    if not target.any():
        return dict.fromkeys(names)
    slots, shares = _entering(ledger)
    target_mask = torch.from_numpy(target).flatten().to(shares.device)
    done, recall = -2, {}
    for name, layer in names.items():
        for after in range(done + 1, layer):
            if mixed is not None and after in mixed:
                if after >= 0:
                    alive = ledger.alive[after]
                    slots = alive[ledger.vision[alive]]
                _mix(shares, slots.to(shares.device), mixed[after])
        done = layer - 1
        carried = shares[ledger.alive[layer].to(shares.device)].amax(0) / FULL_SHARE
        recall[name] = float(carried.clamp(max=1.0)[target_mask].mean())
    return recall


def _entering(
    ledger: TokenLedger,
) -> tuple[Int[Tensor, " tokens"], Float[Tensor, "seq patches"]]:
    """Slots of the tokens that leave the encoder, and the share of each patch in each slot.

    Slots without such a token have zero shares.
    """
    _, slots, carries = ledger.image_tokens()
    source = ledger.sources[0] if ledger.sources else None
    if source is None or source.mix is None:
        rows = carries.float()
    else:
        rows = _rows(source.mix, source.cls)
    shares = rows.new_zeros(ledger.seq_len, rows.shape[1])
    return slots, shares.index_copy_(0, slots.to(rows.device), rows)


def _rows(
    mix: Float[Tensor, "tokens before"], cls: Float[Tensor, " tokens"] | None = None
) -> Float[Tensor, "tokens before"]:
    """Weights as shares of a token; the shares of patches and [CLS] add up to one."""
    mix = mix.float()
    total = mix.sum(1) if cls is None else mix.sum(1) + cls.to(mix)
    return mix / total.clamp_min(torch.finfo(mix.dtype).tiny)[:, None]


def _mix(
    shares: Float[Tensor, "seq patches"], slots: Int[Tensor, " before"], decision: Reduction
) -> None:
    """Apply a prefill strategy's decision to the shares of its tokens, in place.

    Slots of dropped tokens keep their old shares; later layers do not read them.
    """
    rows = _rows(decision.weights(len(slots))).to(shares) @ shares[slots]
    shares[slots[decision.keep.to(slots.device)]] = rows


@dataclass(frozen=True, eq=False)
class CostMeter:
    """Computes counts and costs from ledgers of one model.

    Attributes:
        decoder: Sizes of the decoder.
        encoder: Sizes of the encoder and the projector.
    """

    decoder: cost.DecoderShape
    encoder: cost.EncoderShape

    @classmethod
    def from_model(cls, model: PreTrainedModel) -> "CostMeter":
        """A meter with the sizes of the model's modules.

        Raises:
            ValueError: If the costs of a part of the model have no closed form.
        """
        adapter = adapter_for(model)
        return cls(decoder_shape(adapter), encoder_shape(adapter))

    def measure(self, ledger: TokenLedger, nominal: float | None) -> dict[str, Any]:
        """Counts, multiply-accumulates and bytes; ``vanilla_`` means the prompt without dropping.

        Args:
            ledger: Ledger of one prompt.
            nominal: Token count of the budget; None without a budget.
        """
        return {
            "vision_tokens": ledger.vision_per_layer(),
            "resident_tokens": ledger.resident_per_layer(),
            "counts": ledger.counts(nominal).as_dict(),
            "slots": slot_counts(ledger),
            "prefill_macs": cost.prefill_macs(ledger, self.decoder),
            "vanilla_macs": cost.vanilla_macs(ledger, self.decoder),
            "encoder_macs": cost.encoder_macs(ledger, self.encoder),
            "vanilla_encoder_macs": cost.vanilla_encoder_macs(ledger, self.encoder),
            "scoring_macs": cost.scoring_macs(ledger, self.decoder),
            "kv_bytes": cost.kv_bytes(ledger, self.decoder),
            "vanilla_kv_bytes": cost.vanilla_kv_bytes(ledger, self.decoder),
            "prompt_tokens": ledger.seq_len,
        }


def slot_counts(ledger: TokenLedger) -> dict[str, int | float]:
    """Vision tokens of a prompt that show a cell, and those that show none (newlines and the like).

    Returns:
        ``cells`` and ``off_grid``: their numbers before any stage. ``off_grid_average``: the part
        of the executed average that shows no cell.
    """
    off_grid = ledger.vision.nonzero().flatten()[ledger.cells == OFF_GRID]
    alive = [
        int(torch.isin(ledger.alive[layer], off_grid).sum()) if len(off_grid) else 0
        for layer in range(ledger.depth)
    ]
    return {
        "cells": ledger.shown_cells,
        "off_grid": len(off_grid),
        "off_grid_average": sum(alive) / len(alive),
    }
