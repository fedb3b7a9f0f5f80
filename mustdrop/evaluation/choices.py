"""ScoringVLM: a model with a dropper for lmms-eval's multiple-choice tasks. Knows nothing of files.

lmms-eval makes the tasks of the output types ``multiple_choice`` and ``loglikelihood`` only for
models that it calls simple, and passes them other arguments than those of conversations.
"""

from typing import Any

from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Instance


class ScoringVLM(DroppedVLM):
    """A model that scores given answers, and generates none."""

    is_simple = True

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """Refuse: a task that generates answers needs conversations.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "this task generates answers: run it without --force_simple (DroppedVLM); with it "
            "(ScoringVLM) only tasks of output type multiple_choice or loglikelihood run"
        )
