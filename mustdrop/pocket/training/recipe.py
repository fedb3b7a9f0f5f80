"""The training recipe: plain values, checked on construction. Knows no tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mustdrop.pocket.dataset import SPLITS, TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.scenes import GRID, MAX_OBJECTS


@dataclass(frozen=True)
class Stage:
    """One stage of the training, with a fresh optimizer.

    Attributes:
        steps: Number of optimizer steps.
        images: Number of images per step.
        questions: Number of questions per image; 0 trains only the encoder.
        objects: Least and largest number of objects per scene.
        tokens: Numbers of vision tokens given to the model, of 576, objects first; each step draws
            one of them.
        lr: Peak learning rate.
        lr_end: Learning rate at the end of the cosine, as a share of the peak.
        warmup: Number of steps of linear warm-up.
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

    steps: int
    images: int
    questions: int
    objects: Sequence[int]
    tokens: Sequence[int]
    lr: float
    lr_end: float
    warmup: int
    weight_decay: float
    vision_lr: float = 1.0
    dense: float = 1.0
    early: float = 0.0
    grounding: float = 0.0
    compact: float = 0.0
    closed: Sequence[int] = ()

    def __post_init__(self):
        for name in ("objects", "tokens", "closed"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, least in (("steps", 1), ("images", 1), ("questions", 0), ("warmup", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS:
            raise ValueError(
                f"objects must be two ascending numbers in [1, {MAX_OBJECTS}], got {self.objects}"
            )
        if not self.tokens or not all(1 <= tokens <= GRID**2 for tokens in self.tokens):
            raise ValueError(f"tokens must be counts in [1, {GRID**2}], got {self.tokens}")
        for name in ("lr", "lr_end", "weight_decay", "vision_lr", "dense", "early", "grounding"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.compact <= 1:
            raise ValueError(f"compact must be a share in [0, 1], got {self.compact}")

    @property
    def fewest_most(self) -> tuple[int, int]:
        return self.objects[0], self.objects[1]


@dataclass(frozen=True)
class Recipe:
    """All values that the trained weights depend on.

    Attributes:
        architecture: Arguments of ``mustdrop.pocket.config``.
        stages: Stages by name, in the order of training.
        probe_layer: Decoder layer whose output ``early`` and ``grounding`` read.
        question_weights: Relative frequency of each question type.
        seed: Seed of weights and data.
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
        clip: Largest norm of the gradient.
        save_every: Number of steps between two saved states; it does not affect the weights.
    """

    architecture: Mapping[str, int]
    stages: Mapping[str, Stage]
    probe_layer: int
    question_weights: Mapping[str, float]
    seed: int = TRAINING_SEED
    betas: Sequence[float] = field(default=(0.9, 0.98))
    eps: float = 1e-9
    clip: float = 1.0
    save_every: int = 200

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))
        held_out = {VALIDATION_SEED, *(split.seed for split in SPLITS.values())}
        if self.seed in held_out:
            raise ValueError(
                f"seed must not be one of the held-out seeds {sorted(held_out)}, got {self.seed}"
            )
        if not self.stages:
            raise ValueError("stages must have at least one stage, got none")
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
        if self.save_every < 1:
            raise ValueError(f"save_every must be >= 1, got {self.save_every}")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages.values())

    def smoke(self, steps: int = 3) -> "Recipe":
        """Copy with all stages but little work: a few steps each, two images, two questions."""
        stages = {
            name: replace(stage, steps=steps, images=2, questions=min(stage.questions, 2), warmup=1)
            for name, stage in self.stages.items()
        }
        return replace(self, stages=stages, save_every=1)
