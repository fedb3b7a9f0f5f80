"""Log-probabilities of the tokens that ``generate`` chooses, from the same call.

Knows nothing about dropping, tasks and files.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

DIGITS = 6  # of a log-probability in a record; batches change float32 by less than its last one


class TokenLogprobs(LogitsProcessor):
    """Gathers the log-probability of each new token; it changes no score.

    A step sees the tokens that the step before chose. So the scores of one step are held at a time,
    and nothing waits for the device. The probabilities are those of the scores that greedy decoding
    compares, before temperature, top-p and top-k. Beams are not supported: they change rows.
    """

    def __init__(self) -> None:
        self._scores: Tensor | None = None
        self._steps: list[Tensor] = []

    def __call__(
        self, input_ids: Int[Tensor, "batch seq"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        self._gather(input_ids[:, -1])
        self._scores = scores
        return scores

    def of(self, tokens: Int[Tensor, "batch new"]) -> Float[Tensor, "batch new"]:
        """Log-probability of each new token; after the end of an answer they mean nothing.

        Args:
            tokens: The new tokens that ``generate`` returned.
        """
        # Usually no step has seen the last token; some devices make one step more, whose token
        # generate leaves out.
        if len(self._steps) < tokens.shape[1]:
            self._gather(tokens[:, -1])
        return torch.stack(self._steps, 1)

    def _gather(self, chosen: Int[Tensor, " batch"]) -> None:
        if self._scores is not None:
            logprobs = self._scores.float().log_softmax(-1)
            self._steps.append(logprobs.gather(1, chosen[:, None].to(logprobs.device))[:, 0])


def recorded(logprobs: Float[Tensor, " tokens"]) -> list[float]:
    """Log-probabilities as a record has them."""
    return [round(value, DIGITS) for value in logprobs.tolist()]
