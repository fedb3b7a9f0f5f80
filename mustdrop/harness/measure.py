"""What one prompt kept and cost, from its ledger: numbers of a sample. Knows no benchmark."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from transformers import PreTrainedModel

from mustdrop import cost
from mustdrop.harness.shapes import decoder_shape, encoder_shape
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter, adapter_for


def target_recall(
    ledger: TokenLedger, target: Bool[np.ndarray, "rows columns"]
) -> dict[str, float | None]:
    """Share of the patches asked about that some token still carries.

    Args:
        ledger: Of a prompt with one image.
        target: The patches of what the question is about.

    Returns:
        ``target_recall_input``: at the language model's input; ``target_recall``: in its last
        layer. Both None where the question is about nothing that is there.
    """
    names = {"target_recall_input": 0, "target_recall": ledger.depth - 1}
    if not target.any():
        return dict.fromkeys(names)
    _, slots, carries = ledger.tokens(grid=(target.shape[0], target.shape[1]))
    asked = torch.from_numpy(target).flatten().to(carries.device)
    return {
        name: float(carries[torch.isin(slots, ledger.alive[layer])].any(0)[asked].float().mean())
        for name, layer in names.items()
    }


@dataclass(frozen=True, eq=False)
class Meter:
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
    def of(cls, model: PreTrainedModel) -> "Meter":
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
