"""Random search for what nobody thought of: the laws on any strategies, prompts and tiny models.

``MUSTDROP_CASES=20000`` searches longer than the default tests do, from another seed each time.
"""

import os

import pytest
import torch
from cases import cases, joined, model_of
from hypothesis import HealthCheck, Phase, event, given, settings
from models import greedy

from mustdrop.masked import masked_logits, relative_error

TOLERANCE = 1e-5
CASES = int(os.environ.get("MUSTDROP_CASES", "150"))
WORST = {"masking": 0.0, "neighbours": 0.0}
DROPPED = []
REFUSED = ("act earlier", "would not reach", "left no token of an image after block")


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker does
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize="MUSTDROP_CASES" not in os.environ,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(cases())
def test_dropping_equals_masking_and_neighbours_do_not_matter(case):
    options, dropper, prompts = case
    model, number = model_of(*options), len(prompts) // 2
    try:
        with dropper.attach(model) as run:
            _, alone = greedy(model, joined([prompts[number]]), 3)
            single = run.ledgers[0]
            tokens, logits = greedy(model, joined(prompts), 3)
    except ValueError as refusal:
        assert any(reason in str(refusal) for reason in REFUSED), refusal
        return event("refused")
    for ledger in run.ledgers:
        assert torch.isin(ledger.protected.nonzero(), ledger.alive[ledger.depth - 1]).all()
        DROPPED.append(ledger.counts().executed_average < int(ledger.vision.sum()))
    error = relative_error(logits[number], alone[0])
    WORST["neighbours"] = max(WORST["neighbours"], error)
    assert error <= TOLERANCE
    for layer, alive in single.alive.items():
        assert torch.equal(run.ledgers[number].alive[layer], alive)
    error = twin_error(model, run, prompts, tokens, logits)
    WORST["masking"] = max(WORST["masking"], error)
    assert error <= TOLERANCE


def twin_error(model, run, prompts, tokens, logits) -> float:
    """Largest error of the batch's prompts against the masked model."""
    inputs = joined(prompts)
    return max(
        relative_error(logits[number], masked_logits(model, run, inputs, tokens, number))
        for number in range(len(prompts))
    )


def test_the_search_meant_something():
    """Most prompts lost tokens. ``pytest -rP`` shows the worst errors."""
    share = sum(DROPPED) / max(len(DROPPED), 1)
    print(f"{CASES} cases, {len(DROPPED)} prompts, {share:.0%} lost tokens; worst errors {WORST}")
    assert share > 0.3
    assert all(0 < error <= TOLERANCE for error in WORST.values())
