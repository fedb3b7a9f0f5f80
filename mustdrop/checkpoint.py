"""A model by name: where its weights are, what is assumed of it. Knows nothing of dropping."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from mustdrop.models import adapter_for
from mustdrop.models.processor import require_fit
from mustdrop.pocket import model as pocket
from mustdrop.provenance.checkpoint_files import PACKAGED, checkpoint_folder
from mustdrop.strategy import require_choices


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the facts that budgets are computed from before they are loaded.

    Attributes:
        name: What tables and folders call it.
        pretrained: A folder, a hub name, or ``packaged`` for the embedded PocketLLaVA.
        layers: Its decoder layers.
        vision_tokens: Vision tokens of one of its prompts, where that is a constant.
        merging_blocks: Encoder blocks up to the one whose output the projector reads.
        revision: Of the hub name; None: the newest.
        dtype: Of the weights in memory.
        attention: What Hugging Face calls the implementation.
        device_map: How accelerate spreads one model over several GPUs; None: all of it on one.
    """

    name: str
    pretrained: str
    layers: int
    vision_tokens: int
    merging_blocks: int
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    device_map: Literal["auto", "balanced"] | None = None

    def __post_init__(self) -> None:
        require_choices(
            **{
                "model.dtype": (self.dtype, ("float32", "bfloat16", "float16")),
                "model.attention": (self.attention, ("sdpa", "eager", "flash_attention_2")),
                "model.device_map": (self.device_map or "null", ("null", "auto", "balanced")),
            }
        )

    def load(self, device: str = "auto") -> tuple[Any, Any]:
        """The model, ready to generate, and its processor.

        Args:
            device: ``auto``: the GPU if there is one.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If the model is not what its counts say, weights are missing or torn, its
                processor does not fit, its attention needs a package that is not installed, or
                there is no such device.
        """
        device = self._device(device)
        dtype = getattr(torch, self.dtype)
        packaged = self.pretrained == PACKAGED
        load = partial(pocket.load, attn_implementation=self.attention) if packaged else self._hub
        try:
            loaded: tuple[Any, Any] = load(dtype)
        except ImportError as error:  # an attention kernel that is not installed
            raise ValueError(f"model.attention={self.attention}: {error}") from error
        model, processor = loaded
        self._check(model, processor)
        if self.device_map is None:
            model = model.to(device)
        return model.eval(), processor

    def _device(self, asked: str) -> str:
        """One that is there; among several processes each takes the GPU of its rank."""
        own = os.environ.get("LOCAL_RANK")
        if self.device_map is not None:
            if own is not None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError(
                    f"model.device_map={self.device_map} spreads one model over the GPUs, so only "
                    "one process can run it: start without torchrun, or model.device_map=null"
                )
            if self.pretrained == PACKAGED:
                raise ValueError("model.device_map must be null: the packaged model fits anywhere")
        device = asked
        if asked == "auto":
            gpu = "cuda" if own is None else f"cuda:{own}"
            device = gpu if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device={asked} cannot be used: {reason}") from error
        return device

    def _hub(self, dtype: torch.dtype) -> tuple[Any, Any]:
        folder, name = checkpoint_folder(self.pretrained, self.revision), self.pretrained
        try:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, attn_implementation=self.attention,
                device_map=self.device_map, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
            processor = AutoProcessor.from_pretrained(folder)
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            raise FileNotFoundError(
                f"model.pretrained: {name} is no checkpoint: {reason}"
            ) from error
        except ValueError as error:
            raise ValueError(f"model.pretrained: {name}: {' '.join(str(error).split())}") from error
        except SafetensorError as error:
            raise ValueError(
                f"model.pretrained: a weight file of {name} is torn ({error})"
            ) from error
        model, info = loaded  # what output_loading_info makes of it
        # transformers would draw these weights at random and go on
        lacking = sorted(info["missing_keys"])
        if lacking:
            raise ValueError(
                f"model.pretrained: {name} lacks {len(lacking)} of the model's weights: "
                f"{', '.join(lacking[:3])}"
            )
        for weight, stored, wanted in sorted(info["mismatched_keys"]):
            raise ValueError(
                f"model.pretrained: {weight} of {name} has shape {tuple(stored)}, but its "
                f"config.json asks for {tuple(wanted)}"
            )
        return model, processor

    def _check(self, model: nn.Module, processor: Any) -> None:
        adapter = adapter_for(model)
        for name, told, found in (
            ("layers", self.layers, adapter.facts.depth),
            ("vision_tokens", self.vision_tokens, adapter.slots_per_image),
            ("merging_blocks", self.merging_blocks, adapter.facts.feature_block + 1),
        ):
            if told != found:
                raise ValueError(f"model.{name} is {told}, but {self.pretrained} has {found}")
        try:
            require_fit(adapter, processor)
        except ValueError as error:
            raise ValueError(
                f"model.pretrained: the processor of {self.pretrained} does not fit its model: "
                f"{error}"
            ) from error
