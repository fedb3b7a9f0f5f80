"""Training of PocketSmol: its connector, and LoRA weights of the language model."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mustdrop.pocket.dataset import VALIDATION_SEED
from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.long_questions import FEWEST_ITEMS
from mustdrop.pocket.model import load
from mustdrop.pocket.scenes import GRID
from mustdrop.pocket.smol.lora import LoRALinear, add_lora, load_lora, lora_weights
from mustdrop.pocket.smol.model import SMOL_WEIGHTS, assemble, split_weights
from mustdrop.pocket.training.smol.batches import SmolBatch, draw_batch
from mustdrop.pocket.training.smol.losses import (
    PatchWords,
    answer_logits,
    answer_loss,
    grounding_loss,
    vision_features,
)
from mustdrop.pocket.training.smol.recipe import TYPES, SmolRecipe, SmolStage
from mustdrop.pocket.training.smol.text import ChatText
from mustdrop.pocket.training.staged import StagedTraining

SMOL_MAX_BYTES = 16_000_000  # limit of the exported weights, which are part of the package

# Learning rates beside LoRA's, in stages with questions. Weights from a folder come without probe.
_CONNECTOR_SHARE, _PROBE_SHARE = 0.75, 4.0


class SmolTraining(StagedTraining[SmolStage]):
    """A training whose state is in a folder; a new one on the same folder resumes from that state.

    Args:
        recipe: All values that the weights depend on.
        folder: Folder of the state.

    Raises:
        ValueError: If the folder's state is of another recipe. Stages that had not begun may
            differ, so that later stages of a run can be changed.
        FileNotFoundError: If the folder of the recipe's start lacks weights.
    """

    def __init__(self, recipe: SmolRecipe, folder: Path):
        super().__init__(recipe, folder)
        torch.set_num_threads(recipe.threads)
        self.recipe = recipe
        pocket, _ = load()
        self.model, self.processor = assemble(pocket.model.vision_tower.state_dict())
        self.model.requires_grad_(False)
        language = self.model.model.language_model
        if not 0 <= recipe.probe_layer < len(language.layers):
            raise ValueError(
                f"probe_layer must be in [0, {len(language.layers)}), got {recipe.probe_layer}"
            )
        self.text = ChatText(self.processor)
        self.words = PatchWords(language.embed_tokens, self.text)
        self.connector = self.model.model.multi_modal_projector.requires_grad_(True)
        self.lora = add_lora(language.layers, recipe.rank, recipe.seed)
        for layer in language.layers.modules():
            if isinstance(layer, LoRALinear):
                layer.frozen.bfloat16()  # so that autocast need not convert it in every step
        self.probe = nn.Linear(language.config.hidden_size, 2)
        self._initialise()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.connector.parameters()), "share": _CONNECTOR_SHARE},
                {"params": self.lora, "share": 1.0},
                {"params": list(self.probe.parameters()), "share": _PROBE_SHARE},
            ],
            betas=(recipe.betas[0], recipe.betas[1]),
            weight_decay=recipe.weight_decay,
        )
        state = self._read_state()
        if state is not None:
            self._take_over(state)
        elif recipe.start_weights is not None:
            self.stage_index = recipe.first
            self._start_from(Path(recipe.start_weights))

    @torch.no_grad()
    def validate(
        self, long: bool, batches: int = 2, tokens: int = GRID**2, blind: bool = False
    ) -> dict[str, Score]:
        """Count right answers by type on crowded scenes of no split; the model is given the answer.

        Args:
            long: Whether to ask for long answers.
            batches: Number of batches of eight images.
            tokens: Number of vision tokens, objects first.
            blind: Whether each question gets another question's image.
        """
        stage = replace(
            self.stages[-1][1],
            images=16 if tokens == GRID**2 else 8, questions=8, objects=(10, 16),
            tokens=(tokens,), compact=0.0, long=float(long),
            long_images=16 if tokens == GRID**2 else 8, long_questions=2,
            fewest_items=FEWEST_ITEMS,
        )  # fmt: skip
        right: dict[str, list[bool]] = {}
        for step in range(batches):
            batch = draw_batch(VALIDATION_SEED, int(long), stage, step, self.text)
            if blind:
                batch = replace(batch, pixels=batch.pixels.roll(1, 0))
            logits, _ = answer_logits(self.model, batch, self.text.opening, self.recipe.probe_layer)
            hits = answer_loss(logits, batch)[1].flatten().tolist()
            for kind, hit in zip(batch.types.flatten().tolist(), hits, strict=True):
                right.setdefault(TYPES[kind], []).append(hit)
        return {kind: Score(sum(right[kind]), len(right[kind])) for kind in TYPES if kind in right}

    def export(self, folder: Path) -> None:
        """Write encoder, connector and LoRA weights in bfloat16, and the model's config.

        Raises:
            ValueError: If the weights are larger than SMOL_MAX_BYTES.
        """
        parts = {
            "vision_tower": self.model.model.vision_tower.state_dict(),
            "connector": self.connector.state_dict(),
            "lora": lora_weights(self.model.model.language_model.layers),
        }
        weights = {
            f"{part}.{name}": value.bfloat16().contiguous()
            for part, values in parts.items()
            for name, value in values.items()
        }
        size = sum(2 * value.numel() for value in weights.values())
        if size > SMOL_MAX_BYTES:
            raise ValueError(f"weights must be at most {SMOL_MAX_BYTES} bytes, got {size}")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / SMOL_WEIGHTS)
        self.model.config.save_pretrained(folder)

    def _steps(self, stage: SmolStage) -> Iterator[tuple[float, float | None]]:
        for step in range(self.step, stage.steps):
            batch = draw_batch(self.recipe.seed, self.stage_index, stage, step, self.text)
            yield self._train(stage, batch)

    def _train(self, stage: SmolStage, batch: SmolBatch) -> tuple[float, float | None]:
        warm, cosine = self._schedule(stage)
        rate = warm * (stage.lr_end + (stage.lr - stage.lr_end) * cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (group["share"] if stage.questions else 1.0)
        right = None
        if stage.questions:
            opening, layer = self.text.opening, self.recipe.probe_layer
            logits, hidden = answer_logits(self.model, batch, opening, layer)
            loss, hits = answer_loss(logits, batch)
            right = hits.float().mean().item()
            loss = loss + stage.grounding * grounding_loss(self.probe, hidden, batch)
        else:
            vision = self.connector(vision_features(self.model, batch))
            loss = self.words.loss(vision, batch, stage.axes, stage.marks)
        self._update(loss)
        return loss.item(), right

    def _initialise(self) -> None:
        """Initialise connector and probe from the seed; the connector normalises the features."""
        draws = torch.Generator().manual_seed(self.recipe.seed + 1)
        stage = next(iter(self.recipe.stages.values()))
        batch = draw_batch(self.recipe.seed, 0, replace(stage, images=8), 0, self.text)
        features = vision_features(self.model, batch).flatten(0, 1)
        first, second = self.connector.linear_1, self.connector.linear_2
        with torch.no_grad():
            for layer in (first, second, self.probe):
                layer.weight.normal_(std=layer.in_features**-0.5, generator=draws)
                layer.bias.zero_()
            first.weight /= features.std(0)
            first.bias.sub_(first.weight @ features.mean(0))

    def _start_from(self, folder: Path) -> None:
        """Take over connector and LoRA weights that were exported; optimizer and probe are new."""
        file = folder / SMOL_WEIGHTS
        if not file.is_file():
            raise FileNotFoundError(
                f"start_weights must be a folder with {SMOL_WEIGHTS}, got {folder}"
            )
        parts = split_weights(load_file(file))
        self.connector.load_state_dict(parts["connector"])
        load_lora(self.model.model.language_model.layers, parts["lora"])

    def _weights(self) -> dict[str, Any]:
        trained = {
            "connector": self.connector.state_dict(),
            "lora": [parameter.detach() for parameter in self.lora],
            "probe": self.probe.state_dict(),
        }
        return {"trained": trained}

    @torch.no_grad()
    def _take_over(self, state: Mapping[str, Any]) -> None:
        trained = state["trained"]
        self.connector.load_state_dict(trained["connector"])
        self.probe.load_state_dict(trained["probe"])
        for parameter, value in zip(self.lora, trained["lora"], strict=True):
            parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
