"""One forward pass over an image and many questions behind it. Knows no loss and no data.

    <s> USER: [vision tokens] | question 1 ASSISTANT: answer 1 | question 2 ...

Each question attends only to the image and itself, and its positions start at the image's end, so
its hidden states are the same as in a separate prompt. Vision tokens may be left out; the kept
ones have their original positions or are renumbered.
The Hugging Face modules compute everything except the attention. The attention is computed only
where it is not masked: within the image, from questions to the image, within each question.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
)

from mustdrop.pocket.model import BOS, FEATURE_LAYER, TOKEN_IDS
from mustdrop.pocket.scenes import GRID

OPENING = (BOS, TOKEN_IDS["USER:"])
_CLIP_STATISTICS = (CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std)


@dataclass(frozen=True)
class Packing:
    """Layout of a packed sequence.

    Attributes:
        opening: Number of tokens before the image.
        prefix: Number of tokens before the first question: the opening and the image.
        questions: Number of questions.
        words: Number of tokens per question.
        closed: Layers in which questions attend to the opening but not to the image.
    """

    opening: int
    prefix: int
    questions: int
    words: int
    closed: Collection[int] = ()


def normalise(pixels: UInt8[Tensor, "images 192 192 3"]) -> Float[Tensor, "images 3 192 192"]:
    """Normalise pixels like the processor, for images that already have the right size."""
    mean, deviation = (pixels.new_tensor(x, dtype=torch.float32) for x in _CLIP_STATISTICS)
    return ((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2)


def encode(
    model: LlavaForConditionalGeneration,
    images: Float[Tensor, "images 3 192 192"],
    kept: Int[Tensor, "images kept"],
) -> list[Float[Tensor, "images tokens hidden"]]:
    """Compute the encoder's hidden states after each block: CLS, then the kept patches."""
    tower = model.model.vision_tower
    embedded = tower.embeddings(images)
    chosen = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)  # CLS is token 0
    hidden = tower.pre_layrnorm(embedded.take_along_dim(chosen[..., None], dim=1))
    states = []
    for block in tower.encoder.layers:
        hidden = block(hidden, attention_mask=None)
        states.append(hidden)
    return states


def decode(
    model: LlavaForConditionalGeneration,
    features: Float[Tensor, "images kept vision_hidden"],
    slots: Int[Tensor, "images kept"],
    length: Int[Tensor, " images"],
    questions: Int[Tensor, "images questions words"],
    closed: Collection[int] = (),
    opening: Sequence[int] = OPENING,
) -> list[Float[Tensor, "images questions words hidden"]]:
    """Compute the questions' hidden states after each decoder layer, before the final norm.

    Args:
        model: Model to run.
        features: Encoder features of the kept patches.
        slots: Position of each kept patch, counted from the image's start, ascending.
        length: Number of positions that the image takes up.
        questions: Tokens of the questions.
        closed: Layers in which the questions do not attend to the image.
        opening: Tokens before the image.
    """
    language = model.model.language_model
    images, count, words = questions.shape
    first = slots.new_tensor(opening).expand(images, -1)
    text = language.embed_tokens(torch.cat([first, questions.flatten(1)], dim=1))
    vision = model.model.multi_modal_projector(features)
    packing = Packing(len(opening), len(opening) + slots.shape[1], count, words, closed)
    hidden = torch.cat([text[:, : len(opening)], vision, text[:, len(opening) :]], dim=1)
    positions = _positions(len(opening), slots, length, count, words)
    rotation = language.rotary_emb(hidden, position_ids=positions)
    states = []
    with _packed_attention(language.config):
        for layer in language.layers:
            hidden = layer(hidden, position_embeddings=rotation, packing=packing)
            states.append(hidden[:, packing.prefix :].reshape(images, count, words, -1))
    return states


def answers(
    model: LlavaForConditionalGeneration,
    pixels: UInt8[Tensor, "images 192 192 3"],
    kept: Int[Tensor, "images kept"],
    questions: Int[Tensor, "images questions words"],
    ends: Int[Tensor, "images questions"],
    closed: Collection[int] = (),
) -> Float[Tensor, "images questions vocabulary"]:
    """Compute the logits of the word after each question; patches have their original positions."""
    states = encode(model, normalise(pixels), kept)
    length = kept.new_full((len(kept),), GRID**2)
    hidden = decode(model, states[FEATURE_LAYER][:, 1:], kept, length, questions, closed)[-1]
    last = hidden.take_along_dim(ends[..., None, None], dim=2)[:, :, 0]
    return model.lm_head(model.model.language_model.norm(last))


def _positions(
    opening: int,
    slots: Int[Tensor, "images kept"],
    length: Int[Tensor, " images"],
    count: int,
    words: int,
) -> Int[Tensor, "images sequence"]:
    """Positions of ``opening`` tokens, the kept patches, and the words of ``count`` questions."""
    first = torch.arange(opening, device=slots.device).expand(len(slots), -1)
    question = length[:, None] + torch.arange(words, device=slots.device)
    return torch.cat([first, opening + torch.cat([slots, question.repeat(1, count)], 1)], 1)


@contextmanager
def _packed_attention(config: PreTrainedConfig) -> Iterator[None]:
    """Context in which the language model uses the packed attention of this module."""
    original = config._attn_implementation
    config._attn_implementation = "mustdrop_packed"
    try:
        yield
    finally:
        config._attn_implementation = original


def _attend(
    module: nn.Module,
    query: Float[Tensor, "images heads sequence width"],
    key: Float[Tensor, "images kv_heads sequence width"],
    value: Float[Tensor, "images kv_heads sequence width"],
    attention_mask: None,
    scaling: float,
    packing: Packing,
    **_: object,
) -> tuple[Float[Tensor, "images sequence heads width"], None]:
    """Compute softmax attention of a packed sequence without the masked pairs."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    prefix, questions, words = packing.prefix, packing.questions, packing.words
    query = query * scaling
    visible = packing.opening if module.layer_idx in packing.closed else prefix

    scores = query[:, :, :prefix] @ key[:, :, :prefix].mT
    image = (scores + _causal(prefix, scores)).softmax(-1) @ value[:, :, :prefix]

    def by_question(states: Tensor) -> Tensor:
        return states[:, :, prefix:].unflatten(2, (questions, words))

    to_image = query[:, :, prefix:] @ key[:, :, :visible].mT
    to_self = by_question(query) @ by_question(key).mT
    to_self = (to_self + _causal(words, to_self)).flatten(2, 3)
    weights = torch.cat([to_image, to_self], dim=-1).softmax(-1)
    from_self = weights[..., visible:].unflatten(2, (questions, words)) @ by_question(value)
    text = weights[..., :visible] @ value[:, :, :visible] + from_self.flatten(2, 3)
    return torch.cat([image, text], dim=2).transpose(1, 2), None


def _causal(size: int, like: Tensor) -> Float[Tensor, "{size} {size}"]:
    """Causal mask that is added to scores: -inf above the diagonal, else 0."""
    return torch.full((size, size), float("-inf"), device=like.device, dtype=like.dtype).triu(1)


AttentionInterface.register("mustdrop_packed", _attend)
