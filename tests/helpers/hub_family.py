"""What a family's checkpoint in the hub's layout consists of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

CLIP_MEANS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


@dataclass(frozen=True)
class HubFamily:
    """How a family's checkpoint differs from those of other families.

    Attributes:
        build: Makes a random model for a tokenizer, with a language model of these sizes.
        special: Special tokens, in the order of their ids.
        roles: Special tokens by the names of their roles.
        template: Chat template.
        images: Content of ``preprocessor_config.json``.
        processor: Content of ``processor_config.json``; empty: there is no such file.
        videos: Content of ``video_preprocessor_config.json``; empty: there is no such file.
        begin: Special token that the tokenizer puts in front of a text; empty: there is none.
    """

    build: Callable[[PreTrainedTokenizerFast, dict[str, Any]], PreTrainedModel]
    special: tuple[str, ...]
    roles: dict[str, Any]
    template: str
    images: dict[str, Any]
    processor: dict[str, Any]
    videos: dict[str, Any] = field(default_factory=dict)
    begin: str = ""
