"""Gemma 3 (arXiv:2503.19786): SigLIP, pooled; tokens of an image see each other; local layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt
from typing import Any, final

from torch import Tensor

from mustdrop.models.encoders import EncoderPart, Part
from mustdrop.models.encoders.siglip import PooledSiglipEncoder
from mustdrop.models.paligemma import PaliGemmaAdapter
from mustdrop.strategy import ModelFacts


@final
@dataclass(frozen=True, eq=False)
class Gemma3Adapter(PaliGemmaAdapter):
    """Adapter of ``Gemma3ForConditionalGeneration``: a vision token is the mean of some patches.

    Most layers see a window of the conversation, and have rotary embeddings of their own. The
    crops of pan and scan are images of their own in the prompt.
    """

    @property
    def window(self) -> int | None:
        text = self.language_model.config
        return text.sliding_window if "sliding_attention" in text.layer_types else None

    def rotary(self, hidden: Tensor, positions: Tensor, layer: int = 0) -> Any:
        return self.language_model.rotary_emb(hidden, positions, self.kind(layer))

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        (encoder,) = super().encoders
        return [PooledSiglipEncoder(encoder.module, unit=self.facts.unit)]

    @property
    def feature_entry(self) -> Part:
        return self.projector.mm_soft_emb_norm

    def project(self, features: Tensor) -> Tensor:
        normed = self.feature_entry(features)
        return (normed @ self.projector.mm_input_projection_weight).type_as(features).flatten(0, -2)

    @cached_property
    def facts(self) -> ModelFacts:
        facts, cells = super().facts, isqrt(self.model.config.mm_tokens_per_image)
        assert facts.grid is not None
        return replace(facts, grid=(cells, cells), unit=facts.grid[0] // cells)
