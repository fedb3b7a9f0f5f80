"""Checks whose results stay on the device until the prefill is over, and are then read together.

Reading each result immediately would make the host wait for the device at every drop.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(eq=False)
class DeferredChecks:
    """Counts that must be zero.

    Attributes:
        pending: Message of failure, with ``{count}`` in it, and count of each check.
    """

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

    def equal(self, message: str, actual: Tensor, expected: Tensor) -> None:
        """Check that two tensors are equal."""
        self.pending.append((message, (actual != expected).sum()))

    def require(self) -> None:
        """Read all counts, with one wait for the device.

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
