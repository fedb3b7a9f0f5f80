"""One run of the vision encoder for several calls of a model on the same images.

Only for calls under droppers that leave the encoder as it is: a run of the encoder without drops
returns the same features to all of them. Knows nothing about what the calls are for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from mustdrop.engine.exclusive import instance_method
from mustdrop.models import ModelAdapter
from mustdrop.stages import Stages

# Methods of a model that encode its images and its videos; public in transformers.
ENCODING = ("get_image_features", "get_video_features")
# States of all blocks, which are larger than the features and which no model reads after encoding.
LEFT_OUT = ("hidden_states", "attentions")


@dataclass(eq=False)
class SharedEncoding:
    """Features of the last images and videos, returned again to a call with the same ones.

    The same images are the same tensors, not equal ones, so nothing waits for the device.

    Attributes:
        adapter: Adapter of the model.
        calls: Arguments of the last call of each method, and what it returned.
    """

    adapter: ModelAdapter
    calls: dict[str, tuple[Mapping[Any, Any], Any]] = field(default_factory=dict)

    @contextmanager
    def attach(self, dropper: Stages) -> Iterator[None]:
        """Share features while the context is open, unless the dropper changes the encoder."""
        base = self.adapter.base
        changes = dropper.vision is not None or dropper.key_tokens is not None
        with ExitStack() as stack:
            for name in () if changes else ENCODING:
                if hasattr(base, name):
                    stack.enter_context(instance_method(base, name, self._sharing(name)))
            yield

    def _sharing(self, name: str) -> Callable[..., Any]:
        """The method of this name, which is called only for other images than the last ones."""
        computed = getattr(self.adapter.base, name)

        @wraps(computed)  # generate reads the names of the arguments
        def features(*args: Any, **kwargs: Any) -> Any:
            arguments = {**dict(enumerate(args)), **kwargs}
            if name not in self.calls or not _same(arguments, self.calls[name][0]):
                self.calls[name] = arguments, _features_alone(computed(*args, **kwargs))
            return _features_alone(self.calls[name][1])

        return features

    def forget(self) -> None:
        """Discard the features."""
        self.calls = {}


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
