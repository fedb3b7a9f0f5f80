"""Samples: the recorded values of one answered document. Knows no batch and no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mustdrop.budget import Budget
from mustdrop.dropper import TokenDropper
from mustdrop.evaluation.answers import answer, scores
from mustdrop.evaluation.chat import naming, question
from mustdrop.evaluation.image_controls import ImageControl
from mustdrop.evaluation.logprobs import recorded
from mustdrop.evaluation.metrics import CostMeter, target_recall
from mustdrop.evaluation.passes import PassResult
from mustdrop.evaluation.reach import nominal_average, out_of_reach
from mustdrop.evaluation.requests import Request
from mustdrop.evaluation.token_controls import ControlPass
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for

KINDS = ("type", "category")  # fields that name a document's kind of question; the first it has


@dataclass(frozen=True, eq=False)
class SampleMaker:
    """Makes the samples of a run, without times.

    Attributes:
        model: Model that answers.
        tokenizer: Tokenizer of the model.
        dropper: Method.
        budget: Budget of the run.
        meter: Sizes of the model, for costs.
        image: Image control; None: documents show their own images.
    """

    model: Any
    tokenizer: Any
    dropper: TokenDropper
    budget: Budget | None
    meter: CostMeter
    image: ImageControl | None

    def sample(self, request: Request, index: int, result: PassResult) -> dict[str, Any]:
        """Sample of one request.

        Args:
            request: The request.
            index: Index of its prompt in the batch.
            result: Result of the method's pass over the batch.
        """
        scored, new_tokens = self.scored_answer(request, index, result)
        ledger = result.ledgers[index]
        doc = request.doc
        kinds = [doc[name] for name in KINDS if name in doc]
        # The annotations of an image do not hold for its replacement.
        original = self.image is None and bool(ledger.vision.any())
        target = request.target if original else None
        recall = {} if target is None else target_recall(ledger, target, result.mixed[index])
        return {
            "doc_id": request.doc_id,
            "task": request.task.config.task,
            **({"type": kinds[0]} if kinds else {}),
            "image": request.image,
            "question": question(request.chat),
            "target": request.task.doc_to_target(doc),
            **scored,
            **self.measured(ledger),
            **out_of_reach(self.budget, self.dropper, ledger, adapter_for(self.model).facts),
            **recall,
            "new_tokens": new_tokens,
        }

    def measured(self, ledger: TokenLedger) -> dict[str, Any]:
        """Counts and costs of a prompt."""
        return self.meter.measure(ledger, nominal_average(self.budget, ledger))

    def scored_answer(
        self, request: Request, index: int, result: PassResult
    ) -> tuple[dict[str, Any], int]:
        """Answer with scores and log-probabilities of its tokens, and their number.

        The tokens are those that were generated, with the end token, also where the task cuts the
        text earlier.
        """
        text, new_tokens = answer(self.model, self.tokenizer, result.rows[index], request.options)
        with naming(request.name):
            values = scores(request.task, request.instance, request.doc, text)
        entry: dict[str, Any] = {"answer": text.strip(), "scores": values}
        if result.logprobs is not None:
            entry["logprobs"] = recorded(result.logprobs[index, :new_tokens])
        return entry, new_tokens

    def control_results(
        self, request: Request, index: int, controls: Sequence[tuple[ControlPass, PassResult]]
    ) -> dict[str, list[dict[str, Any]]]:
        """Results of the controls for one request: control name -> one entry per pass.

        Args:
            request: The request.
            index: Index of its prompt in the batch.
            controls: Controls with their results on the batch.
        """
        results: dict[str, list[dict[str, Any]]] = {}
        for control, result in controls:
            scored, _ = self.scored_answer(request, index, result)
            ledger = result.ledgers[index]
            counts = ledger.counts(nominal_average(self.budget, ledger)).as_dict()
            entry = {"seed": control.seed, **scored, "counts": counts}
            results.setdefault(control.name, []).append(entry)
        return results
