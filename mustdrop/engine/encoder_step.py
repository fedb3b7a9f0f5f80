"""Step: the decisions on the images of an encoder call at one location, applied to their states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mustdrop.engine.encoder_layout import EncoderLayout
from mustdrop.reduction import Reduction


@dataclass(frozen=True, eq=False)
class Step:
    """Decisions on a batch of images at one location, to be applied to their states.

    Attributes:
        before: Layout before the decisions.
        after: Layout after them.
        decisions: Decision on each image; None: its tokens stay as they are.
    """

    before: EncoderLayout
    after: EncoderLayout
    decisions: Sequence[Reduction | None]

    def shorten(
        self, hidden: Float[Tensor, "b before c"], cls: Float[Tensor, "b c"] | None
    ) -> Float[Tensor, "b after c"]:
        """Survivors of the patch tokens, padded on the right where images differ in length."""
        rows = []
        for number, (length, decision) in enumerate(
            zip(self.before.lengths, self.decisions, strict=True)
        ):
            tokens = hidden[number, :length]
            if decision is not None:
                self.before.images[number].count_macs(decision.macs(tokens.shape[1]))
                tokens = decision(tokens, None if cls is None else cls[number])
            rows.append(tokens)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def lengthen(self, short: Float[Tensor, "b after c"]) -> Float[Tensor, "b before c"]:
        """States of the survivors, copied to all tokens that they stand for; zeros elsewhere.

        Raises:
            ValueError: If a token may go into several survivors.
        """
        batch, after, dim = short.shape
        longest = max(self.before.lengths)
        back = torch.full((batch, longest), after, device=short.device)
        for row, length, decision in zip(back, self.before.lengths, self.decisions, strict=True):
            if decision is None:
                row[:length] = torch.arange(length, device=short.device)
            elif not decision.mixes:
                row[decision.keep] = torch.arange(len(decision), device=short.device)
            elif decision.group is not None:
                row[:length] = decision.group
            else:
                used = decision.weights(length) != 0
                if bool((used.sum(0) > 1).any()):
                    raise ValueError(
                        "inside a block a token can be merged into one survivor only, but the "
                        "strategy splits tokens between several"
                    )
                row[:length] = used.to(torch.uint8).argmax(0).masked_fill(~used.any(0), after)
        padded = torch.cat([short, short.new_zeros(batch, 1, dim)], 1)
        return padded.gather(1, back[..., None].expand(-1, -1, dim))
