"""Private and changing parts of transformers that the engine uses, each with the versions it fits.

What else the engine rests on is public: forward hooks of torch, ``AttentionInterface``'s table and
``DynamicCache``. Tests run this file on the oldest and newest version (`make test-versions`).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from packaging.version import Version
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import ModelOutput

OLDEST, BELOW = "5.0", "5.25"
# Names of the KV cache in the arguments of a forward: the first since 5.24, where the second works
# until 5.40; only the second before.
CACHE_NAMES = ("cache", "past_key_values")


def require_version() -> None:
    """Check that the installed transformers is one that dropping is tested with.

    Raises:
        ValueError: With the range of versions.
    """
    installed = Version(transformers.__version__)
    if not Version(OLDEST) <= Version(installed.base_version) < Version(BELOW):
        raise ValueError(
            f"dropping is tested with transformers {OLDEST} to below {BELOW}, got {installed}: "
            f"pip install 'transformers>={OLDEST},<{BELOW}'"
        )


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The KV cache among the arguments of a call, whatever its name; None: there is none."""
    for name in CACHE_NAMES:
        if arguments.get(name) is not None:
            return arguments[name]
    return None


def is_filled(cache: Any) -> bool:
    """Whether a KV cache is given and holds tokens, so that a call continues with it."""
    return isinstance(cache, Cache) and cache.get_seq_length() > 0


def named_arguments(
    function: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments of a call by name."""
    if not args:
        return dict(kwargs)
    return {**inspect.signature(function).bind_partial(*args).arguments, **kwargs}


def cache_name(module: nn.Module) -> str:
    """Name of the KV cache in the arguments of a module's forward."""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in CACHE_NAMES if name in parameters), CACHE_NAMES[-1])


def with_cache(arguments: Mapping[str, Any], name: str, cache: Cache) -> dict[str, Any]:
    """Arguments of a call with another KV cache, under ``name``."""
    others = {key: value for key, value in arguments.items() if key not in CACHE_NAMES}
    return {**others, name: cache}


def unfit_layers(cache: Cache) -> list[str]:
    """Kinds of a cache's layers that cannot be cut; empty: all are plain.

    ``layer_class_to_replicate`` and ``offloading`` are attributes since 5.0.
    """
    kinds = {type(layer) for layer in cache.layers}
    if cache.layer_class_to_replicate is not None:
        kinds.add(cache.layer_class_to_replicate)
    names = sorted(kind.__name__ for kind in kinds - {DynamicLayer})
    return names or (["offloaded layers"] if cache.offloading else [])


def plain_cache(cache: Cache) -> Cache:
    """A plain cache in place of an empty one, some of whose layers would forget old tokens.

    ``DynamicSlidingWindowLayer`` since 4.56. Any other cache is returned as it is.
    """
    kinds = {type(layer) for layer in cache.layers}
    windowed = kinds <= {DynamicLayer, DynamicSlidingWindowLayer} and len(kinds - {DynamicLayer})
    return DynamicCache() if windowed and not is_filled(cache) else cache


def encodes_before_repeating(model: nn.Module) -> bool:
    """Whether ``generate`` encodes images before it repeats prompts for their sequences.

    Since 5.20; older versions repeat the pixels, in another order for each family.
    """
    return "mm_encoder_outputs" in inspect.signature(model.forward).parameters


def slices_new_tokens(model: Any) -> bool:
    """Whether ``generate`` says how many last tokens a cache lacks (since 5.12; 5.2 does not)."""
    # a model's own method may hand all arguments on to the usual one
    usual: Any = GenerationMixin  # its methods are typed for models alone
    methods = (model.prepare_inputs_for_generation, usual.prepare_inputs_for_generation)
    return any("next_sequence_length" in inspect.signature(method).parameters for method in methods)


def without_cache(output: ModelOutput) -> ModelOutput:
    """Output of a module without its KV cache, whatever the cache's name."""
    return type(output)(**{k: value for k, value in output.items() if k not in CACHE_NAMES})


def local_attention_functions() -> dict[str, Callable]:
    """The part of the table of attention functions that this process added or replaced.

    The table's own mapping, ``_local_mapping`` since 5.0; the class attribute below it is shared
    and stays untouched.
    """
    return ALL_ATTENTION_FUNCTIONS._local_mapping


def file_names(module: nn.Module) -> Mapping[str, Any]:
    """Global names of the file that defines a module's forward."""
    return inspect.unwrap(type(module).forward).__globals__


def reads_eager() -> bool:
    """Whether models look eager attention up in the table too (since 5.2; 5.0 does not)."""
    return hasattr(ALL_ATTENTION_FUNCTIONS, "get_interface")


def eager_attention(module: nn.Module) -> Callable:
    """Eager attention of a module: a function in the file of its class, in no table.

    Raises:
        ValueError: If the file has no ``eager_attention_forward`` (its name since 4.48).
    """
    names = file_names(module)
    if "eager_attention_forward" not in names:
        raise ValueError(
            f"{type(module).__name__} attends eagerly by a function that is not called "
            "eager_attention_forward; load the model with attn_implementation='sdpa'"
        )
    return names["eager_attention_forward"]
