"""Stages 1 and 1b: images lose tokens inside the encoder, and the rest is put back on its slots.

Expand, then drop: after the projector every token is put back in the slot of the cell in whose
place it stands, and the other slots are left empty. The model's own packing, placeholder check and
scatter run unchanged; the language model's first pre-hook lets the strategy decide at ``projected``
and drops the empty slots (:mod:`mustdrop.engine.entering`).

A decision between attention and MLP (ToMe) takes three hooks: the MLP's norm receives M x, the
MLP's output for a survivor is copied to all tokens that it stands for, and the next block (or the
projector) receives M of the block's output. M maps a copy to what was copied: nothing is lost.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mustdrop.engine.exclusive import Only
from mustdrop.engine.image import EncodedImage, Step, key_mask
from mustdrop.engine.refuse import is_eager, is_flash
from mustdrop.engine.tap import attention_tap
from mustdrop.engine.vision_view import EncoderState, ImageView
from mustdrop.functional import attention_rows
from mustdrop.models import EncoderPart
from mustdrop.reduction import Reduction
from mustdrop.strategy import KeyTokenStrategy, Place, VisionStrategy


@dataclass(eq=False, kw_only=True)
class EncoderStage(EncoderState):
    """Hooks on encoder and projector that let the vision strategies decide, image by image.

    Attributes:
        vision: Strategy of stage 1.
        key_tokens: Strategy of stage 1b.
    """

    vision: VisionStrategy | None
    key_tokens: KeyTokenStrategy | None

    def __post_init__(self) -> None:
        self.facts = self.adapter.facts
        places = self.vision.places if self.vision is not None else ()
        self.decision_blocks = {self.facts.block(p) for p in places if isinstance(p, int)}
        self.at_features, self.at_input = "features" in places, "projected" in places
        blocks = [*(self.vision.cls_attention_blocks if self.vision else ())]
        blocks += self.key_tokens.cls_attention_blocks if self.key_tokens else ()
        self.cls_attention_blocks = {self.facts.block(block) for block in blocks}
        blocks = self.vision.query_key_blocks if self.vision else ()
        self.query_key_blocks = {self.facts.block(block) for block in blocks}
        self.inside = self.vision is not None and self.vision.inside_block
        self.begin([])

    def forget(self) -> None:
        """Discard the state of an earlier prompt."""
        self.encoded, self.batch = [], []

    def begin(self, pixels: Sequence[Tensor], keeps_cls: bool = False) -> None:
        """Start a new encoder call.

        Args:
            pixels: Pixels of each image of the call.
            keeps_cls: Whether the language model gets this encoder's [CLS].

        Raises:
            ValueError: If the prompts have no slots for an image.
        """
        arrived = self.arrived() if len(pixels) else []
        first = len(self.encoded)
        if first + len(pixels) > len(arrived):
            raise ValueError(
                f"{first + len(pixels)} images for {len(arrived)} image placeholders in the prompts"
            )
        images = arrived[first : first + len(pixels)]
        self.batch = [
            EncodedImage.whole(image, part.device) for image, part in zip(images, pixels, strict=True)
        ]
        self.keeps_cls = keeps_cls
        self.mask: Tensor | None = None
        self.steps: dict[int, Step] = {}  # decided inside a block, not yet applied to its output
        self.cls: Tensor | None = None
        self.weighted = False

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Add hooks to encoder and projector; remove them on exit."""
        with ExitStack() as stack:

            def before(module: nn.Module, function: Callable, named: bool = False) -> None:
                hook = Only(module, function)
                handle = module.register_forward_pre_hook(hook, with_kwargs=named)
                stack.callback(handle.remove)

            def after(module: nn.Module, function: Callable) -> None:
                stack.callback(module.register_forward_hook(Only(module, function)).remove)

            probes = {}
            for encoder in self.adapter.encoders:
                before(encoder.module, self._begin(encoder), named=True)
                for index, block in enumerate(encoder.blocks):
                    before(block, self._before(index), named=True)
                    if index in self.cls_attention_blocks | self.query_key_blocks:
                        probes[encoder.attention(block)] = self._probe(index)
                    if self.inside and index in self.decision_blocks:
                        norm, mlp = encoder.mlp(block)
                        before(norm, self._before_mlp(index))
                        after(mlp, self._after_mlp(index))
                if self.facts.has_cls:
                    after(encoder.blocks[self.facts.feature_block], self._feature)
            before(self.adapter.projector, self._features)
            after(self.adapter.projector, self._projected)
            stack.enter_context(attention_tap(probes))
            yield

    def _begin(self, encoder: EncoderPart) -> Callable:
        keeps_cls = self.adapter.keeps_cls(encoder)

        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.begin(encoder.pixels(args, kwargs), keeps_cls)

        return hook

    def _before(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
            hidden, step = args[0], None
            tokens = hidden[:, self.facts.has_cls :]
            if self.inside:
                step = self.steps.get(index - 1)
            elif index - 1 in self.decision_blocks:
                step = self._decide(index - 1, hidden)
            if step is not None:
                cls = hidden[:, : self.facts.has_cls]
                short = step.shorten(tokens, cls[:, 0] if self.facts.has_cls else None)
                hidden = torch.cat([cls, short], 1)
            for image in self.batch:
                image.blocks[index] = len(image)
            ragged = len({len(image) for image in self.batch}) > 1
            if not ragged and not self.weighted:
                return None if step is None else ((hidden, *args[1:]), kwargs)
            return (hidden, self._mask(module, hidden, step is not None), *args[2:]), kwargs

        return hook

    def _before_mlp(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            hidden = args[0]
            cls, tokens = hidden[:, : self.facts.has_cls], hidden[:, self.facts.has_cls :]
            step = self._decide(index, hidden)
            for image in self.batch:
                image.queries_keys.pop(index, None)
            if step is None:
                return None
            self.steps[index] = step
            short = step.shorten(tokens, cls[:, 0] if self.facts.has_cls else None)
            return (torch.cat([cls, short], 1), *args[1:])

        return hook

    def _after_mlp(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            step = self.steps.get(index)
            if step is None:
                return None
            cls, short = output[:, : self.facts.has_cls], output[:, self.facts.has_cls :]
            return torch.cat([cls, step.lengthen(short, max(step.lengths))], 1)

        return hook

    def _feature(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.cls = output[:, 0]

    def _mask(self, module: nn.Module, hidden: Float[Tensor, "b n c"], stale: bool) -> Tensor:
        """Key-padding mask of a ragged batch, with the tokens' log sizes if they are weights."""
        if stale or self.mask is None:
            attention = module.self_attn
            mask = key_mask(
                self.batch, int(self.facts.has_cls), hidden,
                added=is_eager(attention) or self.weighted, weighted=self.weighted,
            )  # fmt: skip
            self.mask = mask if is_flash(attention) else mask[:, None, None, :]
        return self.mask

    def _probe(self, index: int) -> Callable:
        def probe(query: Tensor, key: Tensor, scaling: float) -> None:
            cls = self.facts.has_cls
            for image, q, k in zip(self.batch, query, key, strict=True):
                tokens = cls + len(image)
                if index in self.cls_attention_blocks:
                    bias = image.log_sizes(int(cls)) if self.weighted else None
                    row = attention_rows(q[:, :1], k[:, :tokens], scaling, bias=bias)
                    image.cls_attention[index] = row[:, 0, cls:]
                    image.count_macs(tokens * q.shape[0] * q.shape[2])
                if index in self.query_key_blocks:
                    image.queries_keys[index] = q[:, :tokens], k[:, :tokens]

        return probe

    def _decide(self, location: Place, hidden: Float[Tensor, "b n c"]) -> Step | None:
        """Let the strategy decide for each image; ``hidden`` starts with [CLS], if it is there."""
        extra = self.facts.has_cls if isinstance(location, int) else self.keeps_cls
        tokens = hidden[:, extra:]
        lengths = [len(image) for image in self.batch]
        before = [states[:length] for states, length in zip(tokens, lengths, strict=True)]
        changes = self.decide(location, before)
        if isinstance(location, int) and not extra and not all(map(len, self.batch)):
            raise ValueError(
                f"{type(self.vision).__name__} left no token of an image after block {location}, "
                "and this encoder has no [CLS]: its next block would have no input"
            )
        return None if all(c is None for c in changes) else Step(self.batch, lengths, changes)

    def decide(
        self, location: Place, hidden: Sequence[Float[Tensor, "_ c"]]
    ) -> list[Reduction | None]:
        """Let the strategy decide for each image of the batch, and apply it to the images' state.

        Args:
            location: Place of the decision.
            hidden: States of each image's tokens there.

        Returns:
            The decision on each image; None: its tokens stay as they are.
        """
        assert self.vision is not None
        views = [ImageView(self, number, location, hidden) for number in range(len(hidden))]
        decisions = [self.vision.reduce(view) for view in views]
        changes: list[Reduction | None] = []
        for image, decision in zip(self.batch, decisions, strict=True):
            if decision.mix is None and len(decision) == len(image):
                stay = torch.arange(len(image), device=decision.keep.device)
                if torch.equal(decision.keep, stay):
                    changes.append(None)
                    continue
            changes.append(decision)
            image.apply(location, decision)
            self.weighted |= self.vision.proportional_attention and decision.sizes is not None
        return changes

    def _features(self, module: nn.Module, args: tuple) -> tuple:
        features, extra = args[0], self.keeps_cls
        inside = self.steps.get(self.facts.feature_block)
        if inside is not None:  # the features are that block's output, still with all tokens
            short = inside.shorten(features[:, extra:], self.cls)
            features = torch.cat([features[:, :extra], short], 1)
        step = self._decide("features", features) if self.at_features else None
        if step is not None:
            short = step.shorten(features[:, extra:], self.cls)
            features = torch.cat([features[:, :extra], short], 1)
        if not self.at_input:
            tokens = features[:, extra:]
            self.mark("features", [t[: len(i)] for t, i in zip(tokens, self.batch, strict=True)])
        for image in self.batch:
            image.blocks[self.facts.blocks] = len(image)
        return (features, *args[1:])

    def mark(self, location: Place, hidden: Sequence[Float[Tensor, "_ c"]]) -> None:
        """Mark the key tokens among the tokens that all of stage 1 has kept."""
        if self.key_tokens is None:
            return
        for number, image in enumerate(self.batch):
            if len(image):  # otherwise stage 1 has kept nothing to mark
                image.protected = self.key_tokens.protect(ImageView(self, number, location, hidden))

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        extra = self.keeps_cls
        self.encoded.extend(self.batch)
        if all(image.reduction is None for image in self.batch):
            return output
        empty = output.new_zeros(self.batch[0].total, output.shape[-1])
        # ``index_copy`` is not in place, so that gradients pass
        rows = [
            empty.index_copy(0, image.cells, states[: len(image)])
            for states, image in zip(output[:, extra:], self.batch, strict=True)
        ]
        full = torch.stack(rows)
        return torch.cat([output[:, :extra], full], 1) if extra else full
