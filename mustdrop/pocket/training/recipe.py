"""The training recipe as plain values, checked when it is made. Knows no tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mustdrop.pocket.dataset import SPLITS, TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.scenes import GRID, MAX_OBJECTS


@dataclass(frozen=True)
class Stage:
    """One leg of the training, with an optimizer of its own.

    Attributes:
        steps: Optimizer steps.
        images: Images a step.
        questions: Questions an image; 0 trains the encoder alone.
        objects: Fewest and most a scene.
        tokens: Vision tokens the model sees of the 576, objects first; a step draws one count.
        lr: Peak learning rate.
        lr_end: Share of the peak at the end of a cosine.
        warmup: Steps of linear warm-up.
        weight_decay: Of matrices; none of embeddings, norms and biases.
        vision_lr: The encoder's learning rate as a share of ``lr``.
        dense: Weight of the encoder's labels.
        early: Weight of the answer read at the probe layer.
        grounding: Weight of finding, at the probe layer, what a noun refers to.
        compact: Share of the steps in which the tokens kept are counted anew, as they are behind an
            encoder that dropped the others; else each keeps its own position.
        closed: Decoder layers in which the questions do not see the image. What is closed in the
            early layers has to be read in the later ones, and stays so when they are opened.
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
            raise ValueError(f"objects must be two of 1 to {MAX_OBJECTS}, got {self.objects}")
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
    """All that decides the weights.

    Attributes:
        architecture: Arguments of ``mustdrop.pocket.config``.
        stages: By name, in order.
        probe_layer: Decoder layer whose output ``early`` and ``grounding`` read.
        question_weights: How often each question type is asked, relative to the others.
        seed: Of weights and data.
        betas: AdamW's.
        eps: AdamW's.
        clip: Largest norm of the gradient.
        save_every: Steps between two saved states; has no part in the weights.
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
            raise ValueError(f"seed must not be a held-out one {sorted(held_out)}, got {self.seed}")
        if not self.stages:
            raise ValueError("stages must name one stage at least, got none")
        if set(self.question_weights) != set(QUESTION_TYPES):
            expected = ", ".join(QUESTION_TYPES)
            raise ValueError(
                f"question_weights must be for {expected}, got {', '.join(self.question_weights)}"
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
        """The same way through at a walk: a few steps a stage, two images, two questions."""
        stages = {
            name: replace(stage, steps=steps, images=2, questions=min(stage.questions, 2), warmup=1)
            for name, stage in self.stages.items()
        }
        return replace(self, stages=stages, save_every=1)
