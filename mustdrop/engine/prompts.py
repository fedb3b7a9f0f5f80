"""Prompts of a batch before any drop: their padding, their vision slots and what these show."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mustdrop.engine.layout import Prompt
from mustdrop.engine.prompt_vision import NO_SLOT, PromptVision, assign, host_indices
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter


@dataclass(frozen=True, eq=False)
class ArrivedImage:
    """One image (crop, frame) that an encoder will get.

    Attributes:
        prompt: Index of its prompt in the batch.
        encoded: Index among all images of the batch in the order in which the encoders get them.
        order: Index among all images of the batch in the order of the prompts.
        grid: Cells as (rows, columns).
        pixels: What the encoder gets of it.
        slots: Vision slot of its prompt that shows each cell, on the host; ``OFF_GRID`` if the
            model's packing cuts the cell away.
        span: Number of vision slots of its prompt that show earlier images; the same with this
            image; that of all images.
    """

    prompt: int
    encoded: int
    order: int
    grid: tuple[int, int]
    pixels: Tensor
    slots: Int[Tensor, " cells"]
    span: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Arrival:
    """Batch of prompts as the caller's inputs give it; counted on the host.

    Attributes:
        ids: Token ids, on the host.
        vision: Whether each slot is a vision token.
        where: Indices of the vision tokens of each prompt, counted without padding.
        pads: Number of padding slots in front of each prompt.
        shown: Images and videos of each prompt.
        masked: Whether an attention mask was given.
    """

    ids: Int[Tensor, "batch seq"]
    vision: Bool[Tensor, "batch seq"]
    where: list[Int[Tensor, " _"]]
    pads: list[int]
    shown: list[PromptVision]
    masked: bool

    @classmethod
    def of(
        cls, adapter: ModelAdapter, ids: Int[Tensor, "batch seq"], inputs: Mapping[str, Any]
    ) -> "Arrival":
        """Read a batch; this waits for the device once, before any image is encoded.

        Raises:
            ValueError: If a prompt is padded on the right or has holes, is empty, or has vision
                slots that its images and videos do not fill exactly.
        """
        visual = adapter.visual_inputs(inputs)
        tokens = torch.tensor(list(visual))
        mask = inputs.get("attention_mask")
        present = torch.ones_like(ids) if mask is None else mask.to(ids)
        host, here = torch.stack([ids, present]).cpu()
        slots = host.masked_fill(~torch.isin(host, tokens), NO_SLOT)
        where, pads = [], []
        for number, (is_vision, is_present) in enumerate(
            zip(slots != NO_SLOT, here.bool(), strict=True)
        ):
            length = int(is_present.sum())
            pad = len(is_present) - length
            if length == 0 or not bool(is_present[pad:].all()):
                raise ValueError(
                    f"prompt {number}: attention_mask is empty, has holes or ends in padding; pad "
                    "on the left (processor.tokenizer.padding_side = 'left')"
                )
            where.append(host_indices(is_vision[pad:]))
            pads.append(pad)
        vision = torch.isin(ids, tokens.to(ids, non_blocking=True))
        return cls(host, vision, where, pads, assign(list(slots), visual), mask is not None)

    @property
    def owners(self) -> list[int]:
        """Prompt of each image (crop, frame), in the order in which the encoders get them."""
        owners = {image: prompt for prompt, part in enumerate(self.shown) for image in part.encoded}
        return [owners[image] for image in range(len(owners))]

    @cached_property
    def images(self) -> list[ArrivedImage]:
        """Images (crops, frames) of all prompts, in the order in which the encoders get them."""
        images: dict[int, ArrivedImage] = {}
        for prompt, shown in enumerate(self.shown):
            parts = zip(shown.encoded, shown.grids, shown.slots, shown.spans, strict=True)
            for (encoded, grid, slots, span), pixels in zip(parts, shown.pixels, strict=True):
                order = len(images)
                images[encoded] = ArrivedImage(prompt, encoded, order, grid, pixels, slots, span)
        return [images[encoded] for encoded in range(len(images))]

    def require_text_at_the_end(self) -> None:
        """Check that no prompt ends with a vision token.

        The next word is predicted from the last token. If that is a vision token, it may be
        dropped or merged, and another token would predict the word.

        Raises:
            ValueError: With the index of the prompt.
        """
        length = self.vision.shape[1]
        for number, (where, pad) in enumerate(zip(self.where, self.pads, strict=True)):
            if len(where) and int(where[-1]) == length - pad - 1:
                raise ValueError(
                    f"prompt {number} ends with a vision token, but the next word is predicted "
                    "from the last token, which may be dropped: put text after the image, for "
                    "instance the chat template's generation prompt"
                )

    def require_videos(self, strategy: str) -> None:
        """Check that no prompt holds an image.

        Raises:
            ValueError: With the index of the prompt and the name of the strategy.
        """
        for number, shown in enumerate(self.shown):
            if not all(is_video for _, is_video in shown.ranges):
                raise ValueError(
                    f"{strategy} chooses among the frames of a video, but prompt {number} holds an "
                    "image, which has one frame: use it on prompts with videos alone"
                )


def rotary_positions(
    arrival: Arrival, position_ids: Int[Tensor, "*axes _ seq"] | None
) -> Int[Tensor, "*axes batch seq"]:
    """Rotary positions that the language model got; None: it counts all slots of the batch."""
    batch, length = arrival.vision.shape
    device = arrival.vision.device
    if position_ids is None:
        return torch.arange(length, device=device).expand(batch, -1)
    return position_ids.to(device).expand(*position_ids.shape[:-2], batch, -1)


def arrange(arrival: Arrival, positions: Int[Tensor, "*axes batch seq"]) -> list[Prompt]:
    """Make the prompts of a batch, before any drop; copies to the device do not wait for it.

    Args:
        arrival: Batch as it was read.
        positions: Rotary positions; of coordinates with several axes, the first one is used.
    """
    vision = arrival.vision
    device = vision.device
    positions = positions[0] if positions.dim() == 3 else positions
    prompts = []
    batch = zip(arrival.where, arrival.pads, arrival.shown, strict=True)
    for number, (where, pad, shown) in enumerate(batch):
        is_vision, position = vision[number, pad:], positions[number, pad:]
        count, tokens = len(where), len(is_vision)
        start, last = (int(where[0]), int(where[-1])) if count else (0, -1)
        unbroken = count > 0 and last - start == count - 1
        segment = torch.zeros_like(where)
        if not unbroken:
            segment = (where.diff(prepend=where[:1]) > 1).cumsum(0)
        cells, none = shown.cells.to(device, non_blocking=True), torch.zeros_like(is_vision)
        index = where.to(device, non_blocking=True)
        prompts.append(
            Prompt(
                ledger=TokenLedger(
                    tokens,
                    is_vision,
                    none,
                    shown.grids,
                    cells,
                    shown.mosaics,
                    shown.videos,
                    shown.tiles,
                ),
                alive=torch.arange(tokens, device=device),
                position=position,
                vision=slice(start, start + count) if unbroken else index,
                segment=segment.to(device, non_blocking=True),
                cells=cells,
                sizes=torch.ones(count, device=device),
                protected=torch.zeros(count, dtype=torch.bool, device=device),
                other_count=tokens - count,
                trailing_text=tokens - 1 - last,
                shown=shown,
                first=position[0],
                last=position[-1],
            )
        )
    return prompts
