"""TokenDropper attaches the stages of a method to an unmodified model while a context is open."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import nn

from mustdrop.engine.annotations import Annotations, require_annotations
from mustdrop.engine.fit import unfit_model, unfit_module
from mustdrop.engine.run import DropRun
from mustdrop.engine.session import Session
from mustdrop.engine.transformers_api import require_version
from mustdrop.models import adapter_for
from mustdrop.stages import Stages

__all__ = ["DropRun", "TokenDropper"]


@dataclass(frozen=True)
class TokenDropper(Stages):
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
        cls_attention: Encoder attention that ranks patches where a strategy asks for that of [CLS].
            ``cls``: attention of [CLS]. ``received``: mean attention that a patch receives from all
            patches of its image, also for encoders without [CLS].
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
        fitted = {
            name: None if stage is None else stage.fitted(adapter.facts)
            for name, stage in (
                ("vision", self.vision), ("key_tokens", self.key_tokens),
                ("prefill", self.prefill), ("decode", self.decode),
            )
        }  # fmt: skip
        stages: TokenDropper = replace(self, **fitted)  # pyright: ignore[reportArgumentType]
        unfit_model(adapter, stages)
        require_annotations(self.vision, annotations)
        with Session(adapter, stages, annotations or ()).attach() as run:
            yield run
