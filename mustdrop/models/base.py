"""ModelAdapter: where a model family keeps its modules and vision tokens. Does no maths."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mustdrop.strategy import ModelFacts

# The attributes of transformers' modules are known at run time only, so parts of models are Any.
Part = Any

OFF_GRID = -1  # tag of a slot that holds no patch, such as a newline or a frame's [CLS]


@dataclass(frozen=True, eq=False)
class ModelAdapter(ABC):
    """Access to the parts of one model family.

    The vision tokens of a prompt are described by *tags*: for each vision slot, in prompt order,
    the flat patch id ``image * patches + patch``, or ``OFF_GRID``. A family whose slots are the
    encoder's patches in raster order (LLaVA-1.5) uses the default :meth:`tags`. A family that keeps
    each frame's [CLS] (Video-LLaVA) sets ``keeps_cls``. A family that rearranges patches after the
    projector (LLaVA-NeXT) reports the new order through :meth:`trace_packing`.
    """

    model: Any
    keeps_cls = False

    @property
    @abstractmethod
    def base(self) -> Part:
        """Module that receives ``input_ids`` and calls all other parts."""

    @property
    @abstractmethod
    def language_model(self) -> Part:
        """Decoder without its head."""

    @property
    @abstractmethod
    def encoders(self) -> Sequence[Part]:
        """Vision encoders; each call encodes a batch of images."""

    @property
    @abstractmethod
    def projector(self) -> Part:
        """Module that maps encoder features to the language model's width."""

    @abstractmethod
    def blocks(self, encoder: Part) -> Sequence[Part]:
        """Blocks of an encoder; each has ``self_attn``."""

    def embed(self, encoder: Part, pixels: Tensor) -> Tensor:
        """Compute the input of the encoder's first block."""
        embedded = encoder.embeddings(pixels)
        return encoder.pre_layrnorm(embedded) if self.facts.has_cls else embedded

    def mlp(self, block: Part) -> tuple[Part, Part]:
        """Second half of an encoder block: the norm before its MLP, and the MLP."""
        return block.layer_norm2, block.mlp  # names of CLIP and SigLIP

    def attend(self, block: Part, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Run the first half of an encoder block: attention and its residual connection."""
        normed = block.layer_norm1(hidden)
        return hidden + block.self_attn(hidden_states=normed, attention_mask=mask)[0]

    @cached_property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """Facts about the model that strategies may use."""

    @property
    @abstractmethod
    def vision_token_ids(self) -> Sequence[int]:
        """Token ids of vision slots."""

    @cached_property
    def layers(self) -> Sequence[Part]:
        """Decoder layers; each has ``self_attn`` and ``input_layernorm``."""
        return list(self.language_model.layers)

    @cached_property
    def final_norm(self) -> Part | None:
        """Norm behind the decoder's layers; None where it has no known name."""
        text = self.language_model
        return getattr(text, "norm", None) or getattr(text, "final_layernorm", None)

    @property
    def first_drop_layer(self) -> int:
        """First layer after which tokens may be dropped (-1: at the input)."""
        return -1

    @cached_property
    def patches(self) -> int:
        """Number of patches of one encoded image."""
        rows, columns = self.facts.grid
        return rows * columns

    @property
    def slots_per_image(self) -> int:
        """Number of vision slots of one encoded image, where it is constant."""
        return self.patches + self.keeps_cls

    def vision_mask(self, input_ids: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
        """Whether each slot holds image content."""
        masks = [input_ids == token for token in self.vision_token_ids]
        return torch.stack(masks).any(0) if len(masks) > 1 else masks[0]

    def images_per_prompt(self, slots: Sequence[int]) -> list[int]:
        """Number of encoded images of each prompt, from its number of vision slots.

        Raises:
            ValueError: If a prompt's slots are no whole number of images.
        """
        for count in slots:
            if count % self.slots_per_image:
                raise ValueError(
                    f"a prompt has {count} vision tokens, no multiple of {self.slots_per_image}"
                )
        return [count // self.slots_per_image for count in slots]

    def tags(self, images: int) -> Int[Tensor, " slots"]:
        """Tag of each vision slot of a prompt with ``images`` images."""
        tags = torch.arange(images * self.patches).view(images, self.patches)
        if self.keeps_cls:
            tags = torch.cat([torch.full((images, 1), OFF_GRID), tags], 1)
        return tags.flatten()

    @contextmanager
    def trace_packing(self, report: Callable[[Int[Tensor, " slots"]], None]) -> Iterator[None]:
        """Context in which ``report`` gets each prompt's tags when the model packs its features."""
        yield
