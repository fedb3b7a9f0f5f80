"""A pass of the model with a dropper over a prepared batch. Knows nothing about scores."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mustdrop.dropper import TokenDropper
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.finite import NotFinite
from mustdrop.evaluation.token_controls import ControlPass
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction


class PassResult(NamedTuple):
    """Result of a pass over a batch: per prompt, the new tokens, ledger and mixed layers."""

    rows: torch.Tensor
    ledgers: list[TokenLedger]
    mixed: list[dict[int, Reduction]]


def model_pass(
    model: Any,
    dropper: TokenDropper,
    documents: Sequence[str],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    annotations: Annotations = (),
    control: ControlPass | None = None,
) -> PassResult:
    """New tokens and ledgers of a prepared batch with a dropper.

    Args:
        model: Model that answers.
        dropper: Dropper of the pass.
        documents: Names of the documents in messages.
        inputs: Inputs of ``generate``, on the model's device.
        options: Options of ``generate``.
        annotations: Marks of each image.
        control: Control that the pass belongs to; None for the method.

    Raises:
        RuntimeError: If a control kept a wrong number of tokens.
        ValueError: If a number in the computation is infinite or NaN; names the document.
    """
    try:
        with dropper.attach(model, annotations) as run:
            tokens = model.generate(**inputs, **options)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        # One copy for both, so that the check adds no wait for the device.
        flags = run.finite.flags().to(new)
        read = torch.cat([new.flatten(), flags]).cpu()
        run.finite.require(read[new.numel() :].bool())
    except NotFinite as error:
        under = "" if control is None else f", under the control {control.name}"
        raise ValueError(f"{documents[error.prompt]}{under}: {error.fault}") from error
    if control is not None:
        control.check(run.ledgers)
    mixed = [
        {layer: decisions[index] for layer, decisions in run.mixed.items()}
        for index in range(len(documents))
    ]
    return PassResult(read[: new.numel()].view(new.shape), run.ledgers, mixed)
