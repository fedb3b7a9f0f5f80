"""What the recipes of all embedded models have: plain values, checked on construction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mustdrop.pocket.dataset import LONG_SPLITS, SPLITS, TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.scenes import GRID, MAX_OBJECTS


@dataclass(frozen=True)
class StagedStage:
    """Values that a stage of any training has.

    Attributes:
        steps: Number of optimizer steps.
        images: Number of images per step.
        questions: Number of questions per image; 0 trains without the language model.
        objects: Least and largest number of objects per scene.
        tokens: Numbers of vision tokens given to the language model, of 576, objects first; each
            step draws one of them.
        lr: Largest learning rate.
        lr_end: Learning rate at the end of the stage; between the two it is a half cosine.
        warmup: Number of steps of linear warm-up.
    """

    steps: int
    images: int
    questions: int
    objects: Sequence[int]
    tokens: Sequence[int]
    lr: float
    lr_end: float
    warmup: int

    def __post_init__(self):
        for name in ("objects", "tokens"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._require_least(steps=1, images=1, questions=0, warmup=1, lr=0, lr_end=0)
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1] <= MAX_OBJECTS:
            raise ValueError(
                f"objects must be two ascending numbers in [1, {MAX_OBJECTS}], got {self.objects}"
            )
        if not self.tokens or not all(1 <= tokens <= GRID**2 for tokens in self.tokens):
            raise ValueError(f"tokens must be counts in [1, {GRID**2}], got {self.tokens}")

    @property
    def fewest_most(self) -> tuple[int, int]:
        return self.objects[0], self.objects[1]

    def _require_least(self, **least: int) -> None:
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be >= {value}, got {getattr(self, name)}")

    def _require_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")


StageT = TypeVar("StageT", bound=StagedStage)


@dataclass(frozen=True, kw_only=True)
class StagedRecipe(Generic[StageT]):
    """Values that the recipe of any training has.

    Attributes:
        stages: Stages by name, in the order of training.
        probe_layer: Decoder layer whose output the auxiliary losses read.
        seed: Seed of weights and data.
        betas: Betas of AdamW.
        clip: Largest norm of the gradient.
        save_every: Number of steps between two saved states; it does not affect the weights.
    """

    stages: Mapping[str, StageT]
    probe_layer: int
    seed: int = TRAINING_SEED
    betas: Sequence[float] = (0.9, 0.98)
    clip: float = 1.0
    save_every: int = 200

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
        if self.save_every < 1:
            raise ValueError(f"save_every must be >= 1, got {self.save_every}")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages.values())
