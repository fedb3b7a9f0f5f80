"""Error of a run of a tiny family against the masked model, with a mechanism of the run broken."""

import pytest
from families import FAMILIES
from models import greedy

from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error


def family_error(
    family: str, dropper: TokenDropper, broken: pytest.MonkeyPatch | None = None
) -> float:
    """Largest relative error of the logits of a batch.

    Args:
        family: Name of the family.
        dropper: Method of the run.
        broken: Changes that hold in the run and are undone before the masked model computes.
    """
    made = FAMILIES[family]
    model = made.model()
    inputs = made.inputs(model, *made.prompts)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=2)
    if broken is not None:
        broken.undo()
    expected = [masked_logits(model, run, inputs, tokens, number) for number in range(len(tokens))]
    return max(relative_error(row, other) for row, other in zip(logits, expected, strict=True))
