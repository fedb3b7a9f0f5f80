"""Settings of an attached dropper, and the record of its last prefill."""

from dataclasses import dataclass, field
from typing import Literal

from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.image import EncodedImage
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction
from mustdrop.strategy import DecodeStrategy, KeyTokenStrategy, PrefillStrategy, VisionStrategy


@dataclass(frozen=True)
class Stages:
    """Strategy of each stage, and the rules for positions."""

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
        """Whether any stage may drop tokens."""
        return any(stage is not None for stage in (self.vision, self.prefill, self.decode))


@dataclass(eq=False)
class DropRun:
    """Record of the last prefill.

    Attributes:
        stages: Settings of the dropper.
        ledgers: Ledger of each prompt.
        images: State of each encoded image, in the order of the prompts; empty without stages 1
            and 1b.
        mixed: Layer -> reduction of each prompt, where a prefill strategy mixed tokens.
        finite: Notes on whether all numbers on the way to the answers were finite.
    """

    stages: Stages
    ledgers: list[TokenLedger] = field(default_factory=list)
    images: list[EncodedImage] = field(default_factory=list)
    mixed: dict[int, list[Reduction]] = field(default_factory=dict)
    finite: FiniteNotes = field(default_factory=FiniteNotes)

    def require_finite(self) -> None:
        """Check that no number on the way to the answers was infinite or NaN; reads the device.

        Raises:
            NotFinite: A ValueError that names the prompt, the stage and the dtype.
        """
        self.finite.require()
