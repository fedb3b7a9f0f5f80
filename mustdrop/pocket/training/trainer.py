"""Training of PocketLLaVA: encoder, projector and language model, all from random weights."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from mustdrop.pocket.dataset import VALIDATION_SEED
from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.model import build_model, build_processor, config
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.scenes import GRID
from mustdrop.pocket.training.batches import Batch, Batches
from mustdrop.pocket.training.losses import Probes, objective
from mustdrop.pocket.training.packing import answers
from mustdrop.pocket.training.recipe import Recipe, Stage
from mustdrop.pocket.training.staged import StagedTraining
from mustdrop.pocket.training.team import ALONE, Team

MAX_BYTES = 8_000_000  # limit of the exported weights, which are part of the package


class Training(StagedTraining[Stage]):
    """A training whose state is in a folder; a new one on the same folder resumes from that state.

    Args:
        recipe: All values that the weights depend on.
        folder: Folder of the state.
        device: Device on which the model is trained.
        workers: Number of processes that draw the batches; it does not affect the weights.
        team: This process among those that train together. Their number affects the weights, as
            each process normalises the loss over its share of a step.

    Raises:
        ValueError: If the folder's state is of another recipe. Stages that had not begun may
            differ, so that later stages of a run can be changed.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: str = "cpu",
        workers: int = 1,
        team: Team = ALONE,
    ):
        super().__init__(recipe, folder, team)
        architecture = config(**recipe.architecture)
        self.recipe, self.workers = recipe, workers
        self.device = torch.device(device)
        self.model = build_model(architecture, recipe.seed)
        layers = len(self.model.model.language_model.layers)
        if not 0 <= recipe.probe_layer < layers - 1:
            raise ValueError(
                f"probe_layer must be in [0, {layers - 1}), before the last layer,"
                f" got {recipe.probe_layer}"
            )
        # On the CPU the plain softmax is faster than the fused kernel, forward and backward.
        self.model.set_attn_implementation("eager" if self.device.type == "cpu" else "sdpa")
        projector = self.model.model.multi_modal_projector
        vision_hidden, hidden = projector.linear_1.in_features, projector.linear_2.out_features
        self.probes = Probes(vision_hidden, hidden, recipe.seed)
        nn.ModuleList([self.model, self.probes]).to(self.device)
        state = self._read_state(self.device)
        self.optimizer = self._optimizer()
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.probes.load_state_dict(state["probes"])
            self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, Score]:
        """Count right answers by question type, on scenes of no split, with all 576 tokens.

        Scenes have as many objects as in the last stage; layers are closed as in the current stage.
        """
        stage, (_, last) = self._stage(), self.stages[-1]
        data = Batches(
            seed=VALIDATION_SEED,
            stage=0,
            steps=batches,
            images=8,
            questions=8,
            objects=last.fewest_most,
            tokens=(GRID**2,),
            compact=0.0,
            question_weights=self.recipe.question_weights,
        )
        hits, types = [], []
        for step in range(batches):
            batch = data[step].to(self.device)
            questions = batch.questions, batch.ends
            logits = answers(self.model, batch.pixels, batch.kept, *questions, stage.closed)
            hits.append((logits.argmax(-1) == batch.answers).flatten())
            types.append(batch.types.flatten())
        hit, type = torch.cat(hits), torch.cat(types)
        by_type = {name: hit[type == i] for i, name in enumerate(QUESTION_TYPES)}
        return {name: Score(int(hit.sum()), len(hit)) for name, hit in by_type.items() if len(hit)}

    def export(self, folder: Path) -> None:
        """Write model and processor in Hugging Face format, weights in bfloat16.

        Raises:
            ValueError: If the weights are larger than MAX_BYTES.
        """
        model = copy.deepcopy(self.model).cpu().bfloat16()
        size = sum(2 * parameter.numel() for parameter in model.parameters())
        if size > MAX_BYTES:
            raise ValueError(f"weights must be at most {MAX_BYTES} bytes, got {size}")
        model.save_pretrained(folder)
        build_processor().save_pretrained(folder)

    def _stage(self) -> Stage:
        """The current stage; the last one after the training's end."""
        return self.stages[min(self.stage_index, len(self.stages) - 1)][1]

    def _steps(self, stage: Stage) -> Iterator[tuple[float, float | None]]:
        data = Batches(
            seed=self.recipe.seed,
            stage=self.stage_index,
            steps=stage.steps,
            images=stage.images,
            questions=stage.questions,
            objects=stage.fewest_most,
            tokens=stage.tokens,
            compact=stage.compact,
            question_weights=self.recipe.question_weights,
            team=self.team,
        )
        # Batches depend on their step only, so prefetching by workers cannot change them.
        order = range(self.step, stage.steps)
        for batch in DataLoader(data, None, sampler=order, num_workers=self.workers):
            yield self._train(stage, batch.to(self.device))

    def _train(self, stage: Stage, batch: Batch) -> tuple[float, float | None]:
        warm, cosine = self._schedule(stage)
        share = warm * (stage.lr_end + (1 - stage.lr_end) * cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.lr * group["share"] * share
        loss, right = objective(self.model, self.probes, batch, stage, self.recipe.probe_layer)
        self._update(loss)
        return loss.item(), None if right is None else right.float().mean().item()

    def _end_stage(self) -> None:
        self.optimizer = self._optimizer()

    def _weights(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "probes": self.probes.state_dict()}

    def _optimizer(self) -> torch.optim.AdamW:
        """Create a fresh optimizer of all parameters; those without a gradient stay unchanged."""
        stage = self._stage()
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in (*self.model.named_parameters(), *self.probes.named_parameters()):
            vision = "vision_tower" in name
            decays = parameter.dim() >= 2 and "embed" not in name
            groups.setdefault((vision, decays), []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": stage.weight_decay * decays,
                    "share": stage.vision_lr if vision else 1.0,
                }
                for (vision, decays), parameters in groups.items()
            ],
            betas=(self.recipe.betas[0], self.recipe.betas[1]),
            eps=self.recipe.eps,
        )
