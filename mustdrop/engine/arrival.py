"""Prompts as they reach the language model: where vision sits, what the encoder left of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.image import EncodedImage
from mustdrop.engine.layout import Prompt
from mustdrop.ledger import Source, TokenLedger
from mustdrop.models import OFF_GRID, ModelAdapter
from mustdrop.reduction import Reduction


def arrange(
    adapter: ModelAdapter,
    ids: Int[Tensor, "batch seq"],
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> tuple[list[Prompt], list[int]]:
    """The prompts of a batch and the padding in front of each.

    The device is asked once; everything else is counted on the host.

    Raises:
        ValueError: If a prompt is padded on the right or has holes, or is empty.
    """
    device = ids.device
    vision = adapter.vision_mask(ids)
    present = torch.ones_like(vision) if attention_mask is None else attention_mask.bool()
    host = torch.stack([vision, present]).cpu()
    prompts, pads = [], []
    for number, (is_vision, is_present) in enumerate(zip(*host, strict=True)):
        tokens = int(is_present.sum())
        pad = len(is_present) - tokens
        if tokens == 0 or not bool(is_present[pad:].all()):
            raise ValueError(
                f"prompt {number}: attention_mask is empty, has holes or ends in padding; pad "
                "on the left (processor.tokenizer.padding_side = 'left')"
            )
        own = is_vision[pad:]
        where = torch.from_numpy(np.flatnonzero(own.numpy()))
        count = len(where)
        images = adapter.images_per_prompt([count])[0] if count else 0
        run = (where.diff(prepend=where[:1]) > 1).cumsum(0)
        one_run = count > 0 and int(run[-1]) == 0
        position = torch.arange(tokens, device=device)
        if position_ids is not None and position_ids.dim() == 2:
            position = position_ids.expand(len(ids), -1)[number, pad:]
        own = own.to(device)
        prompts.append(
            Prompt(
                ledger=TokenLedger(tokens, own, torch.zeros_like(own)),
                alive=torch.arange(tokens, device=device),
                position=position,
                vision=slice(int(where[0]), int(where[0]) + count) if one_run else where.to(device),
                run=run.to(device),
                tags=adapter.tags(images).to(device),
                sizes=torch.ones(count, device=device),
                protected=torch.zeros(count, dtype=torch.bool, device=device),
                other=tokens - count,
                text=tokens - 1 - int(where[-1]) if count else tokens,
                images=images,
            )
        )
        pads.append(pad)
    return prompts, pads


def cells(adapter: ModelAdapter, tags: Int[Tensor, " slots"]) -> Int[Tensor, "slots 3"]:
    """(image, row, column) of each vision slot, -1 where a slot is off the grid."""
    columns = adapter.facts.grid[1]
    patch = tags % adapter.patches
    place = torch.stack([tags // adapter.patches, patch // columns, patch % columns], 1)
    return place.masked_fill((tags == OFF_GRID)[:, None], -1)


def entering(
    adapter: ModelAdapter,
    prompts: Sequence[Prompt],
    images: Sequence[EncodedImage],
    packed: Sequence[Int[Tensor, " slots"]],
) -> list[Reduction] | None:
    """What the encoder left of each prompt's vision slots; None: everything. Fills the ledgers.

    Raises:
        ValueError: If the prompts' images are not those that were encoded.
    """
    expected = sum(prompt.images for prompt in prompts)
    if expected != len(images):
        raise ValueError(f"the prompts have {expected} images, but {len(images)} were encoded")
    reductions, first = [], 0
    for number, prompt in enumerate(prompts):
        own = images[first : first + prompt.images]
        first += prompt.images
        tags = packed[number] if packed else adapter.tags(prompt.images)
        reductions.append(_enter(adapter, prompt, own, tags))
    if all(image.reduction is None for image in images):
        return None
    return reductions


@dataclass(frozen=True, eq=False)
class _Slots:
    """Where a prompt's patches are among its vision slots; counted on the host.

    Attributes:
        of_patch: Slot of each patch of each image, -1 where the model's packing cut it away.
        off_grid: Slots that hold no patch; they always go on.
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
    """Protects a prompt's key tokens, records its sources, and returns which slots are filled."""
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
        prompt.ledger.encoder_spent += image.spent
        source = Source(adapter.facts.grid, vision[slot], cells[shown], mix, cls)
        prompt.ledger.sources.append(source)
    prompt.protected, prompt.tags = protected, tags.to(device)
    prompt.ledger.protected[vision] = protected
    keep, size = torch.cat(kept), torch.cat(sizes)
    if len(slots.off_grid):
        keep = torch.cat([keep, slots.off_grid])
        order = keep.argsort()
        keep, size = keep[order], torch.cat([size, size.new_ones(len(slots.off_grid))])[order]
    return Reduction(keep, None, size)
