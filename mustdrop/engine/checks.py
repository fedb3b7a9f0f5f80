"""Checks of decisions on the device, read once when the prefill is over.

A strategy promises to keep the key tokens and to name no token twice. Reading each answer at once
would make the host wait at every drop.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(eq=False)
class DecisionChecks:
    """Decisions of a prefill that are to be checked.

    Attributes:
        pending: Per decision, who made it and where, and two counts: key tokens that it drops,
            tokens that it keeps twice.
    """

    pending: list[tuple[str, Int[Tensor, " 2"]]] = field(default_factory=list)

    def add(
        self, where: str, keep: Int[Tensor, " after"], protected: Bool[Tensor, " before"]
    ) -> None:
        """Note a decision on ``before`` tokens."""
        kept = torch.zeros_like(protected).index_fill_(0, keep.to(protected.device), True)
        lost = (protected & ~kept).sum()
        self.pending.append((where, torch.stack([lost, len(keep) - kept.sum()])))

    def require(self) -> None:
        """Read the answers; the device is asked once.

        Raises:
            ValueError: If a key token was dropped, or a token kept twice.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        counts = torch.stack([count.to(pending[0][1].device) for _, count in pending]).tolist()
        for (where, _), (lost, twice) in zip(pending, counts, strict=True):
            if lost:
                raise ValueError(
                    f"{where} dropped {lost} key tokens; a strategy must keep all tokens of "
                    "view.protected"
                )
            if twice:
                raise ValueError(
                    f"{where} kept {twice} tokens more than once; keep names each token once"
                )
