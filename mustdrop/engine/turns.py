"""Later turns: text that follows a prompt on its cut cache, such as a second question.

A prompt is prefilled and dropped once. Text after it is computed on the cut cache, one token or
several at a time. No strategy decides again, so the text must hold no vision token.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.cache import DecodePass
from mustdrop.engine.layout import valid
from mustdrop.engine.refuse import beyond_window
from mustdrop.engine.transformers_api import cache_in, slices_new_tokens
from mustdrop.models import ModelAdapter

VISUAL = (
    "pixel_values", "pixel_values_images", "pixel_values_videos", "image_sizes",
    "image_grid_thw", "video_grid_thw", "mm_token_type_ids", "token_type_ids", "second_per_grid_ts",
)  # fmt: skip
ANEW = "pass the whole conversation as one new prompt, without the cache"


def unfit_turn(
    adapter: ModelAdapter, decode: DecodePass | None, options: Mapping[str, Any], sequences: int
) -> None:
    """Raise if ``generate`` cannot continue with the filled cache that it got.

    Args:
        adapter: Facts about the model.
        decode: State of the last prefill.
        options: Arguments of the call.
        sequences: Number of sequences per prompt in this call.

    Raises:
        ValueError: With what the call needs.
    """
    decode = known(decode, cache_in(options))
    if not slices_new_tokens(adapter.model):
        raise ValueError(
            "generate with a filled KV cache: this version of transformers takes the length of a "
            "cut cache for that of the conversation; install transformers 5.12 or newer"
        )
    given = [name for name in VISUAL if options.get(name) is not None]
    if given:
        raise ValueError(
            f"a turn on a filled KV cache takes text alone, got {', '.join(given)}: a cut cache "
            f"cannot be searched again for what a new image needs; {ANEW}"
        )
    if sequences > 1:
        raise ValueError(
            f"a turn on a filled KV cache has one sequence per row of the cache, got {sequences}: "
            f"set num_beams and num_return_sequences to 1, or {ANEW}"
        )
    ids, mask = options.get("input_ids", options.get("inputs")), options.get("attention_mask")
    seen, prompt = decode.seen, decode.ids
    if ids is None or len(ids) != len(prompt):
        rows = "none" if ids is None else len(ids)
        raise ValueError(f"input_ids must have {len(prompt)} rows, as the KV cache has, got {rows}")
    if mask is None and any(decode.input_pads):
        raise ValueError("attention_mask must be given, because prompts in the cache are padded")
    length = ids.shape[1] if mask is None else mask.shape[1]
    if length == ids.shape[1] and length > seen:
        if not torch.equal(ids[:, : prompt.shape[1]].to(prompt), prompt):
            raise ValueError("input_ids must begin with the prompt that filled the KV cache")
        ids = ids[:, seen:]
    elif length != seen + ids.shape[1]:
        raise ValueError(
            f"input_ids has {ids.shape[1]} tokens, but the KV cache has seen {seen}: pass the "
            "whole conversation, or its new tokens with the whole conversation's attention_mask"
        )
    unfit_text(adapter, decode, {"input_ids": ids, "attention_mask": mask}, ids.shape[1])


def known(decode: DecodePass | None, cache: Any) -> DecodePass:
    """State of the prefill that filled a cache.

    Raises:
        ValueError: If it was not the last prefill under this dropper, or the cache was cropped.
    """
    if decode is None or cache is not decode.cache:
        raise ValueError(
            "this cache was not filled by the last prefill under this dropper; start with the "
            "whole prompt"
        )
    if decode.later < 0:
        raise ValueError(
            f"{-decode.later} tokens of the prompts were cropped from this cache, which cannot be "
            "followed; start with the whole prompt"
        )
    return decode


def unfit_text(
    adapter: ModelAdapter, decode: DecodePass, arguments: Mapping[str, Any], new: int
) -> None:
    """Raise if several tokens at once are no text that may follow the prompts of a cache.

    Args:
        adapter: Facts about the model.
        decode: State of the last prefill.
        arguments: Arguments of the model's forward.
        new: Number of tokens.

    Raises:
        ValueError: With what these tokens lack.
    """
    if decode.beams:
        raise ValueError(
            "a turn after beam search: its cache belongs to the beams that still ran, and not to "
            f"the sequences that it returned; {ANEW}"
        )
    ids: Int[Tensor, "batch new"] | None = arguments.get("input_ids")
    pixels = [name for name in VISUAL[:2] if arguments.get(name) is not None]
    if (
        pixels
        or ids is None
        or torch.isin(ids.cpu(), torch.tensor([*adapter.visual_inputs({})])).any()
    ):
        raise ValueError(
            f"{new} tokens after the prefill must be text, given as input_ids: vision tokens after "
            f"it could not be dropped together with those before; {ANEW}"
        )
    mask = arguments.get("attention_mask")
    if mask is None:
        return
    length = decode.seen + new
    expected = valid(decode.input_pads, length, mask.device)
    if mask.shape != expected.shape or not torch.equal(mask.bool(), expected):
        raise ValueError(
            f"attention_mask must cover the {length} tokens of the conversation, all of them but "
            f"the padding in front, got {tuple(mask.shape)} with {int(mask.sum())} tokens: where "
            "an answer of a batch ended early, continue it alone"
        )


def placed(
    adapter: ModelAdapter, decode: DecodePass | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a call after the prefill, with positions; the model would count the cache.

    Raises:
        ValueError: If its tokens cannot follow the prompts of the cache.
    """
    decode = known(decode, cache_in(arguments))
    tokens = arguments.get("input_ids")
    tokens = arguments.get("inputs_embeds") if tokens is None else tokens
    new = 1 if tokens is None else tokens.shape[1]
    beyond_window(adapter.window, decode.seen - min(decode.input_pads) + new)
    if new > 1:
        unfit_text(adapter, decode, arguments, new)
    if arguments.get("position_ids") is not None:
        return dict(arguments)
    return {**arguments, "position_ids": decode.next_positions(new)}


def whole_turns(prepare: Callable, decode: Callable[[], DecodePass | None]) -> Callable:
    """Make ``prepare_inputs_for_generation`` pass on all tokens that a cut cache has not seen.

    ``generate`` takes the length of layer 0's cache for the number of tokens that it has seen.

    Args:
        prepare: Method of the model.
        decode: Function that returns the state of the last prefill.
    """

    @wraps(prepare)
    def prepared(input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = decode()
        first = kwargs.get("is_first_iteration") and kwargs.get("next_sequence_length") is not None
        if first and state is not None and cache_in(kwargs) is state.cache:
            kwargs["next_sequence_length"] = input_ids.shape[1] - state.seen
        return prepare(input_ids, *args, **kwargs)

    return prepared
