"""PocketSmol's training recipe: plain values, checked on construction. Knows no tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mustdrop.pocket.dataset import LONG_SPLITS, SPLITS, TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.long_questions import FEWEST_ITEMS, LONG_TYPES, MOST_ITEMS
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.scenes import GRID, MAX_OBJECTS

TYPES = (*QUESTION_TYPES, *LONG_TYPES)


@dataclass(frozen=True)
class SmolStage:
    """One stage of the training; LoRA and connector keep their optimizer from stage to stage.

    Attributes:
        steps: Number of optimizer steps.
        images: Number of images per step; half as many in a step with all 576 tokens.
        questions: Number of questions per image; 0 trains the connector alone, on patch labels.
        objects: Least and largest number of objects per scene.
        tokens: Numbers of vision tokens given to the language model, objects first; each step
            draws one of them.
        lr: Learning rate at the start, after the warm-up.
        lr_end: Learning rate at the end of the stage; between the two it is a half cosine.
        warmup: Number of steps of linear warm-up.
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
    """

    steps: int
    images: int
    questions: int
    objects: Sequence[int]
    tokens: Sequence[int]
    lr: float
    lr_end: float
    warmup: int
    question_weights: Mapping[str, float] = field(default_factory=dict)
    long: float = 0.0
    long_images: int = 0
    long_questions: int = 0
    fewest_items: int = FEWEST_ITEMS
    grounding: float = 0.0
    compact: float = 0.0
    axes: float = 1.0

    def __post_init__(self):
        for name in ("objects", "tokens"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, least in (
            ("steps", 1), ("images", 1), ("questions", 0), ("warmup", 1),
            ("lr", 0), ("lr_end", 0), ("grounding", 0), ("axes", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS:
            raise ValueError(
                f"objects must be two ascending numbers in [1, {MAX_OBJECTS}], got {self.objects}"
            )
        if not self.tokens or not all(1 <= tokens <= GRID**2 for tokens in self.tokens):
            raise ValueError(f"tokens must be counts in [1, {GRID**2}], got {self.tokens}")
        for name in ("long", "compact"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")
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

    @property
    def fewest_most(self) -> tuple[int, int]:
        return self.objects[0], self.objects[1]


@dataclass(frozen=True)
class SmolRecipe:
    """All values that the trained weights depend on.

    Attributes:
        stages: Stages by name, in the order of training.
        rank: Rank of the LoRA weights.
        probe_layer: Decoder layer whose output the loss of an object's centre reads.
        seed: Seed of weights and data.
        weight_decay: Weight decay of matrices.
        betas: Betas of AdamW.
        clip: Largest norm of the gradient.
        threads: Number of threads; with another number sums have another order.
        save_every: Number of steps between two saved states; it does not affect the weights.
        start_weights: Folder of exported weights from which a new training starts; None starts anew.
        start_stage: Stage with which it then begins; None is the first.
    """

    stages: Mapping[str, SmolStage]
    rank: int = 16
    probe_layer: int = 20
    seed: int = TRAINING_SEED
    weight_decay: float = 0.01
    betas: Sequence[float] = field(default=(0.9, 0.98))
    clip: float = 1.0
    threads: int = 2
    save_every: int = 20
    start_weights: str | None = None
    start_stage: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))
        splits = (*SPLITS.values(), *LONG_SPLITS.values())
        held_out = {VALIDATION_SEED, *(split.seed for split in splits)}
        if self.seed in held_out:
            raise ValueError(
                f"seed must not be one of the held-out seeds {sorted(held_out)}, got {self.seed}"
            )
        if not self.stages:
            raise ValueError("stages must have at least one stage, got none")
        for name in ("rank", "threads", "save_every"):
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

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages.values())

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
