"""Checks whose answers stay on the device until the prefill is over, when all are read at once.

Reading each answer where it arises would make the host wait at every drop.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(eq=False)
class DeferredChecks:
    """Counts that must be zero.

    Attributes:
        pending: Per check, the message of its failure, with ``{count}`` in it, and the count.
    """

    pending: list[tuple[str, Int[Tensor, ""]]] = field(default_factory=list)

    def decision(
        self, where: str, keep: Int[Tensor, " after"], protected: Bool[Tensor, " before"]
    ) -> None:
        """Check that a decision keeps all key tokens, and no token twice.

        Args:
            where: Who decided, and where.
            keep: Tokens that stay, out of ``before``.
            protected: Whether a token is a key token.
        """
        kept = torch.zeros_like(protected).index_fill_(0, keep.to(protected.device), True)
        self.pending += [
            (
                f"{where} dropped {{count}} key tokens; a strategy must keep all tokens of "
                "view.protected",
                (protected & ~kept).sum(),
            ),
            (
                f"{where} kept {{count}} tokens more than once; a reduction names each token once",
                len(keep) - kept.sum(),
            ),
        ]

    def equal(self, message: str, found: Tensor, expected: Tensor) -> None:
        """Check that two tensors are equal."""
        self.pending.append((message, (found != expected).sum()))

    def require(self) -> None:
        """Read the counts; the device is asked once.

        Raises:
            ValueError: With the message of the first check that failed.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        device = pending[0][1].device
        counts = torch.stack([count.to(device) for _, count in pending]).tolist()
        for (message, _), count in zip(pending, counts, strict=True):
            if count:
                raise ValueError(message.format(count=count))
