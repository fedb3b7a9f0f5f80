"""The prompts of the study and its models, one for each dtype. Knows no method."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Bool
from torch import Tensor

from experiments.calibration_batches import batches
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.engine.run import DropRun
from mustdrop.pocket import sample
from mustdrop.presets.compose import composed
from mustdrop.presets.loading import load as load_preset
from mustdrop.provenance.weights_mark import weights_mark

FLOAT32 = "float32"
NOISE = 1.0e-4  # standard deviation that is added to pixels, which have one of about 1


@dataclass
class StudyPrompts:
    """A model preset in several dtypes, and questions of crowded_test.

    Attributes:
        model: Name of a preset in conf/model.
        budget: Budget of all methods.
        loaded: Models by dtype and attention implementation.
    """

    model: str
    budget: str
    loaded: dict[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cfg = composed(f"model={self.model}")
        self.checkpoint: Checkpoint = instantiate(cfg.model)
        self.task = instantiate(cfg.benchmark.task)
        self.split: str = cfg.benchmark.task.split

    @property
    def mark(self) -> str | None:
        """Mark of the model's weights."""
        return weights_mark(self.checkpoint.pretrained, self.checkpoint.revision)

    def network(self, dtype: str = FLOAT32, attention: str = "sdpa") -> Any:
        """The model in a dtype; it is loaded once."""
        return self._pair(dtype, attention)[0]

    @property
    def processor(self) -> Any:
        """The model's processor."""
        return self._pair(FLOAT32, "sdpa")[1]

    def prompt(self, *indices: int, dtype: str = FLOAT32) -> Mapping[str, Tensor]:
        """Inputs of ``generate`` for these questions, padded to one length."""
        network, processor = self._pair(dtype, "sdpa")
        (inputs,) = batches(network, processor, self.task, indices, len(indices))
        return inputs

    def noisy(self, index: int) -> Mapping[str, Tensor]:
        """Inputs for a question whose pixels have noise; the same at every call."""
        inputs = self.prompt(index)
        generator = torch.Generator().manual_seed(index)
        pixels = inputs["pixel_values"]
        noise = NOISE * torch.randn(pixels.shape, generator=generator)
        return {**inputs, "pixel_values": pixels + noise}

    def objects(self, index: int) -> Bool[Tensor, " patches"]:
        """Whether each vision token of a question shows an object."""
        return torch.from_numpy(sample(self.split, index).object_patches.reshape(-1))

    def dropper(self, method: str) -> TokenDropper:
        """Dropper of a method at the budget.

        Raises:
            ValueError: If the method lacks a threshold or cannot reach the budget.
        """
        return load_preset(method, model=self.model, budget=self.budget)

    def _pair(self, dtype: str, attention: str) -> tuple[Any, Any]:
        key = dtype, attention
        if key not in self.loaded:
            checkpoint = replace(self.checkpoint, dtype=dtype, attention=attention)
            self.loaded[key] = checkpoint.load("cpu")
        return self.loaded[key]


@torch.inference_mode()
def answered(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Tensor], new_tokens: int = 1
) -> tuple[DropRun, Tensor, Tensor]:
    """Run a method on a batch.

    Returns:
        Record of the run, new tokens [prompts, new], and their logits [prompts, new, vocabulary].
    """
    with dropper.attach(model) as run:
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    run.require_finite()
    return run, out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, 1)
