"""Prompts as they reach the language model: their vision slots, and which the encoder kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mustdrop.engine.image import EncodedImage
from mustdrop.engine.layout import Prompt
from mustdrop.ledger import TokenLedger, TokenSources
from mustdrop.models import OFF_GRID, ModelAdapter
from mustdrop.reduction import Reduction


@dataclass(frozen=True, eq=False)
class Arrival:
    """Batch of prompts as ``input_ids`` and ``attention_mask`` give it; counted on the host.

    Attributes:
        vision: Whether each slot is a vision token.
        where: Indices of the vision tokens of each prompt, counted without padding.
        pads: Number of padding slots in front of each prompt.
        images: Number of images of each prompt.
        masked: Whether an attention mask was given.
    """

    vision: Bool[Tensor, "batch seq"]
    where: list[Int[Tensor, " _"]]
    pads: list[int]
    images: list[int]
    masked: bool

    @classmethod
    def of(
        cls, adapter: ModelAdapter, ids: Int[Tensor, "batch seq"], attention_mask: Tensor | None
    ) -> "Arrival":
        """Read a batch; this waits for the device once, before any image is encoded.

        Raises:
            ValueError: If a prompt is padded on the right or has holes, is empty, or holds no whole
                number of images.
        """
        vision = adapter.vision_mask(ids)
        present = torch.ones_like(vision) if attention_mask is None else attention_mask.bool()
        host = torch.stack([vision, present.to(vision.device)]).cpu()
        where, pads = [], []
        for number, (is_vision, is_present) in enumerate(zip(*host, strict=True)):
            tokens = int(is_present.sum())
            pad = len(is_present) - tokens
            if tokens == 0 or not bool(is_present[pad:].all()):
                raise ValueError(
                    f"prompt {number}: attention_mask is empty, has holes or ends in padding; pad "
                    "on the left (processor.tokenizer.padding_side = 'left')"
                )
            where.append(torch.from_numpy(np.flatnonzero(is_vision[pad:].numpy())))
            pads.append(pad)
        images = adapter.images_per_prompt([len(indices) for indices in where])
        return cls(vision, where, pads, images, attention_mask is not None)

    @property
    def owners(self) -> list[int]:
        """Index of the prompt of each image, in the order of the prompts."""
        return [prompt for prompt, count in enumerate(self.images) for _ in range(count)]

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


def arrange(
    adapter: ModelAdapter, arrival: Arrival, position_ids: Int[Tensor, "_ seq"] | None
) -> list[Prompt]:
    """Make the prompts of a batch, before any drop.

    Args:
        adapter: Facts about the model.
        arrival: Batch as it was read.
        position_ids: Rotary positions from the caller; None: the model counts the slots of the
            batch, padding included.
    """
    vision = arrival.vision
    device = vision.device
    if position_ids is None:
        position_ids = torch.arange(vision.shape[1], device=device)[None]
    positions = position_ids.to(device).expand(len(vision), -1)
    prompts = []
    for number, (where, pad) in enumerate(zip(arrival.where, arrival.pads, strict=True)):
        is_vision, position = vision[number, pad:], positions[number, pad:]
        count, tokens, images = len(where), len(is_vision), arrival.images[number]
        segment = (where.diff(prepend=where[:1]) > 1).cumsum(0)
        start = int(where[0]) if count else 0
        unbroken = count > 0 and int(segment[-1]) == 0
        prompts.append(
            Prompt(
                ledger=TokenLedger(tokens, is_vision, torch.zeros_like(is_vision)),
                alive=torch.arange(tokens, device=device),
                position=position,
                vision=slice(start, start + count) if unbroken else where.to(device),
                segment=segment.to(device),
                tags=adapter.tags(images).to(device),
                sizes=torch.ones(count, device=device),
                protected=torch.zeros(count, dtype=torch.bool, device=device),
                other_count=tokens - count,
                trailing_text=tokens - 1 - int(where[-1]) if count else tokens,
                images=images,
                first=position[0],
                last=position[-1],
            )
        )
    return prompts


def cells(adapter: ModelAdapter, tags: Int[Tensor, " slots"]) -> Int[Tensor, "slots 3"]:
    """(image, row, column) of each vision slot; -1 for slots off the grid."""
    columns = adapter.facts.grid[1]
    patch = tags % adapter.patches
    cell = torch.stack([tags // adapter.patches, patch // columns, patch % columns], 1)
    return cell.masked_fill((tags == OFF_GRID)[:, None], -1)


def entering(
    adapter: ModelAdapter,
    prompts: Sequence[Prompt],
    images: Sequence[EncodedImage],
    packed: Sequence[Int[Tensor, " slots"]],
) -> list[Reduction] | None:
    """Reduction of each prompt's vision slots by the encoder; None: no change. Fills the ledgers.

    Raises:
        ValueError: If the prompts' images are not those that were encoded.
    """
    expected = sum(prompt.images for prompt in prompts)
    if expected != len(images):
        raise ValueError(f"the prompts have {expected} images, but {len(images)} were encoded")
    reductions, first = [], 0
    for number, prompt in enumerate(prompts):
        prompt_images = images[first : first + prompt.images]
        first += prompt.images
        tags = packed[number] if packed else adapter.tags(prompt.images)
        reductions.append(_enter(adapter, prompt, prompt_images, tags))
    if all(image.reduction is None for image in images):
        return None
    return reductions


@dataclass(frozen=True, eq=False)
class _Slots:
    """Vision slots of a prompt's patches; counted on the host.

    Attributes:
        of_patch: Slot of each patch of each image; -1 if the model's packing removed the patch.
        off_grid: Slots that hold no patch; the encoder never drops them.
        whole: Whether every patch has a slot.
    """

    of_patch: Int[Tensor, " patches"]
    off_grid: Int[Tensor, " off"]
    whole: bool

    @classmethod
    def of(cls, tags: Int[Tensor, " slots"], patches: int, device: torch.device) -> "_Slots":
        host = tags.numpy()
        on_grid = np.flatnonzero(host != OFF_GRID)
        of_patch = np.full(patches, OFF_GRID)
        of_patch[host[on_grid]] = on_grid
        return cls(
            torch.from_numpy(of_patch).to(device),
            torch.from_numpy(np.flatnonzero(host == OFF_GRID)).to(device),
            bool((of_patch >= 0).all()),
        )


def _enter(
    adapter: ModelAdapter,
    prompt: Prompt,
    images: Sequence[EncodedImage],
    tags: Int[Tensor, " slots"],
) -> Reduction:
    """Record a prompt's key tokens and sources; return the reduction to the slots in use."""
    device, patches = prompt.alive.device, adapter.patches
    vision = prompt.vision_index()
    if not images:
        return Reduction(vision)
    slots = _Slots.of(tags, len(images) * patches, device)
    protected = torch.zeros(len(tags), dtype=torch.bool, device=device)
    kept, sizes = [], []
    for number, image in enumerate(images):
        shown = slice(None)
        cells = image.cells.to(device)
        slot = slots.of_patch[number * patches + cells]
        if not slots.whole:
            shown = (slot >= 0).nonzero().flatten()
        slot = slot[shown]
        protected[slot] = image.protected.to(device)[shown]
        kept.append(slot)
        sizes.append(image.sizes.to(device)[shown])
        whole = image.reduction
        mixed = [None, None] if whole is None else [whole.mix, whole.cls]
        mix, cls = (None if part is None else part.to(device)[shown] for part in mixed)
        prompt.ledger.encoder.append(dict(image.blocks))
        prompt.ledger.encoder_decision_macs += image.decision_macs
        source = TokenSources(adapter.facts.grid, vision[slot], cells[shown], mix, cls)
        prompt.ledger.sources.append(source)
    prompt.protected, prompt.tags = protected, tags.to(device)
    prompt.ledger.protected[vision] = protected
    keep, size = torch.cat(kept), torch.cat(sizes)
    if len(slots.off_grid):
        keep = torch.cat([keep, slots.off_grid])
        order = keep.argsort()
        keep, size = keep[order], torch.cat([size, size.new_ones(len(slots.off_grid))])[order]
    return Reduction(keep, None, size)
