"""Losses of PocketSmol's training: word embeddings, answers, centres. Knows no schedule."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from mustdrop.pocket.font import CHARACTERS
from mustdrop.pocket.model import FEATURE_LAYER
from mustdrop.pocket.scenes import COLORS, GRID, SHAPES
from mustdrop.pocket.training.packing import decode, encode, normalise
from mustdrop.pocket.training.smol.batches import IGNORED, SmolBatch
from mustdrop.pocket.training.smol.text import ChatText

_BACKGROUND = 0.3  # weight of a background patch; also the length of its target
_AXES = (("left", "right"), ("above", "below"))  # words at -1 and 1 of a centre's coordinates


class PatchWords:
    """Where a patch should be among the language model's word embeddings.

    The target of a patch is the sum of the words of its object's colour, shape and character, plus
    the object's centre along two axes, which lead from "left" to "right" and "above" to "below".
    The patch at an object's centre may get the word "object" too, so that objects can be counted.

    Args:
        embedding: Word embeddings of the language model.
        text: Tokenizer.
    """

    def __init__(self, embedding: nn.Embedding, text: ChatText):
        def vector(word: str) -> Tensor:
            # A digit inside a sentence is a token of the space and a token of the digit.
            return embedding.weight.detach()[text.word_ids(word)[-1]]

        none = torch.zeros(embedding.embedding_dim)
        kinds = (list(COLORS), SHAPES, CHARACTERS)
        self.tables = [torch.stack([none, *map(vector, words)]) for words in kinds]
        self.axes = torch.stack([(vector(high) - vector(low)) / 2 for low, high in _AXES])
        self.background = _BACKGROUND * vector("background")
        self.mark = vector("object")

    def loss(
        self,
        vision: Float[Tensor, "images kept hidden"],
        batch: SmolBatch,
        axes: float,
        marks: float,
    ) -> Float[Tensor, ""]:
        """Squared distance of vision tokens from their targets, relative to the targets' size.

        Args:
            vision: Output of the connector.
            batch: Batch with the labels of the patches.
            axes: Length of the axes, as a multiple of half the distance between their words.
            marks: Share of the word "object" in the patch at an object's centre.
        """
        shown = batch.patch_labels[..., 0] > 0
        parts = [table[batch.patch_labels[..., i]] for i, table in enumerate(self.tables)]
        target = torch.stack(parts).sum(0) + batch.patch_centers @ (axes * self.axes)
        target = target + marks * batch.patch_marks[..., None] * self.mark
        target = torch.where(shown[..., None], target, self.background)
        weights = torch.where(shown, 1.0, _BACKGROUND * shown.float().mean())
        return (weights[..., None] * (vision - target) ** 2).sum() / (
            weights[..., None] * target**2
        ).sum()


def vision_features(
    model: LlavaForConditionalGeneration, batch: SmolBatch
) -> Float[Tensor, "images kept vision_hidden"]:
    """Compute the frozen encoder's features of the kept patches; it sees all patches."""
    everything = torch.arange(GRID**2).expand(len(batch.pixels), -1)
    with torch.no_grad():
        states = encode(model, normalise(batch.pixels), everything)[FEATURE_LAYER][:, 1:]
        return states.take_along_dim(batch.kept[..., None], dim=1)


def answer_logits(
    model: LlavaForConditionalGeneration, batch: SmolBatch, opening: Sequence[int], layer: int
) -> tuple[Float[Tensor, "answers vocabulary"], Float[Tensor, "images questions words hidden"]]:
    """Compute the logits of every answer token, and the normed hidden states after a layer.

    Matrix products are in bfloat16, which takes half the time; sums and norms are in float32.
    """
    features = vision_features(model, batch)
    norm = model.model.language_model.norm
    with torch.autocast(features.device.type, torch.bfloat16):
        hidden = decode(
            model, features, batch.slots, batch.length, batch.questions, opening=opening
        )
        # The vocabulary has 49153 words: logits of all tokens would cost more than all layers.
        answers = norm(hidden[-1][batch.targets != IGNORED])
        logits = model.lm_head(answers)
    return logits.float(), norm(hidden[layer].float())


def answer_loss(
    logits: Float[Tensor, "answers vocabulary"], batch: SmolBatch
) -> tuple[Float[Tensor, ""], Bool[Tensor, "images questions"]]:
    """Compute the mean loss of the answers' tokens, and whether each whole answer is right."""
    answered = batch.targets != IGNORED
    targets = batch.targets[answered]
    wrong = torch.zeros_like(batch.targets)
    wrong[answered] = (logits.argmax(-1) != targets).long()
    return cross_entropy(logits, targets), wrong.sum(-1) == 0


def grounding_loss(
    probe: nn.Linear, hidden: Float[Tensor, "images questions words hidden"], batch: SmolBatch
) -> Float[Tensor, ""]:
    """Distance between an object's centre and the centre read behind the words that name it."""
    states = hidden.take_along_dim(batch.mentions[..., None], dim=2)
    distance = (probe(states) - batch.mention_centers).abs().sum(-1)
    return (distance * batch.mention_weights).sum() / batch.mention_weights.sum().clamp(min=1)
