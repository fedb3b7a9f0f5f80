"""The language model's input: decisions at ``projected``, and slots that stage 1 emptied."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.engine.encoder import EncoderStage
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.layout import Prompt
from mustdrop.engine.prompt_vision import slots_of
from mustdrop.functional import true_indices
from mustdrop.ledger import OFF_GRID
from mustdrop.reduction import Reduction
from mustdrop.sources import TokenSources


def entering(
    stage: EncoderStage,
    prompts: Sequence[Prompt],
    inputs: Float[Tensor, "batch seq dim"],
    pads: Sequence[int],
    added: Sequence[Float[Tensor, "batch seq dim"]],
) -> tuple[Float[Tensor, "batch seq dim"], list[Reduction] | None]:
    """Let the strategy decide at ``projected``, and collect what stage 1 left. Fills the ledgers.

    Args:
        stage: Stage 1, after all calls of the encoders.
        prompts: State of each prompt.
        inputs: Input embeddings of the language model.
        pads: Padding in front of each prompt.
        added: States that the model adds after its first layers; mixed in place, as the tokens are.

    Returns:
        The input embeddings, in which mixed tokens stand in the slots that they take, and the
        reduction of each prompt's vision slots; None: no slot is empty.

    Raises:
        ValueError: If the prompts' images are not those that were encoded.
    """
    stage.arrive(inputs.device)
    expected = sum(len(prompt.shown.grids) for prompt in prompts)
    if expected != len(stage.encoded):
        raise ValueError(
            f"the prompts have {expected} images, but {len(stage.encoded)} were encoded"
        )
    _count_pairs(stage.encoded)
    images = [[stage.encoded[number] for number in prompt.shown.encoded] for prompt in prompts]
    slots = [slots_of(prompt.cells, prompt.shown.grids) for prompt in prompts]
    stage.batch = [image for part in images for image in part]
    mixed = []
    if stage.at_input and stage.batch:
        mixed = _decide(stage, prompts, [slot for part in slots for slot in part], inputs, pads)
    if added and stage.batch:
        _mix_added(stage, prompts, [slot for part in slots for slot in part], added, pads)
    batch = zip(images, prompts, slots, strict=True)
    reductions = [_record(part, prompt, slot) for part, prompt, slot in batch]
    if all(image.reduction is None for image in stage.encoded):
        return inputs, None
    if mixed:
        inputs = inputs.clone()
        for number, position, rows in mixed:
            inputs[number] = inputs[number].index_copy(0, position, rows)
    return inputs, reductions


def _count_pairs(images: Sequence[EncodedImage]) -> None:
    """Copy the pairs of patches of all images to the host, with one wait for the device."""
    counts = [count for image in images for count in image.pairs.values()]
    numbers = iter(torch.stack(counts).tolist() if counts else ())
    for image in images:
        image.pair_counts = {block: next(numbers) for block in image.pairs}


def _decide(
    stage: EncoderStage,
    prompts: Sequence[Prompt],
    slots: Sequence[Int[Tensor, " _"]],
    inputs: Float[Tensor, "batch seq dim"],
    pads: Sequence[int],
) -> list[tuple[int, Int[Tensor, " _"], Float[Tensor, "_ dim"]]]:
    """Decide on the images of all prompts; return prompt, positions and rows of mixed tokens."""
    vision = [prompt.vision_index() + pad for prompt, pad in zip(prompts, pads, strict=True)]
    owners = [image.image.prompt for image in stage.batch]
    positions = [
        vision[owner][slot[image.cells.to(slot)]]
        for image, owner, slot in zip(stage.batch, owners, slots, strict=True)
    ]
    hidden = [inputs[owner][part] for owner, part in zip(owners, positions, strict=True)]
    decisions = stage.decide("projected", hidden)
    mixed = []
    for number, decision in enumerate(decisions):
        if decision is not None:
            stage.batch[number].count_macs(decision.macs(inputs.shape[-1]))
            hidden[number] = decision(hidden[number])
            if decision.mixes:
                mixed.append((owners[number], positions[number][decision.keep], hidden[number]))
    stage.mark("projected", hidden)
    return mixed


def _mix_added(
    stage: EncoderStage,
    prompts: Sequence[Prompt],
    slots: Sequence[Int[Tensor, " _"]],
    added: Sequence[Float[Tensor, "batch seq dim"]],
    pads: Sequence[int],
) -> None:
    """Mix the states that come later, in place, as the tokens of each image were mixed.

    A decision before the end of a block has mixed what is projected of its output already.
    """
    for states, block in zip(added, stage.part.added_projectors, strict=True):
        for image, slot in zip(stage.batch, slots, strict=True):
            if not any(step.mixes for step in image.steps.values()):
                continue
            owner = image.image.prompt
            position = (prompts[owner].vision_index() + pads[owner])[slot].to(states.device)
            rows = states[owner][position]
            for location, step in image.steps.items():
                before = isinstance(location, int) and location < block + stage.inside
                if not before:
                    image.count_macs(step.macs(rows.shape[-1]))
                rows = rows[step.keep.to(rows.device)] if before else step.to(rows.device)(rows)
            kept = position[image.cells.to(position.device)]
            states[owner] = states[owner].index_copy(0, kept, rows)


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
                vision[kept[-1]], image.cells, whole.matrix, whole.cls, whole.group, whole.share
            )
        )
    prompt.protected = protected
    prompt.ledger.protected[vision] = protected
    keep, size = torch.cat(kept), torch.cat(sizes)
    off_grid = true_indices(prompt.cells == OFF_GRID, prompt.shown.off_grid)
    if len(off_grid):  # the encoder never drops these
        keep = torch.cat([keep, off_grid])
        order = keep.argsort()
        keep, size = keep[order], torch.cat([size, size.new_ones(len(off_grid))])[order]
    return Reduction(keep, None, size)
