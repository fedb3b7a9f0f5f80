"""Budget: the vision tokens per layer that a run may use, and the counts that meet it.

The executed average of a prompt is the number of vision tokens that enter a layer, averaged over
the layers. A strategy that acts once, after layer l of L, on N vision tokens and keeps k of them
has the executed average

    T = ((l + 1) N + (L - l - 1) k) / L.

Knows numbers only.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Budget:
    """Executed average that a run may use: a count of tokens, or a share of those that entered.

    Attributes:
        tokens: Vision tokens per layer, averaged over the layers; None: a share is given.
        share: Share of the vision tokens that entered, in [0, 1]; None: a count is given.
    """

    tokens: int | float | None = None
    share: int | float | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.share is None):
            raise ValueError(
                "a budget is a count of tokens or a share, as in Budget(tokens=128) or "
                f"Budget(share=0.222), got tokens={self.tokens!r}, share={self.share!r}"
            )
        for name, value, most in (("tokens", self.tokens, math.inf), ("share", self.share, 1.0)):
            if value is None:
                continue
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 0 <= value <= most:
                allowed = "a count, 0 or more" if name == "tokens" else "in [0, 1]"
                raise ValueError(f"budget: {name} must be {allowed}, got {value!r}")

    @classmethod
    def parse(cls, value: object) -> "Budget | None":
        """Budget that a user writes: ``128``, ``t128``, ``22.2%`` or ``640/2880``.

        None for ``none`` and None. The entry of a resolved config is read, too (:meth:`read`).

        Raises:
            ValueError: If the value is none of these.
        """
        if value is None or isinstance(value, Budget):
            return value
        if isinstance(value, Mapping):
            return cls.read(value)
        text = f"{value:.12g}" if isinstance(value, float) else str(value).strip()
        if text == "none":
            return None
        number = r"(\d+(?:\.\d+)?|\.\d+)"
        if not isinstance(value, bool):
            if count := re.fullmatch(f"t?{number}", text):
                tokens = float(count[1])
                return cls(tokens=int(tokens) if tokens.is_integer() else tokens)
            if percent := re.fullmatch(rf"{number}\s*%", text):
                return cls(share=float(percent[1]) / 100)
            parts = re.fullmatch(rf"{number}\s*/\s*{number}", text)
            if parts and float(parts[2]) != 0:
                return cls(share=float(parts[1]) / float(parts[2]))
        raise ValueError(
            "budget must be a count of tokens (128 or t128), a share of those that enter (22.2% or "
            f"640/2880), or none, got {value!r}"
        )

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None) -> "Budget | None":
        """Budget of a run, from the entry in its resolved config."""
        return None if not entry else cls(entry.get("tokens"), entry.get("share"))

    @property
    def name(self) -> str:
        """Name in folders and tables: ``t128`` or ``s22.2``."""
        if self.tokens is not None:
            return f"t{self.tokens:.12g}"
        assert self.share is not None
        return f"s{100 * self.share:.4g}"

    def __str__(self) -> str:
        if self.tokens is not None:
            return f"{self.tokens:.12g} tokens"
        assert self.share is not None
        return f"{100 * self.share:.4g} %"

    def target(self, entered: int) -> float:
        """Executed average that this budget asks for on a prompt of ``entered`` vision tokens."""
        if self.tokens is not None:
            return float(self.tokens)
        assert self.share is not None
        return self.share * entered


# Least executed average that a method can reach: a number of vision tokens per layer, or a share of
# those that enter as text ("9.1%") where prompts differ in size.
Floor = float | str


def floor_text(floor: Floor, digits: str = "g") -> str:
    """A floor in messages and tables: ``72`` or ``9.1%``; a number is formatted by ``digits``."""
    return floor if isinstance(floor, str) else format(floor, digits)


def keep_for(keep: int | Budget, entered: int, depth: int = 1, layer: int = -1) -> int:
    """Count to keep after a layer, so that the executed average is nearest to a budget.

    A budget below the least executed average gives 0, a budget above ``entered`` all tokens.

    Args:
        keep: Budget; a count is returned as it is.
        entered: Number of vision tokens that enter.
        depth: Number of decoder layers.
        layer: Layer after which tokens are dropped; -1 for the language model's input.

    Raises:
        ValueError: If there is no such layer.
    """
    if not isinstance(keep, Budget):
        return keep
    if isinstance(layer, bool) or not isinstance(layer, int) or not -1 <= layer <= depth - 2:
        raise ValueError(
            f"layer must be in [-1, {depth - 2}], the layers after which this model can drop, got "
            f"{layer}"
        )
    count = (depth * keep.target(entered) - (layer + 1) * entered) / (depth - layer - 1)
    return min(max(round(count), 0), entered)


def part_of(budget: Budget, first: int, end: int, total: int) -> int:
    """Count to keep of one image, so that the counts of a prompt's images add up to its budget.

    Args:
        budget: Budget of the prompt.
        first: Number of vision tokens of earlier images of the prompt.
        end: Number of vision tokens of earlier images and this one.
        total: Number of vision tokens of all images of the prompt.
    """
    target = min(budget.target(total), total)
    return round(target * end / total) - round(target * first / total)


def average(entered: int, after: Sequence[int | float], layers: Sequence[int], depth: int) -> float:
    """Executed average of a schedule.

    Args:
        entered: Number of tokens at the language model's input.
        after: Number of tokens left after each drop.
        layers: Layers after which tokens are dropped, ascending.
        depth: Number of decoder layers.
    """
    ends = [*(layer + 1 for layer in layers), depth]
    held = zip([entered, *after], [0, *ends], ends, strict=False)
    return sum(tokens * (end - start) for tokens, start, end in held) / depth


def rising_root(function: Callable[[float], float]) -> float:
    """Number in [0, 1], in steps of 2^-40, at which a rising function is nearest to 0."""
    steps = 1 << 40
    first = bisect_left(range(steps), 0.0, key=lambda step: function(step / steps))
    return min((max(first - 1, 0) / steps, first / steps), key=lambda x: abs(function(x)))


def require_ascending(layers: Sequence[int], depth: int) -> None:
    """Check that tokens can be dropped after these layers.

    Raises:
        ValueError: If they are not layers of this depth in ascending order.
    """
    if list(layers) != sorted({*layers}) or not -1 <= layers[0] <= layers[-1] <= depth - 2:
        raise ValueError(
            f"layers must be a list of ascending layers from -1 to {depth - 2}, got {list(layers)}"
        )
