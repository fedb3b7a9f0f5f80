"""A training in stages that can be stopped at any step and resumed. Knows no model and no data.

All random draws depend only on seed, stage and step, so there is no random state to save: the state
is weights, optimizer and step. On one machine a run that was killed and resumed ends with exactly
the same weights as an uninterrupted run. Prints nothing; ``run`` yields the progress.
"""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor

from mustdrop.pocket.training.staged_recipe import StagedRecipe, StageT
from mustdrop.pocket.training.team import ALONE, Team

STATE = "state.pt"


@dataclass(frozen=True)
class Progress:
    """Progress of a training after a step.

    Attributes:
        stage: Name of the stage.
        step: Number of steps done in the stage.
        done: Number of steps done in all.
        loss: Loss of the step; in a team, of this process's share of the step.
        right: Share of the step's questions answered correctly; None in a stage without questions.
    """

    stage: str
    step: int
    done: int
    loss: float
    right: float | None


class StagedTraining(ABC, Generic[StageT]):
    """A training whose state is in a folder; a new one on the same folder resumes from that state.

    Args:
        recipe: All values that the weights depend on.
        folder: Folder of the state.
        team: This process among those that train together.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, recipe: StagedRecipe[StageT], folder: Path, team: Team = ALONE):
        self.folder, self.team = folder, team
        self.stages = list(recipe.stages.items())
        self.stage_index, self.step = 0, 0
        self._recipe = recipe

    @property
    def done(self) -> int:
        """Number of steps done in all."""
        return sum(stage.steps for _, stage in self.stages[: self.stage_index]) + self.step

    def run(self) -> Iterator[Progress]:
        """Train to the end and yield after each step; save every ``save_every`` steps."""
        while self.stage_index < len(self.stages):
            name, stage = self.stages[self.stage_index]
            for loss, right in self._steps(stage):
                self.step += 1
                if self.step % self._recipe.save_every == 0 and self.step < stage.steps:
                    self.save()
                yield Progress(name, self.step, self.done, loss, right)
            self.stage_index, self.step = self.stage_index + 1, 0
            self._end_stage()
            self.save()

    def save(self) -> None:
        """Write the state to a new file and replace the old file by it; only the first process."""
        if self.team.rank:
            return
        state = {
            "recipe": self._fingerprint(),
            "number": self.stage_index,
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            **self._weights(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{STATE}.unfinished"
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.folder / STATE)

    @abstractmethod
    def _steps(self, stage: StageT) -> Iterator[tuple[float, float | None]]:
        """Train from ``self.step`` to the stage's end; yield each step's loss and share right."""

    @abstractmethod
    def _weights(self) -> dict[str, Any]:
        """Weights of the state, by name."""

    def _end_stage(self) -> None:
        """Prepare the next stage; ``stage_index`` is its index already."""

    def _schedule(self, stage: StageT) -> tuple[float, float]:
        """Warm-up from 0 to 1, and half a cosine from 1 to 0, at the current step."""
        warm = min(1.0, (self.step + 1) / stage.warmup)
        return warm, 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / stage.steps)))

    def _update(self, loss: Tensor) -> None:
        """Take one step of the optimizer.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step} of its stage")
        self.optimizer.zero_grad()
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.team.average(trained)
        torch.nn.utils.clip_grad_norm_(trained, self._recipe.clip)
        self.optimizer.step()

    def _read_state(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """Read the folder's state and set stage and step; None if there is no state.

        Raises:
            ValueError: If the state is of another recipe. Stages that had not begun may differ,
                so that later stages of a run can be changed.
        """
        if not (self.folder / STATE).is_file():
            return None
        state = torch.load(self.folder / STATE, map_location=device, weights_only=True)
        saved, current = json.loads(state["recipe"]), json.loads(self._fingerprint())
        begun = state["number"] + (state["step"] > 0)
        for recipe in (saved, current):
            recipe["stages"] = list(recipe["stages"].items())[:begun]
        differing = sorted(name for name in current if saved.get(name) != current[name])
        if differing:
            raise ValueError(
                f"{self.folder} holds a training that differs in {', '.join(differing)}:"
                " choose another folder, or remove it to start anew"
            )
        self.stage_index, self.step = state["number"], state["step"]
        return state

    def _fingerprint(self) -> str:
        values = asdict(self._recipe)
        del values["save_every"]
        return json.dumps(values)
