"""What an attached dropper is to do, and what it did in the last prefill."""

from dataclasses import dataclass, field
from typing import Literal

from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.image import EncodedImage
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction
from mustdrop.strategy import DecodeStrategy, KeyTokenStrategy, PrefillStrategy, VisionStrategy


@dataclass(frozen=True)
class Stages:
    """What to do at each stage, and how positions are counted."""

    vision: VisionStrategy | None
    key_tokens: KeyTokenStrategy | None
    prefill: PrefillStrategy | None
    decode: DecodeStrategy | None
    positions: Literal["original", "compact"]
    vision_positions: Literal["original", "compact"]
    decode_positions: Literal["continue", "cache_length"]
    log_scores: bool

    @property
    def drop(self) -> bool:
        """Whether any stage may take tokens away."""
        return any(stage is not None for stage in (self.vision, self.prefill, self.decode))


@dataclass(eq=False)
class DropRun:
    """What happened in the last prefill.

    Attributes:
        stages: What was to be done.
        ledgers: One per prompt.
        images: One per encoded image, in the order of the prompts; empty where no stage looks at
            the encoder.
        mixed: Layer -> each prompt's reduction, where a prefill strategy mixed tokens.
        finite: Notes on whether all numbers on the way to the answers were finite.
    """

    stages: Stages
    ledgers: list[TokenLedger] = field(default_factory=list)
    images: list[EncodedImage] = field(default_factory=list)
    mixed: dict[int, list[Reduction]] = field(default_factory=dict)
    finite: FiniteNotes = field(default_factory=FiniteNotes)

    def require_finite(self) -> None:
        """Check that no number on the way to the answers was infinite or NaN; asks the device.

        Raises:
            NotFinite: A ValueError that names the prompt, the stage and the dtype.
        """
        self.finite.require()
