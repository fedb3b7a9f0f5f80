"""Step: the decisions on the images of an encoder call at one location, applied to their states.

Also the step that leaves out cells for which the model's packing has no slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mustdrop.engine.encoder_layout import EncoderLayout
from mustdrop.engine.prompt_vision import host_indices
from mustdrop.ledger import OFF_GRID
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

    def apply(self, states: Tensor, front: int, cls: Float[Tensor, "b _"] | None) -> Tensor:
        """States of a module after the decisions, with ``front`` tokens in front of each image."""
        ahead, tokens = self.before.split(states, front)
        return self.after.join(ahead, self.shorten(tokens, cls))

    def shorten(
        self, hidden: Float[Tensor, "b before c"], cls: Float[Tensor, "b _"] | None
    ) -> Float[Tensor, "b after c"]:
        """Survivors of the patch tokens, padded on the right where images differ in length.

        [CLS] is repeated for each patch of a token.
        """
        if cls is not None:
            cls = cls.repeat(1, hidden.shape[-1] // cls.shape[-1])
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


def packing_step(layout: EncoderLayout) -> Step | None:
    """Remove tokens that the model's packing will cut away, from the state of their images.

    No strategy then selects the padding of a crop, or counts it. This waits for the device once
    if an earlier decision was made on an image that has such cells.

    Returns:
        Step that removes the tokens from states; None: all have a slot.
    """
    holed = {
        number: image.image.slots != OFF_GRID
        for number, image in enumerate(layout.images)
        if (image.image.slots == OFF_GRID).any()
    }
    if not holed:
        return None
    decided = [number for number in holed if layout.images[number].reduction is not None]
    sizes = [len(layout.images[number]) for number in decided]
    cells = torch.cat([layout.cells[number] for number in decided]).cpu() if decided else None
    shown = dict(zip(decided, () if cells is None else cells.split(sizes), strict=True))
    left = [
        host_indices(has_slot[shown[number]] if number in shown else has_slot)
        for number, has_slot in holed.items()
    ]
    parts = torch.cat(left).to(layout.cells[0].device, non_blocking=True)
    decisions: list[Reduction | None] = [None] * len(layout.images)
    for number, part in zip(holed, parts.split([len(part) for part in left]), strict=True):
        layout.images[number].cut(part)
        decisions[number] = Reduction(part)
    return Step(layout, layout.now(), decisions)
