"""PocketSmol's training recipe: plain values, checked on construction. Knows no tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mustdrop.pocket.long_questions import FEWEST_ITEMS, LONG_TYPES, MOST_ITEMS
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.staged_recipe import StagedRecipe, StagedStage

TYPES = (*QUESTION_TYPES, *LONG_TYPES)


@dataclass(frozen=True)
class SmolStage(StagedStage):
    """One stage of the training; LoRA and connector keep their optimizer from stage to stage.

    Without questions the connector alone is trained, on patch labels. A step with all 576 tokens
    has half as many images.

    Attributes:
        question_weights: Relative frequency of each question type.
        long: Share of the steps with long answers.
        long_images: Number of images in a step with long answers.
        long_questions: Number of questions per image in a step with long answers.
        fewest_items: Least number of items of a long answer.
        grounding: Weight of the loss of an object's centre, read behind the words that name it.
        compact: Share of the steps in which the kept tokens are renumbered, as behind an encoder
            that dropped the others; in the other steps they have their original positions.
        axes: Length of the axes of an object's centre, among the word embeddings that the connector
            learns in a stage without questions.
        marks: Share of the word "object" in the patch at an object's centre, likewise.
    """

    question_weights: Mapping[str, float] = field(default_factory=dict)
    long: float = 0.0
    long_images: int = 0
    long_questions: int = 0
    fewest_items: int = FEWEST_ITEMS
    grounding: float = 0.0
    compact: float = 0.0
    axes: float = 1.0
    marks: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._require_least(grounding=0, axes=0, marks=0)
        self._require_shares("long", "compact")
        if self.long and min(self.long_images, self.long_questions) < 1:
            raise ValueError(
                "long_images and long_questions must be >= 1 where long is above 0,"
                f" got {self.long_images} and {self.long_questions}"
            )
        if not 1 <= self.fewest_items <= MOST_ITEMS:
            raise ValueError(f"fewest_items must be in [1, {MOST_ITEMS}], got {self.fewest_items}")
        if self.questions and set(self.question_weights) != set(TYPES):
            raise ValueError(
                f"question_weights must have the keys {', '.join(TYPES)}, "
                f"got {', '.join(self.question_weights)}"
            )


@dataclass(frozen=True, kw_only=True)
class SmolRecipe(StagedRecipe[SmolStage]):
    """All values that the trained weights depend on.

    Attributes:
        rank: Rank of the LoRA weights.
        weight_decay: Weight decay of matrices.
        threads: Number of threads; with another number sums have another order.
        start_weights: Folder of exported weights with which a new training starts, or None.
        start_stage: Stage with which it then begins; None is the first.
    """

    rank: int = 16
    probe_layer: int = 20
    weight_decay: float = 0.01
    threads: int = 2
    save_every: int = 20
    start_weights: str | None = None
    start_stage: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("rank", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.start_stage is not None and self.start_stage not in self.stages:
            raise ValueError(
                f"start_stage must be one of {', '.join(self.stages)}, got {self.start_stage!r}"
            )
        if self.start_stage is not None and self.start_weights is None:
            raise ValueError("start_stage needs start_weights, got none")

    @property
    def first(self) -> int:
        """Index of the stage with which a new training begins."""
        return list(self.stages).index(self.start_stage) if self.start_stage else 0

    def smoke(self, steps: int = 3) -> "SmolRecipe":
        """Copy with all stages but little work: a few steps, one image, two questions."""
        stages = {
            name: replace(
                stage, steps=steps, images=1, questions=min(stage.questions, 2), warmup=1,
                long_images=min(stage.long_images, 1), long_questions=min(stage.long_questions, 1),
            )
            for name, stage in self.stages.items()
        }  # fmt: skip
        return replace(self, stages=stages, save_every=1)
