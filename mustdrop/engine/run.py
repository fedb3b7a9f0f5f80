"""Record of the last prefill under an attached dropper."""

from dataclasses import dataclass, field

from mustdrop.engine.finite import FiniteNotes
from mustdrop.engine.image import EncodedImage
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction
from mustdrop.stages import Stages


@dataclass(eq=False)
class DropRun:
    """Record of the last prefill.

    Attributes:
        stages: Stages of the dropper.
        ledgers: Ledger of each prompt, whatever the number of its sequences.
        later: Number of tokens after each prompt in the caches of all layers: answers and turns.
        images: State of each encoded image, in the order of the prompts; empty without stages 1
            and 1b.
        mixed: Layer -> reduction of each prompt, where a prefill strategy mixed tokens.
        finite: Notes on whether all numbers on the way to the answers were finite.
    """

    stages: Stages
    ledgers: list[TokenLedger] = field(default_factory=list)
    later: int = 0
    images: list[EncodedImage] = field(default_factory=list)
    mixed: dict[int, list[Reduction]] = field(default_factory=dict)
    finite: FiniteNotes = field(default_factory=FiniteNotes)

    def require_finite(self) -> None:
        """Check that no number on the way to the answers was infinite or NaN; reads the device.

        Raises:
            NotFinite: A ValueError that names the prompt, the stage and the dtype.
        """
        self.finite.require()
