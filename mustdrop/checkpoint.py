"""A checkpoint: where weights are, and assumed facts about them. Knows nothing about dropping."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText

from mustdrop.engine.refuse import IMPLEMENTATIONS
from mustdrop.models import adapter_for
from mustdrop.models.inputs import Inputs, load_processor
from mustdrop.models.processor import require_fit
from mustdrop.pocket import model as pocket
from mustdrop.pocket.smol import model as smol
from mustdrop.provenance.checkpoint_files import PACKAGED, PACKAGED_SMOL, checkpoint_folder
from mustdrop.strategy import require_choices

EMBEDDED = {PACKAGED: pocket.load, PACKAGED_SMOL: smol.load_smol}


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the facts that budgets are computed from before they are loaded.

    Attributes:
        name: Name of the model in tables and folders.
        pretrained: Folder, hub name, or ``packaged`` for the embedded PocketLLaVA, and
            ``packaged_smol`` for PocketSmol.
        layers: Number of decoder layers.
        vision_tokens: Number of vision tokens of one image; None: it depends on the image.
        merging_blocks: Number of encoder blocks in which tokens may merge, up to and including the
            one that the projector reads; None: tokens cannot merge in this encoder.
        revision: Revision of the hub name; None: the newest.
        dtype: Dtype of the weights in memory.
        attention: Name that Hugging Face gives the attention implementation.
        device_map: Rule of accelerate to spread one model over several GPUs; None: use one device.
        resize: See :class:`mustdrop.models.inputs.Inputs`, as for the fields below.
        system: System sentence of each conversation.
        template: Chat template.
        min_pixels: Least number of pixels of an image.
        max_pixels: Largest number of pixels of an image.
        frames: Number of frames that the model sees of a video.
    """

    name: str
    pretrained: str
    layers: int
    vision_tokens: int | None
    merging_blocks: int | None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    device_map: Literal["auto", "balanced"] | None = None
    resize: Literal["hub", "pad"] = "hub"
    system: str | None = None
    template: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        require_choices(
            **{
                "model.dtype": (self.dtype, ("float32", "bfloat16", "float16")),
                "model.attention": (self.attention, IMPLEMENTATIONS),
                "model.device_map": (self.device_map or "null", ("null", "auto", "balanced")),
                "model.resize": (self.resize, ("hub", "pad")),
            }
        )
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"model.frames must be a count of 1 or more, got {self.frames}")

    def load(self, device: str = "auto") -> tuple[Any, Any]:
        """Load the model, ready to generate, and its processor.

        Args:
            device: Name of a device; ``auto``: the GPU if there is one.

        Raises:
            FileNotFoundError: If the checkpoint does not exist.
            ValueError: If the model differs from the counts above, weights are missing or torn,
                the processor does not fit, the attention needs a package that is not installed,
                or the device cannot be used.
        """
        device = self.usable_device(device)
        dtype = getattr(torch, self.dtype)
        embedded = EMBEDDED.get(self.pretrained)
        load = partial(embedded, attn_implementation=self.attention) if embedded else self._hub
        try:
            loaded: tuple[Any, Any] = load(dtype)
        except ImportError as error:  # an attention kernel that is not installed
            raise ValueError(f"model.attention={self.attention}: {error}") from error
        model, processor = loaded
        self.inputs.apply(processor)
        self._check(model, processor)
        if self.device_map is None:
            model = model.to(device)
        return model.eval(), processor

    @property
    def inputs(self) -> Inputs:
        """Changes to the inputs that the checkpoint's files make."""
        return Inputs(
            self.resize, self.system, self.template, self.min_pixels, self.max_pixels, self.frames
        )

    def usable_device(self, requested: str) -> str:
        """Name of a usable device; each of several processes takes the GPU of its rank.

        Raises:
            ValueError: If the device cannot be used.
        """
        rank = os.environ.get("LOCAL_RANK")
        if self.device_map is not None:
            if rank is not None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError(
                    f"model.device_map={self.device_map} spreads one model over the GPUs, so only "
                    "one process can run it: start without torchrun, or model.device_map=null"
                )
            if self.pretrained in EMBEDDED:
                raise ValueError(
                    "model.device_map must be null: the packaged model fits on any device"
                )
        device = requested
        if requested == "auto":
            gpu = "cuda" if rank is None else f"cuda:{rank}"
            device = gpu if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device={requested} cannot be used: {reason}") from error
        return device

    def _hub(self, dtype: torch.dtype) -> tuple[Any, Any]:
        folder, name = checkpoint_folder(self.pretrained, self.revision), self.pretrained
        try:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, attn_implementation=self.attention,
                device_map=self.device_map, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
            processor = load_processor(folder, loaded[0].config)
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
        model, info = loaded  # a pair, because of output_loading_info
        # transformers would set these weights to random numbers and continue
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"model.pretrained: {name} lacks {len(missing)} of the model's weights: "
                f"{', '.join(missing[:3])}"
            )
        for weight, stored, expected in sorted(info["mismatched_keys"]):
            raise ValueError(
                f"model.pretrained: {weight} of {name} has shape {tuple(stored)}, but its "
                f"config.json asks for {tuple(expected)}"
            )
        return model, processor

    def _check(self, model: nn.Module, processor: Any) -> None:
        adapter = adapter_for(model)
        for name, expected, actual in (
            ("layers", self.layers, adapter.facts.depth),
            ("vision_tokens", self.vision_tokens, adapter.image_tokens),
            ("merging_blocks", self.merging_blocks, adapter.facts.feature_block + 1),
        ):
            if expected is not None and expected != actual:
                raise ValueError(f"model.{name} is {expected}, but {self.pretrained} has {actual}")
        try:
            require_fit(adapter, processor)
        except ValueError as error:
            raise ValueError(
                f"model.pretrained: the processor of {self.pretrained} does not fit its model: "
                f"{error}"
            ) from error
