"""Decisions of the vision strategies on the images of an encoder call, one image at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mustdrop.engine.vision_view import EncoderState, ImageView
from mustdrop.reduction import Reduction, changing, settled
from mustdrop.strategy import KeyTokenStrategy, Place, VisionStrategy


@dataclass(eq=False, kw_only=True)
class ImageDecisions(EncoderState):
    """Lets the vision strategies decide, and applies decisions to the state of the images.

    Attributes:
        vision: Strategy of stage 1.
        key_tokens: Strategy of stage 1b.
        weighted: Whether later blocks add the log sizes of tokens to their attention scores.
    """

    vision: VisionStrategy | None
    key_tokens: KeyTokenStrategy | None
    weighted: bool = False

    def decide(
        self, location: Place, hidden: Sequence[Float[Tensor, "_ c"]]
    ) -> list[Reduction | None]:
        """Let the strategy decide for each image of the batch, and apply it to the images' state.

        Args:
            location: Place of the decision.
            hidden: States of each image's tokens there.

        Returns:
            The decision on each image; None: its tokens stay as they are.
        """
        assert self.vision is not None
        views = [ImageView(self, number, location, hidden) for number in range(len(hidden))]
        begun = [
            # the model's packing may have cut all tokens of a crop away
            self.vision.begin(view) if len(view.cells) else Reduction(view.cells)
            for view in views
        ]
        decisions = settled(begun)
        changed = changing(decisions, [len(image) for image in self.batch])
        for image, decision, changes in zip(self.batch, decisions, changed, strict=True):
            if changes:
                image.apply(location, decision)
                weighs = self.vision.proportional_attention and decision.sizes is not None
                self.weighted |= weighs
        return [part if changes else None for part, changes in zip(decisions, changed, strict=True)]

    def mark(self, location: Place, hidden: Sequence[Float[Tensor, "_ c"]]) -> None:
        """Mark the key tokens among the tokens that all of stage 1 has kept."""
        if self.key_tokens is None:
            return
        for number, image in enumerate(self.batch):
            if len(image):  # otherwise stage 1 has kept nothing to mark
                image.protected = self.key_tokens.protect(ImageView(self, number, location, hidden))
