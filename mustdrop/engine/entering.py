"""The language model's input: decisions at ``projected``, and slots that stage 1 emptied."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.engine.encoder import EncoderStage
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.layout import Prompt
from mustdrop.engine.prompt_vision import host_indices
from mustdrop.ledger import OFF_GRID
from mustdrop.reduction import Reduction
from mustdrop.sources import TokenSources


def entering(
    stage: EncoderStage,
    prompts: Sequence[Prompt],
    inputs: Float[Tensor, "batch seq dim"],
    pads: Sequence[int],
) -> tuple[Float[Tensor, "batch seq dim"], list[Reduction] | None]:
    """Let the strategy decide at ``projected``, and collect what stage 1 left. Fills the ledgers.

    Returns:
        The input embeddings, in which mixed tokens stand in the slots that they take, and the
        reduction of each prompt's vision slots; None: no slot is empty.

    Raises:
        ValueError: If the prompts' images are not those that were encoded.
    """
    expected = sum(len(prompt.shown.grids) for prompt in prompts)
    if expected != len(stage.encoded):
        raise ValueError(
            f"the prompts have {expected} images, but {len(stage.encoded)} were encoded"
        )
    _count_pairs(stage.encoded)
    reductions, mixed = [], []
    for number, prompt in enumerate(prompts):
        stage.batch = [stage.encoded[image] for image in prompt.shown.encoded]
        slots = _slots(prompt)
        _cut(stage.batch, slots)
        slots = _on_device(slots, inputs.device)
        if stage.at_input and stage.batch:
            rows = inputs[number, pads[number] :]
            mixed += [(number, *part) for part in _decide(stage, prompt, slots, rows)]
        reductions.append(_record(stage.batch, prompt, slots))
    if all(image.reduction is None for image in stage.encoded):
        return inputs, None
    if mixed:
        inputs = inputs.clone()
        for number, position, rows in mixed:
            inputs[number] = inputs[number].index_copy(0, position + pads[number], rows)
    return inputs, reductions


def _count_pairs(images: Sequence[EncodedImage]) -> None:
    """Copy the pairs of patches of all images to the host, with one wait for the device."""
    counts = [count for image in images for count in image.pairs.values()]
    numbers = iter(torch.stack(counts).tolist() if counts else ())
    for image in images:
        image.pair_counts = {block: next(numbers) for block in image.pairs}


def _on_device(slots: Sequence[Int[Tensor, " _"]], device: torch.device) -> list[Tensor]:
    """Slots of each image of a prompt on the device; they are copied together."""
    if not slots:
        return []
    return list(torch.cat(list(slots)).to(device).split([len(slot) for slot in slots]))


def _slots(prompt: Prompt) -> list[Int[Tensor, " _"]]:
    """Vision slot of each cell of each image; ``OFF_GRID`` if the model's packing cut it away."""
    starts, cells = prompt.shown.starts, prompt.shown.cells
    slot = torch.full((starts[-1],), OFF_GRID)
    on_grid = host_indices(cells != OFF_GRID)
    slot[cells[on_grid]] = on_grid
    sizes = [rows * columns for rows, columns in prompt.shown.grids]
    return list(slot.split(sizes)) if sizes else []


def _cut(images: Sequence[EncodedImage], slots: Sequence[Int[Tensor, " _"]]) -> None:
    """Remove tokens whose cells have no slot; waits for the device once if there are such cells."""
    holed = [pair for pair in zip(images, slots, strict=True) if (pair[1] == OFF_GRID).any()]
    if not holed:
        return
    cells = torch.cat([image.cells for image, _ in holed]).cpu()
    parts = cells.split([len(image) for image, _ in holed])
    for (image, slot), part in zip(holed, parts, strict=True):
        left = host_indices(slot[part] != OFF_GRID)
        if len(left) < len(image):
            image.cut(left.to(image.cells.device))


def _decide(
    stage: EncoderStage,
    prompt: Prompt,
    slots: Sequence[Int[Tensor, " _"]],
    rows: Float[Tensor, "prompt dim"],
) -> list[tuple[Int[Tensor, " _"], Float[Tensor, "_ dim"]]]:
    """Decide on a prompt's images; return the positions and rows of mixed tokens."""
    vision = prompt.vision_index()
    positions = [
        vision[slot[image.cells.to(vision)]] for image, slot in zip(stage.batch, slots, strict=True)
    ]
    hidden = [rows[position] for position in positions]
    decisions = stage.decide("projected", hidden)
    mixed = []
    for number, decision in enumerate(decisions):
        if decision is not None:
            stage.batch[number].count_macs(decision.macs(rows.shape[-1]))
            hidden[number] = decision(hidden[number])
            if decision.mixes:
                mixed.append((positions[number][decision.keep], hidden[number]))
    stage.mark("projected", hidden)
    return mixed


def _record(
    images: Sequence[EncodedImage], prompt: Prompt, slots: Sequence[Int[Tensor, " _"]]
) -> Reduction:
    """Record a prompt's key tokens and sources; return the reduction to the slots in use.

    Tokens enter image after image, in the order of the strategy. Where off-grid slots stand between
    them, such as newlines after rows, all enter in sequence order.
    """
    vision = prompt.vision_index()
    if not images:
        return Reduction(vision)
    protected = torch.zeros(len(vision), dtype=torch.bool, device=vision.device)
    kept, sizes = [], []
    for image, slot in zip(images, slots, strict=True):
        image.move(vision.device)
        kept.append(slot[image.cells])
        sizes.append(image.sizes)
        protected[kept[-1]] = image.protected
        whole = Reduction(image.cells) if image.reduction is None else image.reduction
        prompt.ledger.encoder.append(dict(image.blocks))
        prompt.ledger.encoder_decision_macs += image.decision_macs
        if image.pair_counts:
            prompt.ledger.encoder_pairs.append(image.pair_counts)
        prompt.ledger.sources.append(
            TokenSources(
                vision[kept[-1]], image.cells, whole.dense, whole.cls, whole.group, whole.share
            )
        )
    prompt.protected = protected
    prompt.ledger.protected[vision] = protected
    keep, size = torch.cat(kept), torch.cat(sizes)
    off_grid = host_indices(prompt.shown.cells == OFF_GRID).to(keep)
    if len(off_grid):  # the encoder never drops these
        keep = torch.cat([keep, off_grid])
        order = keep.argsort()
        keep, size = keep[order], torch.cat([size, size.new_ones(len(off_grid))])[order]
    return Reduction(keep, None, size)
