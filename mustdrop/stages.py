"""Stages of a dropper: its strategies and its rules for positions. Knows nothing about models."""

from dataclasses import dataclass
from typing import Literal, get_args

from mustdrop.fields import plain
from mustdrop.strategy import (
    DecodeStrategy,
    KeyTokenStrategy,
    PrefillStrategy,
    VisionStrategy,
    require_choices,
)

Positions = Literal["original", "compact"]
DecodePositions = Literal["continue", "cache_length"]
AttentionSource = Literal["cls", "received"]


@dataclass(frozen=True)
class Stages:
    """Strategy of each stage, and the rules for positions.

    The docstring of ``TokenDropper`` explains the fields and the errors.
    """

    vision: VisionStrategy | None = None
    key_tokens: KeyTokenStrategy | None = None
    prefill: PrefillStrategy | None = None
    decode: DecodeStrategy | None = None
    positions: Positions = "original"
    vision_positions: Positions = "original"
    decode_positions: DecodePositions = "continue"
    cls_attention: AttentionSource = "cls"
    log_scores: bool = False

    def __post_init__(self) -> None:
        require_strategy("vision", self.vision, VisionStrategy)
        require_strategy("key_tokens", self.key_tokens, KeyTokenStrategy)
        require_strategy("prefill", self.prefill, PrefillStrategy)
        require_strategy("decode", self.decode, DecodeStrategy)
        require_choices(
            positions=(self.positions, get_args(Positions)),
            vision_positions=(self.vision_positions, get_args(Positions)),
            decode_positions=(self.decode_positions, get_args(DecodePositions)),
            cls_attention=(self.cls_attention, get_args(AttentionSource)),
        )
        plain(f"{type(self).__name__}.log_scores", self.log_scores, bool)

    @property
    def may_drop(self) -> bool:
        """Whether any stage may drop tokens."""
        return any(stage is not None for stage in (self.vision, self.prefill, self.decode))


def require_strategy(name: str, value: object, kind: type) -> None:
    """Check that a stage is a strategy of its kind, or None.

    Raises:
        TypeError: With the expected and the given class.
    """
    if value is not None and not isinstance(value, kind):
        hint, given = "", type(value).__name__
        if given in ("DictConfig", "dict"):
            hint = "; build it first with hydra.utils.instantiate"
        elif isinstance(value, type):
            hint, given = "; pass an instance, not the class", f"the class {value.__name__}"
        raise TypeError(f"{name} must be a {kind.__name__} or None, got {given}{hint}")
