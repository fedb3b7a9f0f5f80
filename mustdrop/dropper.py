"""TokenDropper: the stages of a method, attached to an unmodified model within a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import nn

from mustdrop.engine import refuse
from mustdrop.engine.annotations import Annotations, require_annotations
from mustdrop.engine.fit import unfit_model, unfit_module
from mustdrop.engine.run import DropRun, Stages
from mustdrop.engine.session import Session
from mustdrop.fields import plain
from mustdrop.models import adapter_for
from mustdrop.strategy import (
    DecodeStrategy,
    KeyTokenStrategy,
    PrefillStrategy,
    VisionStrategy,
    require_choices,
)

__all__ = ["DropRun", "TokenDropper"]


@dataclass(frozen=True)
class TokenDropper:
    """Drops vision tokens of a multimodal language model at the stages that are given.

    Attributes:
        vision: Stage 1, inside or right behind the vision encoder.
        key_tokens: Stage 1b, marks tokens that no later stage drops.
        prefill: Stage 2, between decoder layers.
        decode: Stage 3, in the KV cache once the prefill is over.
        positions: Rotary positions after a drop between layers: each token keeps its ``original``
            one, or the survivors are counted anew from the prompt's first position on (``compact``,
            the authors of MustDrop and SparseVLM), also where tokens were reordered or mixed and
            none left.
        vision_positions: The same for a drop before the first layer.
        decode_positions: ``continue``: a new token follows the prompt's last token.
            ``cache_length``: its position is each layer's own cache length; wrong where caches were
            cut, kept for parity with the authors' code.
        log_scores: Keep the strategies' scores in the ledger.

    Example:
        >>> dropper = TokenDropper(prefill=FastV(keep=166, layer=1))
        >>> with dropper.attach(model) as run:
        ...     tokens = model.generate(**inputs)
        >>> run.ledgers[0].counts()

    Raises:
        TypeError: If a stage is no strategy of its kind.
        ValueError: If a position rule is unknown, or ``log_scores`` is neither true nor false.
    """

    vision: VisionStrategy | None = None
    key_tokens: KeyTokenStrategy | None = None
    prefill: PrefillStrategy | None = None
    decode: DecodeStrategy | None = None
    positions: Literal["original", "compact"] = "original"
    vision_positions: Literal["original", "compact"] = "original"
    decode_positions: Literal["continue", "cache_length"] = "continue"
    log_scores: bool = False

    def __post_init__(self) -> None:
        refuse.not_a_stage("vision", self.vision, VisionStrategy)
        refuse.not_a_stage("key_tokens", self.key_tokens, KeyTokenStrategy)
        refuse.not_a_stage("prefill", self.prefill, PrefillStrategy)
        refuse.not_a_stage("decode", self.decode, DecodeStrategy)
        require_choices(
            positions=(self.positions, ("original", "compact")),
            vision_positions=(self.vision_positions, ("original", "compact")),
            decode_positions=(self.decode_positions, ("continue", "cache_length")),
        )
        plain("TokenDropper.log_scores", self.log_scores, bool)

    @contextmanager
    def attach(self, model: nn.Module, annotations: Annotations | None = None) -> Iterator[DropRun]:
        """Drop tokens in every prefill of ``model`` while the context is open.

        Args:
            model: An unmodified model of a supported family.
            annotations: Marked patches of each image, for strategies that need them: one mapping
                per image, in the order of the prompts, from the name of a mark to a boolean
                [rows, columns].

        Yields:
            The record of the last prefill: a ledger per prompt.

        Raises:
            TypeError: If no adapter knows the model.
            ValueError: If the model, or a stage on this model, cannot work (see
                :mod:`mustdrop.engine.fit`), or it needs an annotation that is missing.
        """
        unfit_module(model)
        adapter = adapter_for(model)
        stages = Stages(
            self.vision, self.key_tokens, self.prefill, self.decode, self.positions,
            self.vision_positions, self.decode_positions, self.log_scores,
        )  # fmt: skip
        unfit_model(adapter, stages)
        require_annotations(self.vision, annotations)
        with Session(adapter, stages, annotations or ()).attach() as run:
            yield run
