"""A model by name: where its weights are, what is assumed of it. Knows nothing of dropping."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from mustdrop.models import adapter_for
from mustdrop.pocket import model as pocket
from mustdrop.strategy import require_choices

PACKAGED = "packaged"


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the facts that budgets are computed from before they are loaded.

    Attributes:
        name: What tables and folders call it.
        pretrained: A folder, a hub name, or ``packaged`` for the embedded PocketLLaVA.
        layers: Its decoder layers.
        vision_tokens: Vision tokens of one of its prompts, where that is a constant.
        revision: Of the hub name; None: the newest.
        dtype: Of the weights in memory.
        attention: What Hugging Face calls the implementation.
    """

    name: str
    pretrained: str
    layers: int
    vision_tokens: int
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"

    def __post_init__(self) -> None:
        require_choices(
            **{
                "model.dtype": (self.dtype, ("float32", "bfloat16", "float16")),
                "model.attention": (self.attention, ("sdpa", "eager", "flash_attention_2")),
            }
        )

    def load(self, device: str = "auto") -> tuple[Any, Any]:
        """The model, ready to generate, and its processor.

        Args:
            device: ``auto``: the GPU if there is one.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If the model is not what ``layers`` and ``vision_tokens`` say, or its
                attention needs a package that is not installed.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device={device} cannot be used: {reason}") from error
        dtype = getattr(torch, self.dtype)
        packaged = self.pretrained == PACKAGED
        load = partial(pocket.load, attn_implementation=self.attention) if packaged else self._hub
        try:
            loaded: tuple[Any, Any] = load(dtype)
        except ImportError as error:  # an attention kernel that is not installed
            raise ValueError(f"model.attention={self.attention}: {error}") from error
        model, processor = loaded
        self._check(model)
        return model.to(device).eval(), processor

    def _hub(self, dtype: torch.dtype) -> tuple[Any, Any]:
        folder = Path(self.pretrained)
        # A hub name is owner/name; anything else with a slash can only be meant as a folder.
        if not folder.is_dir() and (folder.is_absolute() or len(folder.parts) != 2):
            raise FileNotFoundError(f"model.pretrained: there is no folder {self.pretrained}")
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                self.pretrained,
                revision=self.revision,
                dtype=dtype,
                attn_implementation=self.attention,
            )
            processor = AutoProcessor.from_pretrained(self.pretrained, revision=self.revision)
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            raise FileNotFoundError(
                f"model.pretrained: no such folder or hub name, {self.pretrained!r}: {reason}"
            ) from error
        return model, processor

    def _check(self, model: nn.Module) -> None:
        adapter = adapter_for(model)
        for name, told, found in (
            ("layers", self.layers, adapter.facts.depth),
            ("vision_tokens", self.vision_tokens, adapter.slots_per_image),
        ):
            if told != found:
                raise ValueError(f"model.{name} is {told}, but {self.pretrained} has {found}")
