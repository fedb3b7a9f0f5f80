"""Dropping against masking, and the stability of what methods keep, in every dtype."""

from typing import Any

from experiments.real_weights.prompts import FLOAT32, StudyPrompts, answered
from mustdrop.dropper import TokenDropper
from mustdrop.ledger import TokenLedger
from mustdrop.masked import masked_logits, relative_error

HALF = ("bfloat16", "float16")
DTYPES = (FLOAT32, *HALF)
NEW_TOKENS = 3


def batch_row(study: StudyPrompts, index: int, dtype: str) -> dict[str, Any]:
    """Difference of the plain model's logits between a prompt alone and one in a padded batch."""
    model, nothing = study.network(dtype), TokenDropper()
    _, _, alone = answered(model, nothing, study.prompt(index, dtype=dtype))
    _, _, both = answered(model, nothing, study.prompt(index, index + 1, dtype=dtype))
    error = relative_error(both[0].float(), alone[0].float())
    return {"index": index, "dtype": dtype, "error": error}


def masking_row(study: StudyPrompts, method: str, index: int, dtype: str) -> dict[str, Any]:
    """Largest relative difference of a method's logits to those of the masked model.

    effect: The same of the first new token's logits to those with nothing dropped. It must be far
        larger than the error, or the equality shows nothing.
    """
    model, inputs = study.network(dtype), study.prompt(index, dtype=dtype)
    run, tokens, logits = answered(model, study.dropper(method), inputs, NEW_TOKENS)
    _, _, plain = answered(model, TokenDropper(), inputs)
    expected = masked_logits(model, run, inputs, tokens)
    return {
        "index": index,
        "dtype": dtype,
        "method": method,
        "error": relative_error(logits[0].float(), expected.float()),
        "effect": relative_error(logits[0, :1].float(), plain[0].float()),
    }


def stability_row(study: StudyPrompts, method: str, index: int) -> dict[str, Any]:
    """Share of a method's kept tokens that changes with dtype, batch and noise.

    The sum over layers of the tokens that are alive in float32 alone, over all that are alive.
    """
    dropper = study.dropper(method)

    def kept(inputs: Any, dtype: str = FLOAT32) -> TokenLedger:
        return answered(study.network(dtype), dropper, inputs)[0].ledgers[0]

    usual = kept(study.prompt(index))
    others = {dtype: kept(study.prompt(index, dtype=dtype), dtype) for dtype in HALF}
    others["batch"] = kept(study.prompt(index, index + 1))
    others["noise"] = kept(study.noisy(index))
    changed = {name: changed_share(usual, other) for name, other in others.items()}
    return {"index": index, "method": method, **changed}


def changed_share(usual: TokenLedger, other: TokenLedger) -> float:
    """Share of the vision tokens of one ledger, over all layers, that the other one lacks."""
    total = lost = 0
    for layer in range(usual.depth):
        here, there = (
            {*ledger.alive[layer][ledger.vision[ledger.alive[layer]]].tolist()}
            for ledger in (usual, other)
        )
        total, lost = total + len(here), lost + len(here - there)
    return lost / total if total else 0.0
