"""Parts of a prefill, from time marks around modules and around the hooks of a dropper.

A mark before the first hook of a module and one after the last show how long all of its hooks take.
The parts cover the prefill without a gap, so that they sum to its time:

  entry      checks of the inputs, and slots that the encoder emptied leave the prompt
  encoder    the model's own encoder and projector
  vision     decisions in the encoder
  key_tokens decisions on key tokens, where the projector is reached
  layers     the model's own decoder layers
  prefill    decisions between decoder layers: scores, selection, and the shorter sequence
  cache      deferred checks, and the cut of the KV cache
  head       the language-model head, and the choice of the first token
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mustdrop.models import ModelAdapter
from mustdrop.profiling.device import Device, Mark
from mustdrop.stages import Stages

PARTS = ("entry", "encoder", "vision", "key_tokens", "layers", "prefill", "cache", "head")
DECISIONS = ("entry", "vision", "key_tokens", "prefill", "cache")


class PartClock:
    """Marks of one prefill.

    Args:
        device: Device to measure on.
        adapter: Adapter of the model.
        stages: Stages of the method; stages without strategies for the plain model.
    """

    def __init__(self, device: Device, adapter: ModelAdapter, stages: Stages) -> None:
        self.device, self.adapter, self.stages = device, adapter, stages
        self.spans: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Add the marks; call it inside the context of the dropper."""
        # profiled prompts hold images, which the first encoder gets
        adapter, stages, part = self.adapter, self.stages, self.adapter.encoders[0]
        with ExitStack() as stack:

            def around(module: Any, label: str, after: bool = False) -> None:
                add: Callable[..., Any] = (
                    module.register_forward_hook if after else module.register_forward_pre_hook
                )
                begin: list[Mark] = []

                def first(*_: Any) -> None:
                    begin.append(self.device.mark())

                def last(*_: Any) -> None:
                    self.spans.append((label, begin.pop(), self.device.mark()))

                stack.callback(add(first, prepend=True).remove)
                stack.callback(add(last).remove)

            for module in (adapter.model, adapter.base, adapter.language_model):
                around(module, "entry")
            around(part.module, "vision")
            at_features = stages.vision is not None and "features" in stages.vision.places
            both = "key_tokens" if stages.key_tokens is not None and not at_features else "vision"
            inside = stages.vision is not None and stages.vision.inside_block
            for block in part.blocks:
                around(block, "vision")
                around(part.attention(block), both, after=True)
                if inside:
                    norm, mlp = part.mlp(block)
                    around(norm, "vision")
                    around(mlp, "vision", after=True)
            around(adapter.projector, both)
            around(adapter.projector, "vision", after=True)
            for layer in adapter.layers:
                around(layer, "prefill")
            around(adapter.language_model, "cache", after=True)
            yield

    def milliseconds(self, start: Mark, end: Mark) -> dict[str, float]:
        """Time of each part of a prefill between two marks; call ``device.wait()`` first."""
        between = self.device.milliseconds
        times: dict[str, float] = {name: 0.0 for name in PARTS}
        for label, begin, finish in self.spans:
            times[label] += between(begin, finish)
        entry = [span for span in self.spans if span[0] == "entry"][-1]
        (cache,) = (span for span in self.spans if span[0] == "cache")
        # where a decision is part of the encoder or of the decoder, its time is taken off
        ahead = sum(between(b, e) for name, b, e in self.spans if name == "entry")
        ahead -= between(entry[1], entry[2])
        deciding = times["vision"] + times["key_tokens"]
        times["encoder"] = between(start, entry[1]) - ahead - deciding
        times["layers"] = between(entry[2], cache[1]) - times["prefill"]
        times["head"] = between(cache[2], end)
        return times


def decisions(times: Mapping[str, float]) -> float:
    """Time of all decisions of a method."""
    return sum(times[name] for name in DECISIONS)
