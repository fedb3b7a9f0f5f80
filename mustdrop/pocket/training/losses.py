"""Training losses: answers, and labels of patches, images and nouns. Knows no schedule.

Because of the labels a model of a million parameters learns in minutes. The targets are: for each
patch, what it shows and the centre of that object; for CLS, what the image contains; for each noun,
the position of its object. The readouts of these labels exist only in training and are not
exported.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import LlavaForConditionalGeneration

from mustdrop.pocket.model import EOS, FEATURE_LAYER
from mustdrop.pocket.training.batches import CENSUS, PATCH_CLASSES, Batch
from mustdrop.pocket.training.packing import decode, encode, normalise
from mustdrop.pocket.training.recipe import Stage

_BACKGROUND = 0.15  # weight of a patch without an object
_CENSUS = 10.0  # weight of the census, which is a mean over 62 mostly easy labels
_STOP = 0.1  # weight of the end-of-sequence token after the answer


class Probes(nn.Module):
    """Linear readouts of patches, of CLS, and of nouns in the language model."""

    def __init__(self, vision_hidden: int, hidden: int, seed: int = 0):
        super().__init__()
        self.patch = nn.Linear(vision_hidden, sum(PATCH_CLASSES) + 2)
        self.census = nn.Linear(vision_hidden, CENSUS)
        self.mention = nn.Linear(hidden, 2)
        draws = torch.Generator().manual_seed(seed)
        for readout in (self.patch, self.census, self.mention):
            nn.init.normal_(readout.weight, std=0.02, generator=draws)
            nn.init.zeros_(readout.bias)


def objective(
    model: LlavaForConditionalGeneration,
    probes: Probes,
    batch: Batch,
    stage: Stage,
    probe_layer: int,
) -> tuple[Float[Tensor, ""], Bool[Tensor, "images questions"] | None]:
    """Compute the stage's weighted sum of losses, and whether each answer is right.

    The second result is None in a stage without questions.
    """
    states = encode(model, normalise(batch.pixels), batch.kept)
    loss = stage.dense * dense_loss(model, probes, states, batch)
    if not stage.questions:
        return loss, None
    features = states[FEATURE_LAYER][:, 1:]
    hidden = decode(model, features, batch.slots, batch.length, batch.questions, stage.closed)
    norm = model.model.language_model.norm
    answer, right = answer_loss(model, norm(hidden[-1]), batch)
    loss = loss + answer
    if stage.early or stage.grounding:
        probed = norm(hidden[probe_layer])
        loss = loss + stage.early * answer_loss(model, probed, batch, stop=False)[0]
        loss = loss + stage.grounding * grounding_loss(probes, probed, batch)
    return loss, right


def dense_loss(
    model: LlavaForConditionalGeneration,
    probes: Probes,
    states: list[Float[Tensor, "images tokens hidden"]],
    batch: Batch,
) -> Float[Tensor, ""]:
    """Compute the loss of the patch labels and of the census.

    Patches are read from the block that the language model reads, CLS from the last block. The
    census is the only loss on the last block, whose features the language model never reads: it
    makes CLS attend to the objects, like the CLS of a contrastively trained encoder.
    """
    *logits, centers = probes.patch(states[FEATURE_LAYER][:, 1:]).split([*PATCH_CLASSES, 2], dim=-1)
    shown = batch.patch_labels[..., 0] > 0
    weights = torch.where(shown, 1.0, _BACKGROUND)
    loss = logits[0].new_zeros(())
    for kind, scores in enumerate(logits):
        labels = batch.patch_labels[..., kind]
        errors = cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
        loss = loss + (errors * weights.flatten()).sum() / weights.sum()
    distance = (centers - batch.patch_centers).abs().sum(-1)
    loss = loss + (distance * shown).sum() / shown.sum().clamp(min=1)
    census = probes.census(model.model.vision_tower.post_layernorm(states[-1][:, 0]))
    return loss + _CENSUS * binary_cross_entropy_with_logits(census, batch.census)


def answer_loss(
    model: LlavaForConditionalGeneration,
    hidden: Float[Tensor, "images questions words hidden"],
    batch: Batch,
    stop: bool = True,
) -> tuple[Float[Tensor, ""], Bool[Tensor, "images questions"]]:
    """Compute the loss of the answer at "ASSISTANT:" and, if ``stop``, of ending after it.

    Returns:
        The loss, and whether each answer is right.
    """
    logits = model.lm_head(_at(hidden, batch.ends))
    loss = cross_entropy(logits.flatten(0, 1), batch.answers.flatten())
    if stop:
        after = model.lm_head(_at(hidden, batch.ends + 1)).flatten(0, 1)
        loss = loss + _STOP * cross_entropy(after, after.new_full((len(after),), EOS).long())
    return loss, logits.argmax(-1) == batch.answers


def grounding_loss(
    probes: Probes, hidden: Float[Tensor, "images questions words hidden"], batch: Batch
) -> Float[Tensor, ""]:
    """Distance between a noun's object and its position as read from the noun's hidden state."""
    nouns = hidden.take_along_dim(batch.mentions[..., None], dim=2)
    distance = (probes.mention(nouns) - batch.mention_centers).abs().sum(-1)
    return (distance * batch.mention_weights).sum() / batch.mention_weights.sum().clamp(min=1)


def _at(
    hidden: Float[Tensor, "images questions words hidden"], words: Tensor
) -> Float[Tensor, "images questions hidden"]:
    return hidden.take_along_dim(words[..., None, None], dim=2)[:, :, 0]
