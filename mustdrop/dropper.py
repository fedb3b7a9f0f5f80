"""TokenDropper attaches the stages of a method to an unmodified model while a context is open."""

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
from mustdrop.engine.transformers_api import require_version
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
        vision: Stage 1, inside or directly after the vision encoder.
        key_tokens: Stage 1b, marks tokens that no later stage drops.
        prefill: Stage 2, between decoder layers.
        decode: Stage 3, in the KV cache after the prefill.
        positions: Rule for rotary positions after a drop between layers. ``original``: each token
            keeps its position. ``compact``: the survivors are renumbered from the prompt's first
            position on (as the authors of MustDrop and SparseVLM do), also where tokens were
            reordered or mixed and none was dropped.
        vision_positions: Rule for rotary positions after a drop before the first layer.
        decode_positions: Rule for the position of a new token. ``continue``: it follows the
            prompt's last token. ``cache_length``: it is each layer's own cache length, which is
            wrong where caches were cut; kept for parity with the authors' code.
        log_scores: Whether the ledger keeps the strategies' scores.

    Example:
        >>> dropper = TokenDropper(prefill=FastV(keep=166, layer=1))
        >>> with dropper.attach(model) as run:
        ...     tokens = model.generate(**inputs)
        >>> run.ledgers[0].counts()

    Raises:
        TypeError: If a stage is not a strategy of its kind.
        ValueError: If a position rule is unknown, or ``log_scores`` is not a boolean.
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
            The record of the last prefill, with one ledger per prompt.

        Raises:
            TypeError: If no adapter supports the model.
            ValueError: If the installed transformers is not supported, the model or a stage on this
                model cannot work (see :mod:`mustdrop.engine.fit`), or an annotation is missing.
        """
        require_version()
        unfit_module(model)
        adapter = adapter_for(model)
        facts = adapter.facts
        stages = Stages(
            self.vision and self.vision.fitted(facts),
            self.key_tokens and self.key_tokens.fitted(facts),
            self.prefill and self.prefill.fitted(facts),
            self.decode and self.decode.fitted(facts),
            self.positions, self.vision_positions, self.decode_positions, self.log_scores,
        )  # fmt: skip
        unfit_model(adapter, stages)
        require_annotations(self.vision, annotations)
        with Session(adapter, stages, annotations or ()).attach() as run:
            yield run
