"""One run of the vision encoder for several calls of a model on the same images.

Only for calls under droppers that leave the encoder as it is: a run of the encoder without drops
returns the same features to all of them. Knows nothing about what the calls are for.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from mustdrop.engine.exclusive import instance_method
from mustdrop.models import ModelAdapter
from mustdrop.stages import Stages

FEATURES = "get_image_features"  # method of a model that encodes its images; public in transformers
# States of all blocks, which are larger than the features and which no model reads after encoding.
LEFT_OUT = ("hidden_states", "attentions")


@dataclass(eq=False)
class SharedEncoding:
    """Image features of the last images, returned again to a call with the same images.

    The same images are the same tensors, not equal ones, so nothing waits for the device.

    Attributes:
        adapter: Adapter of the model.
        arguments: Arguments of the call that computed the features.
        features: What the model's method returned; None before a call.
    """

    adapter: ModelAdapter
    arguments: Mapping[str, Any] = field(default_factory=dict)
    features: Any = None

    @contextmanager
    def attach(self, dropper: Stages) -> Iterator[None]:
        """Share features while the context is open, unless the dropper changes the encoder."""
        base = self.adapter.base
        computed = getattr(base, FEATURES, None)
        if dropper.vision is not None or dropper.key_tokens is not None or computed is None:
            yield
            return

        @wraps(computed)  # generate reads the names of the arguments
        def features(*args: Any, **kwargs: Any) -> Any:
            arguments = {**dict(enumerate(args)), **kwargs}
            if self.features is None or not _same(arguments, self.arguments):
                self.features = _features_alone(computed(*args, **kwargs))
                self.arguments = arguments
            return _features_alone(self.features)

        with instance_method(base, FEATURES, features):
            yield

    def forget(self) -> None:
        """Discard the features."""
        self.arguments, self.features = {}, None


def _same(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> bool:
    """Whether two calls have the same arguments; tensors are the same if they are one object."""
    return first.keys() == second.keys() and all(
        value is second[name]
        if isinstance(value, Tensor) or isinstance(second[name], Tensor)
        else value == second[name]
        for name, value in first.items()
    )


def _features_alone(output: Any) -> Any:
    """A new output of the encoder without the states of its blocks."""
    if not isinstance(output, ModelOutput):
        return output
    return type(output)(**{name: value for name, value in output.items() if name not in LEFT_OUT})
