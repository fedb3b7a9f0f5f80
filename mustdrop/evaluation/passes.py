"""A pass of the model with a dropper over a prepared batch. Knows nothing about scores."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessorList

from mustdrop.dropper import TokenDropper
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.finite import NotFinite
from mustdrop.evaluation.logprobs import TokenLogprobs
from mustdrop.evaluation.token_controls import ControlPass
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction


class PassResult(NamedTuple):
    """Result of a pass over a batch, per prompt.

    Attributes:
        rows: New tokens.
        ledgers: Ledgers.
        mixed: Decisions after the layers where tokens were mixed.
        logprobs: Log-probabilities of the new tokens; None with beams.
    """

    rows: torch.Tensor
    ledgers: list[TokenLedger]
    mixed: list[dict[int, Reduction]]
    logprobs: torch.Tensor | None


def model_pass(
    model: Any,
    dropper: TokenDropper,
    documents: Sequence[str],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    annotations: Annotations = (),
    control: ControlPass | None = None,
) -> PassResult:
    """New tokens, their log-probabilities, and ledgers of a prepared batch with a dropper.

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
    gather = TokenLogprobs()
    beams = options["num_beams"] > 1
    processors = [*options.get("logits_processor", ()), *(() if beams else (gather,))]
    options = {**options, "logits_processor": LogitsProcessorList(processors)}
    try:
        with dropper.attach(model, annotations) as run:
            tokens = model.generate(**inputs, **options)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        # One copy for all, so that check and log-probabilities add no wait for the device; the
        # bits of a float32 are a whole number.
        bits = new[:0] if beams else gather.of(new).view(torch.int32).to(new)
        flags = run.finite.flags().to(new)
        read = torch.cat([new.flatten(), bits.flatten(), flags]).cpu()
        rows, read_bits, read_flags = read.split([new.numel(), bits.numel(), flags.numel()])
        run.finite.require(read_flags.bool())
    except NotFinite as error:
        under = "" if control is None else f", under the control {control.name}"
        raise ValueError(f"{documents[error.prompt]}{under}: {error.fault}") from error
    if control is not None:
        control.check(run.ledgers)
    mixed = [
        {layer: decisions[index] for layer, decisions in run.mixed.items()}
        for index in range(len(documents))
    ]
    logprobs = None if beams else read_bits.to(torch.int32).view(torch.float32).view(new.shape)
    return PassResult(rows.view(new.shape), run.ledgers, mixed, logprobs)
