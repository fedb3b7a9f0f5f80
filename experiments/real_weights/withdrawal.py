"""Whether late layers do without vision tokens: VTW's claim, at several depths."""

from typing import Any

from experiments.real_weights.prompts import StudyPrompts, answered
from mustdrop.calibration.vtw import divergence
from mustdrop.dropper import TokenDropper
from mustdrop.prefill.vtw import VTW

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the layers that see vision tokens


def withdrawal_row(study: StudyPrompts, share: float, index: int) -> dict[str, Any]:
    """Effect of dropping all vision tokens after a share of the layers, on the next token.

    kl: KL(withdrawn || full) in nats; same: whether the most likely token is the same.
    """
    model, inputs = study.network(), study.prompt(index)
    layers = round(share * study.checkpoint.layers)
    _, _, full = answered(model, TokenDropper(), inputs)
    _, _, without = answered(model, TokenDropper(prefill=VTW(layers - 1)), inputs)
    return {
        "index": index,
        "layers": layers,
        "kl": float(divergence(full[:, 0], without[:, 0])[0]),
        "same": bool(full[0, 0].argmax() == without[0, 0].argmax()),
    }
