"""What the plain model, with nothing dropped, hands to its language model and its encoders."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mustdrop.models import EncoderPart, ModelAdapter


class _LanguageModelCalled(Exception):
    """Ends the plain model's call as soon as its language model was called."""


def plain_inputs(model: Any, adapter: ModelAdapter, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments that the plain model hands to its language model, and the calls of its encoders."""
    given: dict[str, Any] = {"encoded": []}

    def text(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given.update(kwargs)
        raise _LanguageModelCalled

    def encode(encoder: EncoderPart) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given["encoded"] += [(encoder, pixels) for pixels in encoder.pixels(args, kwargs)]

        return hook

    hooks = [adapter.language_model.register_forward_pre_hook(text, with_kwargs=True)]
    for encoder in adapter.encoders:
        hook = encode(encoder)
        hooks.append(encoder.module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=0,
        )
    except _LanguageModelCalled:
        return given
    finally:
        for hook in hooks:
            hook.remove()
    raise AssertionError("the plain model did not call its language model")
