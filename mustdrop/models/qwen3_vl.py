"""Qwen3-VL (arXiv:2511.21631): as Qwen2.5-VL, with features that later layers add (DeepStack)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from mustdrop.models.qwen_vl import QwenVLAdapter


@final
@dataclass(frozen=True, eq=False)
class Qwen3VLAdapter(QwenVLAdapter):
    """Adapter of ``Qwen3VLForConditionalGeneration`` and ``Qwen3VLMoeForConditionalGeneration``.

    What some encoder blocks returned is added to the vision tokens after the first decoder layers.
    The frames of a video stand apart in the prompt, each behind its time as text.
    """

    def take_added(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
        rows, slots = arguments.get("deepstack_visual_embeds"), arguments.get("visual_pos_masks")
        if rows is None or slots is None:
            return dict(arguments), []
        empty = rows[0].new_zeros(*slots.shape, rows[0].shape[-1])
        where = slots[..., None].to(empty.device)
        added = [empty.masked_scatter(where, states) for states in rows]
        return {**arguments, "deepstack_visual_embeds": None, "visual_pos_masks": None}, added
