"""Checks whose results stay on the device until the prefill is over, and are then read together.

Reading each result immediately would make the host wait for the device at every drop.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class _Decision:
    """Arguments of :meth:`DeferredChecks.decision`."""

    where: str
    keep: Int[Tensor, " after"]
    protected: Bool[Tensor, " before"]


@dataclass(eq=False)
class DeferredChecks:
    """Checks of a prefill.

    Attributes:
        decisions: Decisions that must keep all key tokens, and no token twice.
        pending: Message of failure, with ``{count}`` in it, and count of each other check; a count
            must be zero.
    """

    decisions: list[_Decision] = field(default_factory=list)
    pending: list[tuple[str, Int[Tensor, ""]]] = field(default_factory=list)

    def decision(
        self, where: str, keep: Int[Tensor, " after"], protected: Bool[Tensor, " before"]
    ) -> None:
        """Check that a decision keeps all key tokens, and no token twice.

        Args:
            where: Name of the strategy and location of the decision, for the message.
            keep: Indices of the tokens that stay, out of ``before``.
            protected: Whether each token is a key token.
        """
        self.decisions.append(_Decision(where, keep.to(protected.device), protected))

    def equal(self, message: str, actual: Tensor, expected: Tensor) -> None:
        """Check that two tensors are equal."""
        self.pending.append((message, (actual != expected).sum()))

    def require(self) -> None:
        """Read all checks, with one wait for the device; more only if one of them failed.

        Raises:
            ValueError: With the message of the first check that failed.
        """
        pending, decisions = self.pending, self.decisions
        self.pending, self.decisions = [], []
        counts = [count for _, count in pending]
        if decisions:
            counts.append(_faults(decisions))
        if not counts:
            return
        numbers = torch.stack([count.to(counts[0].device) for count in counts]).tolist()
        for (message, _), number in zip(pending, numbers, strict=False):
            if number:
                raise ValueError(message.format(count=number))
        if decisions and numbers[-1]:
            for message, count in (part for decision in decisions for part in _counts(decision)):
                if number := int(count):
                    raise ValueError(message.format(count=number))


def _faults(decisions: Sequence[_Decision]) -> Int[Tensor, ""]:
    """Number of tokens over which decisions failed; computed for all decisions at a time."""
    starts = accumulate((len(decision.protected) for decision in decisions), initial=0)
    moved = [decision.keep + start for decision, start in zip(decisions, starts, strict=False)]
    keep, protected = torch.cat(moved), torch.cat([part.protected for part in decisions])
    kept = torch.zeros_like(protected).index_fill_(0, keep, True)
    return (protected & ~kept).sum() + len(keep) - kept.sum()


def _counts(decision: _Decision) -> list[tuple[str, Int[Tensor, ""]]]:
    """Message and count of both checks of one decision."""
    keep, protected = decision.keep, decision.protected
    kept = torch.zeros_like(protected).index_fill_(0, keep, True)
    return [
        (
            f"{decision.where} dropped {{count}} key tokens; a strategy must keep all tokens of "
            "view.protected",
            (protected & ~kept).sum(),
        ),
        (
            f"{decision.where} kept {{count}} tokens more than once; a reduction names each token "
            "once",
            len(keep) - kept.sum(),
        ),
    ]
