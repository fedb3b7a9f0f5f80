"""PocketLLaVA's training recipe: plain values, checked on construction. Knows no tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.staged_recipe import StagedRecipe, StagedStage


@dataclass(frozen=True)
class Stage(StagedStage):
    """One stage of the training, with a fresh optimizer.

    Without questions only the encoder is trained. ``lr_end`` is a share of ``lr``.

    Attributes:
        weight_decay: Weight decay of matrices; embeddings, norms and biases have none.
        vision_lr: Learning rate of the encoder, as a share of ``lr``.
        dense: Weight of the loss of the encoder's labels.
        early: Weight of the loss of the answer read at the probe layer.
        grounding: Weight of the loss of a noun's object position read at the probe layer.
        compact: Share of the steps in which the kept tokens are renumbered, as behind an encoder
            that dropped the others; in the other steps they have their original positions.
        closed: Decoder layers in which the questions do not attend to the image. With early layers
            closed, the model learns to read the image in later layers, and still does so when the
            early layers are opened.
    """

    weight_decay: float
    vision_lr: float = 1.0
    dense: float = 1.0
    early: float = 0.0
    grounding: float = 0.0
    compact: float = 0.0
    closed: Sequence[int] = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "closed", tuple(self.closed))
        self._require_least(weight_decay=0, vision_lr=0, dense=0, early=0, grounding=0)
        self._require_shares("compact")


@dataclass(frozen=True, kw_only=True)
class Recipe(StagedRecipe[Stage]):
    """All values that the trained weights depend on.

    Attributes:
        architecture: Arguments of ``mustdrop.pocket.config``.
        question_weights: Relative frequency of each question type.
        eps: Epsilon of AdamW.
    """

    architecture: Mapping[str, int]
    question_weights: Mapping[str, float]
    eps: float = 1e-9

    def __post_init__(self):
        super().__post_init__()
        if set(self.question_weights) != set(QUESTION_TYPES):
            expected = ", ".join(QUESTION_TYPES)
            raise ValueError(
                f"question_weights must have the keys {expected}, "
                f"got {', '.join(self.question_weights)}"
            )
        layers = self.architecture.get("layers", 12)
        for name, stage in self.stages.items():
            if not all(0 <= layer < layers for layer in stage.closed):
                raise ValueError(
                    f"closed must be layers in [0, {layers}), got {stage.closed} in stage {name}"
                )

    def smoke(self, steps: int = 3) -> "Recipe":
        """Copy with all stages but little work: a few steps each, two images, two questions."""
        stages = {
            name: replace(stage, steps=steps, images=2, questions=min(stage.questions, 2), warmup=1)
            for name, stage in self.stages.items()
        }
        return replace(self, stages=stages, save_every=1)
