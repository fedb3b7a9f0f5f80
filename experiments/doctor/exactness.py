"""Checks of the numbers: all are finite, and dropping tokens equals masking them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from experiments.doctor.findings import Finding
from mustdrop import TokenDropper
from mustdrop.engine.finite import NotFinite
from mustdrop.masked import masked_logits, relative_error

NEW_TOKENS = 3
EXACT = 1e-4  # relative error in float32; real weights add larger numbers than tiny models
TIMES = 10  # largest ratio to the error of the plain model, whose cause is rounding alone


def exactness(
    model: Any, method: str, dropper: TokenDropper, prompts: Sequence[Mapping[str, Any]]
) -> Finding:
    """Compare the logits of a run that drops tokens with those of the masked model.

    The masked model computes every token in every layer. Where nothing is dropped, it differs from
    the plain model by rounding; that error is the measure for this dtype.

    Args:
        model: Model without a dropper.
        method: Name of the method.
        dropper: Method that drops tokens.
        prompts: Inputs of single prompts.
    """
    try:
        plain = [_error(model, TokenDropper(), inputs)[0] for inputs in prompts]
        errors, kept = zip(*(_error(model, dropper, inputs) for inputs in prompts), strict=True)
    except NotFinite as error:
        text = (
            f"{error}: the numbers of this model leave the range of its dtype; "
            "try model.dtype=bfloat16, or float32"
        )
        return Finding("exactness", "wrong", text, {"dtype": str(model.dtype)})
    worst, rounding = max(errors), max(plain)
    limit = max(EXACT, TIMES * rounding)
    dtype = str(model.dtype).removeprefix("torch.")
    facts = {"errors": errors, "plain": plain, "limit": limit, "dtype": dtype, "average": kept}
    shares = f"{sum(kept) / len(kept):.0f} tokens a layer on average"
    text = (
        f"dropping equals masking on {len(errors)} questions ({method}, {shares}): the relative "
        f"error is {worst:.1e}, that of the plain model {rounding:.1e} ({dtype})"
    )
    if worst > limit:
        text = (
            f"dropping differs from masking: the relative error is {worst:.1e}, above {limit:.1e} "
            f"({method}, {dtype}); that of the plain model is {rounding:.1e}. Please report this "
            "with doctor.json"
        )
        return Finding("exactness", "wrong", text, facts)
    return Finding("exactness", "ok", text, facts)


@torch.inference_mode()
def _error(model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]) -> tuple[float, float]:
    """Relative error of the logits, and the vision tokens per layer."""
    with dropper.attach(model) as run:
        out = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        run.require_finite()
    tokens = out.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(out.logits, 1)[0].float()
    expected = masked_logits(model, run, inputs, tokens).float()
    return relative_error(logits, expected), run.ledgers[0].counts().executed_average
