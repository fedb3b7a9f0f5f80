"""Random search for what nobody thought of: the laws on any strategies, prompts and tiny models.

``MUSTDROP_CASES=20000`` searches longer than the default tests do, from another seed each time; so
do the slow tests, from one seed.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import cases, joined, model_of
from families import FAMILIES
from family_cases import family_cases, family_model
from hypothesis import HealthCheck, Phase, event, given, settings
from models import greedy

from mustdrop.ledger import TokenLedger
from mustdrop.masked import masked_logits, relative_error

TOLERANCE = 1e-5
CASES = os.environ.get("MUSTDROP_CASES")
REFUSED = (
    "act earlier", "would not reach", "left no token of an image after block",
    "this encoder has no [CLS] token",
)  # fmt: skip


class Laws:
    """The laws, checked on one case after the other; remembers the worst errors."""

    def __init__(self) -> None:
        self.worst = {"masking": 0.0, "neighbours": 0.0}
        self.dropped: list[bool] = []
        self.cases = self.refused = 0

    def check(self, model: Any, dropper: Any, inputs: Callable[..., dict], number: int) -> None:
        """Check a dropper on a batch.

        Args:
            model: Tiny model.
            dropper: Dropper to attach to it.
            inputs: Function from the indices of prompts, none for all, to their batch.
            number: Index of the prompt that is run alone, too.
        """
        self.cases += 1
        try:
            with dropper.attach(model) as run:
                _, alone = greedy(model, inputs(number), 3)
                single = run.ledgers[0]
                together = inputs()
                tokens, logits = greedy(model, together, 3)
        except ValueError as refusal:
            assert any(reason in str(refusal) for reason in REFUSED), refusal
            self.refused += 1
            return event("refused")
        for ledger in run.ledgers:
            assert torch.isin(ledger.protected.nonzero(), ledger.alive[ledger.depth - 1]).all()
            self.dropped.append(ledger.counts().executed_average < int(ledger.vision.sum()))
        self._same(single, run.ledgers[number])
        self._record("neighbours", relative_error(logits[number], alone[0]))
        for prompt in range(len(tokens)):
            expected = masked_logits(model, run, together, tokens, prompt)
            self._record("masking", relative_error(logits[prompt], expected))

    def _record(self, law: str, error: float) -> None:
        self.worst[law] = max(self.worst[law], error)
        assert error <= TOLERANCE, law

    @staticmethod
    def _same(single: TokenLedger, ledger: TokenLedger) -> None:
        assert torch.equal(single.protected, ledger.protected)
        for layer, alive in single.alive.items():
            assert torch.equal(ledger.alive[layer], alive)
            assert torch.equal(ledger.cached[layer], single.cached[layer])

    def require_meaning(self) -> None:
        """Many prompts lost tokens, and errors are not exactly zero. ``pytest -rP`` shows them."""
        share = sum(self.dropped) / max(len(self.dropped), 1)
        print(
            f"{self.cases} cases, {self.refused} refused, {len(self.dropped)} prompts, "
            f"{share:.0%} lost tokens; worst errors {self.worst}"
        )
        assert share > 0.3
        assert all(0 < error <= TOLERANCE for error in self.worst.values())


def search(strategy: Any, check: Callable[[Laws, Any], None], cases: int) -> None:
    """Check the laws on random cases, and that these were worth it."""
    laws = Laws()

    @settings(
        max_examples=int(CASES or cases),
        deadline=None,
        derandomize=CASES is None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(strategy)
    def hold(case: Any) -> None:
        check(laws, case)

    hold()
    laws.require_meaning()


def check_llava(laws: Laws, case: Any) -> None:
    options, dropper, prompts = case

    def inputs(*numbers: int) -> dict:
        return joined([prompts[number] for number in numbers] or prompts)

    laws.check(model_of(*options), dropper, inputs, len(prompts) // 2)


def check_family(laws: Laws, case: Any) -> None:
    family, attention, dropper, prompts, seed = case
    made, model = FAMILIES[family], family_model(family, attention)

    def inputs(*numbers: int) -> dict:
        first, chosen = (numbers[0], [prompts[n] for n in numbers]) if numbers else (0, prompts)
        return made.inputs(model, *chosen, seed=seed + first)

    laws.check(model, dropper, inputs, len(prompts) // 2)


UNLIMITED = [pytest.mark.timeout(0)]
MARKS = UNLIMITED if CASES else []
ONE_GRID = pytest.param(cases(), check_llava, 90, id="llava", marks=MARKS)
ANY_GRID = pytest.param(family_cases(), check_family, 40, id="families", marks=MARKS)
SLOW = [pytest.mark.slow, *UNLIMITED]
MORE = pytest.param(cases(), check_llava, 300, id="llava, more", marks=SLOW)
LONGER = pytest.param(family_cases(), check_family, 900, id="longer", marks=SLOW)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker does
@pytest.mark.parametrize(("strategy", "check", "count"), [ONE_GRID, ANY_GRID, MORE, LONGER])
def test_dropping_equals_masking_and_neighbours_do_not_matter(strategy, check, count):
    search(strategy, check, count)
