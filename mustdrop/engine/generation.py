"""Options of ``generate``: which are refused and why, and how many sequences a prompt gets."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from mustdrop.engine.transformers_api import encodes_before_repeating

_SPECULATION = (
    "its prefill holds guessed tokens after the prompt, which would take part in deciding which "
    "vision tokens stay"
)
_TWO_PASSES = "it runs the model on a second prompt or on other layers, which no ledger records"
_CACHE = "its layers cannot be cut to different lengths; leave the cache dynamic"
_HUB = "its decoding loop comes from outside transformers and may call the model in any way"
# Option -> (values that are harmless, reason why every other value is refused).
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "prefill_chunk_size": (
        (None,), "a chunk of the prompt lacks the text that decides which tokens stay",
    ),
    "cache_implementation": ((None, "dynamic"), _CACHE),
    "use_cache": (
        (None, True),
        "every step would be a new prefill, in which the answer's own tokens decide which vision "
        "tokens stay",
    ),
    "compile_config": ((None,), "a compiled model ignores hooks"),
    "inputs_embeds": ((None,), "vision slots are known by input_ids alone"),
    "mm_encoder_outputs": ((None,), "images must pass the encoder under the dropper"),
    "assistant_model": ((None,), _SPECULATION),
    "prompt_lookup_num_tokens": ((None,), _SPECULATION),
    "assistant_early_exit": ((None,), _SPECULATION),
    "speculation_type": ((None,), _SPECULATION),
    "use_mtp": ((None, False), _SPECULATION),
    "guidance_scale": ((None, 1), _TWO_PASSES),
    "negative_prompt_ids": ((None,), _TWO_PASSES),
    "dola_layers": ((None,), _TWO_PASSES),
    "penalty_alpha": ((None,), _HUB),
    "custom_generate": ((None,), _HUB),
    "num_beam_groups": ((None, 1), _HUB),
    "constraints": ((None,), _HUB),
    "force_words_ids": ((None,), _HUB),
    "token_healing": ((None, False), "it rewrites the end of the prompt after it was read"),
}  # fmt: skip


# Methods that run the model for many requests at once, in a cache of pages.
BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")


def refuse_batching(name: str) -> Callable:
    """A method that refuses continuous batching."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"{name} is not supported while tokens are dropped: its cache consists of pages that "
            "cannot be cut; call generate with a batch of prompts"
        )

    return refused


def option(model: PreTrainedModel, arguments: Mapping[str, Any], name: str) -> Any:
    """Value of an option of ``generate``: of the call, its configuration, or the model's."""
    value = arguments.get(name)
    for config in (arguments.get("generation_config"), model.generation_config):
        if value is None and config is not None and name in config.__dict__:
            value = config.__dict__[name]
    return value


def unfit_options(model: PreTrainedModel, arguments: Mapping[str, Any]) -> None:
    """Raise on options of ``generate`` that dropping does not support.

    Raises:
        ValueError: With the name of the option, its value and the reason.
    """
    for name, (harmless, reason) in REFUSED.items():
        value = option(model, arguments, name)
        if isinstance(value, torch.Tensor):
            text = f"a tensor of {tuple(value.shape)}"
        elif isinstance(value, torch.nn.Module):
            text = f"a {type(value).__name__}"
        elif any(value is allowed or value == allowed for allowed in harmless):
            continue
        else:
            text = repr(value)
        raise ValueError(
            f"generate({name}={text}) is not supported while tokens are dropped: {reason}"
        )


class Sequences(NamedTuple):
    """Sequences that ``generate`` decodes.

    Attributes:
        per_prompt: Number of sequences of each prompt.
        beams: Whether they are beams, whose caches are reordered and which may be given up.
    """

    per_prompt: int = 1
    beams: bool = False


def sequences(model: PreTrainedModel, arguments: Mapping[str, Any]) -> Sequences:
    """Sequences that a call of ``generate`` asks for.

    Raises:
        ValueError: If this version of transformers repeats images, not their features.
    """
    beams = int(option(model, arguments, "num_beams") or 1)
    count = max(beams, int(option(model, arguments, "num_return_sequences") or 1))
    if count > 1 and not encodes_before_repeating(model):
        raise ValueError(
            f"generate with {count} sequences per prompt needs a version of transformers that "
            "encodes images before it repeats the prompts: install transformers 5.20 or newer"
        )
    return Sequences(count, beams > 1)
