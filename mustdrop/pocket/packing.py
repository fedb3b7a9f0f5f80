"""Many questions behind one image, in one forward pass. Knows no loss and no data.

    <s> USER: [vision tokens] | question 1 ASSISTANT: answer 1 | question 2 ...

Each question sees the image and itself only, and counts its positions from the image's end, so it
gets what it would get alone. Vision tokens may be left out; those kept stay at their positions.
The Hugging Face modules do all the maths: ours are the order, the mask and the positions.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from mustdrop.pocket.model import BOS, FEATURE_LAYER, TOKEN_IDS
from mustdrop.pocket.scenes import GRID

_OPENING = (BOS, TOKEN_IDS["USER:"])
_CLIP_STATISTICS = (CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std)


def normalise(pixels: UInt8[Tensor, "images 192 192 3"]) -> Float[Tensor, "images 3 192 192"]:
    """What the processor makes of an image that already has the right size."""
    mean, deviation = (pixels.new_tensor(x, dtype=torch.float32) for x in _CLIP_STATISTICS)
    return ((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2)


def encode(
    model: LlavaForConditionalGeneration,
    images: Float[Tensor, "images 3 192 192"],
    kept: Int[Tensor, "images kept"],
) -> list[Float[Tensor, "images tokens hidden"]]:
    """The encoder's hidden states after each block: CLS, then the kept patches."""
    tower = model.model.vision_tower
    embedded = tower.embeddings(images)
    chosen = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)  # CLS stands first
    hidden = tower.pre_layrnorm(embedded.take_along_dim(chosen[..., None], dim=1))
    states = []
    for block in tower.encoder.layers:
        hidden = block(hidden, attention_mask=None)
        states.append(hidden)
    return states


def decode(
    model: LlavaForConditionalGeneration,
    features: Float[Tensor, "images kept vision_hidden"],
    kept: Int[Tensor, "images kept"],
    questions: Int[Tensor, "images questions words"],
) -> tuple[Float[Tensor, "images questions words hidden"], ...]:
    """The language model's hidden states of the questions' words.

    Returns:
        The embeddings, the output of each layer but the last, and the last one after the final
        norm: what ``output_hidden_states`` gives.
    """
    language = model.model.language_model
    images, asked, words = questions.shape
    opening = kept.new_tensor(_OPENING).expand(images, -1)
    text = language.embed_tokens(torch.cat([opening, questions.flatten(1)], dim=1))
    vision = model.model.multi_modal_projector(features)
    prefix = len(_OPENING) + kept.shape[1]
    in_order = [text[:, : len(_OPENING)], vision, text[:, len(_OPENING) :]]
    outputs = language(
        inputs_embeds=torch.cat(in_order, dim=1),
        attention_mask=_mask(prefix, asked, words, features),
        position_ids=_positions(kept, asked, words),
        use_cache=False,
        output_hidden_states=True,
    )
    shape = (images, asked, words, -1)
    return tuple(hidden[:, prefix:].reshape(shape) for hidden in outputs.hidden_states)


def answers(
    model: LlavaForConditionalGeneration,
    pixels: UInt8[Tensor, "images 192 192 3"],
    kept: Int[Tensor, "images kept"],
    questions: Int[Tensor, "images questions words"],
    ends: Int[Tensor, "images questions"],
) -> Float[Tensor, "images questions vocabulary"]:
    """Logits of the word after each question's end."""
    states = encode(model, normalise(pixels), kept)
    hidden = decode(model, states[FEATURE_LAYER][:, 1:], kept, questions)[-1]
    return model.lm_head(hidden.take_along_dim(ends[..., None, None], dim=2)[:, :, 0])


def _positions(
    kept: Int[Tensor, "images kept"], asked: int, words: int
) -> Int[Tensor, "images sequence"]:
    opening = torch.arange(len(_OPENING), device=kept.device).expand(len(kept), -1)
    question = len(_OPENING) + GRID**2 + torch.arange(words, device=kept.device)
    return torch.cat(
        [opening, len(_OPENING) + kept, question.repeat(asked).expand(len(kept), -1)], dim=1
    )


def _mask(
    prefix: int, asked: int, words: int, like: Tensor
) -> Float[Tensor, "1 1 sequence sequence"]:
    """Added to the scores: causal, and nothing between two questions."""
    owner = torch.arange(asked, device=like.device).repeat_interleave(words)
    owner = torch.cat([owner.new_full((prefix,), -1), owner])
    seen = (owner[:, None] == owner) | (owner == -1)
    blocked = torch.full_like(seen, torch.finfo(like.dtype).min, dtype=like.dtype)
    return blocked.masked_fill(seen.tril(), 0.0)[None, None]
