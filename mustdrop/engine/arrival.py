"""Prompts as they reach the language model: where vision sits, what the encoder left of it."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.encoder import EncodedImage
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
        where = own.nonzero().flatten()
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


def _enter(
    adapter: ModelAdapter,
    prompt: Prompt,
    images: Sequence[EncodedImage],
    tags: Int[Tensor, " slots"],
) -> Reduction:
    """Protects a prompt's key tokens, records its sources, and returns which slots are filled."""
    device, patches = prompt.alive.device, adapter.patches
    slots_to_prompt = prompt.vision_index()
    if not images:
        return Reduction(slots_to_prompt)
    on_grid = (tags != OFF_GRID).nonzero().flatten()
    slot_of = torch.full((len(images) * patches,), OFF_GRID)
    slot_of[tags[on_grid]] = on_grid
    shown = bool((slot_of >= 0).all())  # no patch was cut away by the model's packing
    slot_of = slot_of.to(device)
    kept, sizes = [], []
    protected = torch.zeros(len(tags), dtype=torch.bool, device=device)
    for number, image in enumerate(images):
        prompt.ledger.encoder.append(dict(image.blocks))
        slot = slot_of[number * patches + image.cells.to(device)]
        fate, size, source, mix = (
            image.protected.to(device),
            image.sizes.to(device),
            image.cells,
            None,
        )
        if image.reduction is not None and image.reduction.mix is not None:
            mix = image.reduction.mix
        if not shown:
            visible = slot >= 0
            slot, fate, size = slot[visible], fate[visible], size[visible]
            source = source.to(device)[visible]
            mix = None if mix is None else mix.to(device)[visible]
        protected[slot] = fate
        kept.append(slot)
        sizes.append(size)
        prompt.ledger.sources.append(Source(adapter.facts.grid, slots_to_prompt[slot], source, mix))
    prompt.protected = protected
    prompt.tags = tags.to(device)
    prompt.ledger.protected[slots_to_prompt] = protected
    keep, size = torch.cat(kept), torch.cat(sizes)
    if len(on_grid) < len(tags):
        off_grid = (tags == OFF_GRID).nonzero().flatten().to(device)
        keep = torch.cat([keep, off_grid])
        order = keep.argsort()
        keep, size = keep[order], torch.cat([size, size.new_ones(len(off_grid))])[order]
    return Reduction(keep, None, size)
