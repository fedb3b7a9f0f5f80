"""What one prompt kept and cost, from its ledger: numbers of a sample. Knows no benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mustdrop import cost
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter, adapter_for
from mustdrop.models.shapes import decoder_shape, encoder_shape
from mustdrop.reduction import Reduction

# Share of a token at which a patch counts as carried in full: one of ten patches.
FULL_SHARE = 0.1


def target_recall(
    ledger: TokenLedger,
    target: Bool[np.ndarray, "rows columns"],
    mixed: Mapping[int, Reduction] | None = None,
) -> dict[str, float | None]:
    """Share of the patches asked about that the tokens still carry.

    A token is shared among its patches by their weights in it, and a patch counts by its share of
    the token that holds most of it: in full from a tenth of that token on, in proportion below. So
    a dropped patch counts 0, a kept one 1, and each of the nine patches of a merged 3 x 3 window 1;
    but a token that holds a little of everything, as PruMerge's remainder does, carries ten
    patches' worth and no more.

    Args:
        ledger: Of a prompt with one image.
        target: The patches of what the question is about.
        mixed: Per layer, the prompt's decision after that layer, where a prefill strategy mixed
            tokens.

    Returns:
        ``target_recall_input``: at the language model's input; ``target_recall``: in its last
        layer. Both None where the question is about nothing that is there.
    """
    names = {"target_recall_input": 0, "target_recall": ledger.depth - 1}
    if not target.any():
        return dict.fromkeys(names)
    slots, shares = _entering(ledger, (target.shape[0], target.shape[1]))
    asked = torch.from_numpy(target).flatten().to(shares.device)
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
        recall[name] = float(carried.clamp(max=1.0)[asked].mean())
    return recall


def _entering(
    ledger: TokenLedger, grid: tuple[int, int]
) -> tuple[Int[Tensor, " tokens"], Float[Tensor, "seq patches"]]:
    """Slots of the tokens that the encoder handed on, and the share of every patch in every slot.

    A slot that holds no such token has no share of any patch.
    """
    _, slots, carries = ledger.image_tokens(grid=grid)
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
    """Weights as shares of a token; those of a patch and of [CLS] add up to one."""
    mix = mix.float()
    total = mix.sum(1) if cls is None else mix.sum(1) + cls.to(mix)
    return mix / total.clamp_min(torch.finfo(mix.dtype).tiny)[:, None]


def _mix(
    shares: Float[Tensor, "seq patches"], slots: Int[Tensor, " before"], decision: Reduction
) -> None:
    """Carry a prefill strategy's decision out on the shares of its tokens, in place.

    Slots whose tokens leave keep their old shares; no later layer has them.
    """
    rows = _rows(decision.weights(len(slots))).to(shares) @ shares[slots]
    shares[slots[decision.keep.to(slots.device)]] = rows


@dataclass(frozen=True, eq=False)
class CostMeter:
    """Measures ledgers of one model.

    Attributes:
        adapter: Tells how many images a prompt has.
        decoder: The decoder's sizes.
        encoder: The encoder's and the projector's.
    """

    adapter: ModelAdapter
    decoder: cost.DecoderShape
    encoder: cost.EncoderShape

    @classmethod
    def from_model(cls, model: PreTrainedModel) -> "CostMeter":
        """From the model's own modules.

        Raises:
            ValueError: If a part of the model has no closed form of its costs.
        """
        adapter = adapter_for(model)
        return cls(adapter, decoder_shape(adapter), encoder_shape(adapter))

    def measure(self, ledger: TokenLedger, nominal: float | None) -> dict[str, Any]:
        """Counts, multiply-accumulates, bytes; ``vanilla_``: of the prompt with nothing dropped.

        Args:
            ledger: Of one prompt.
            nominal: The count that was asked for, if any was.
        """
        images = self.adapter.images_per_prompt([int(ledger.vision.sum())])[0]
        return {
            "vision_tokens": ledger.vision_per_layer(),
            "resident_tokens": ledger.resident_per_layer(),
            "counts": ledger.counts(nominal).as_dict(),
            "prefill_macs": cost.prefill_macs(ledger, self.decoder),
            "vanilla_macs": cost.vanilla_macs(ledger, self.decoder),
            "encoder_macs": cost.encoder_macs(ledger, self.encoder, images),
            "vanilla_encoder_macs": cost.vanilla_encoder_macs(self.encoder, images),
            "scoring_macs": cost.scoring_macs(ledger, self.decoder),
            "kv_bytes": cost.kv_bytes(ledger, self.decoder),
            "vanilla_kv_bytes": cost.vanilla_kv_bytes(ledger, self.decoder),
            "prompt_tokens": ledger.seq_len,
        }
