"""Log-likelihoods of given continuations of a prompt, as in multiple choice. Knows no benchmark.

The prompt is prefilled once, so its own last token and text decide which vision tokens stay, as in
generation. Each continuation is then computed on the cut cache and removed from it again. A forward
over prompt and continuation would select by the continuation's rows, too: another selection for
each continuation, and none of them that of generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mustdrop.engine.exclusive import is_attached
from mustdrop.models import adapter_for


@dataclass(frozen=True, eq=False)
class ContinuationScore:
    """Score of one continuation.

    Attributes:
        logprobs: Log-probability of each token after the prompt and the tokens before it.
        greedy: Whether greedy decoding would choose these tokens.
    """

    logprobs: Float[Tensor, " tokens"]
    greedy: bool

    @property
    def total(self) -> float:
        """Log-likelihood of the continuation."""
        return float(self.logprobs.sum())

    @property
    def mean(self) -> float:
        """Log-likelihood per token."""
        return float(self.logprobs.mean())


@torch.inference_mode()
def loglikelihood(
    model: nn.Module,
    inputs: Mapping[str, Any],
    continuations: Sequence[Sequence[Sequence[int]]],
) -> list[list[ContinuationScore]]:
    """Score continuations of each prompt while a dropper is attached.

    Args:
        model: Model with an attached dropper; ``TokenDropper()`` drops nothing.
        inputs: Output of the processor for the prompts, padded on the left.
        continuations: Token ids of each prompt's continuations; prompts may have several, of any
            lengths.

    Returns:
        Score of each continuation of each prompt.

    Raises:
        ValueError: If no dropper is attached, or a continuation is empty or has a vision token.
    """
    adapter = adapter_for(model)
    model = adapter.model
    if not is_attached(model):
        raise ValueError(
            "loglikelihood needs an attached dropper: call it inside dropper.attach(model); "
            "TokenDropper() drops nothing"
        )
    prompts = len(inputs["input_ids"])
    _require_text(continuations, prompts, set(adapter.visual_inputs({})))
    out = model(**inputs, logits_to_keep=1, use_cache=True)
    cache, first = out.past_key_values, out.logits[:, -1:]
    scores: list[list[ContinuationScore]] = [[] for _ in range(prompts)]
    for number in range(max(map(len, continuations))):
        batch = [rows[min(number, len(rows) - 1)] for rows in continuations]
        tokens = _padded(batch).to(first.device)
        logits, read = first, tokens[:, :-1]
        if read.shape[1]:
            mask = torch.cat([_mask(inputs), torch.ones_like(read)], 1)
            later = model(input_ids=read, attention_mask=mask, past_key_values=cache).logits
            logits = torch.cat([first, later], 1)
            cache.crop(-read.shape[1])
        chosen = logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        greedy = logits.argmax(-1) == tokens
        for prompt, row in enumerate(batch):
            if number < len(continuations[prompt]):
                length = len(row)
                agrees = bool(greedy[prompt, :length].all())
                scores[prompt].append(ContinuationScore(chosen[prompt, :length], agrees))
    return scores


def _require_text(
    continuations: Sequence[Sequence[Sequence[int]]], prompts: int, vision: set[int]
) -> None:
    if len(continuations) != prompts:
        raise ValueError(
            f"continuations must be given for {prompts} prompts, got {len(continuations)}"
        )
    for prompt, rows in enumerate(continuations):
        if not rows or not all(map(len, rows)):
            raise ValueError(f"prompt {prompt}: continuations must have one token or more each")
        if any(vision.intersection(row) for row in rows):
            raise ValueError(f"prompt {prompt}: a continuation has a vision token; it must be text")


def _padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch longest"]:
    """Rows padded on the right by their last token; no token before them reads the padding."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])


def _mask(inputs: Mapping[str, Any]) -> Int[Tensor, "batch seq"]:
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask
