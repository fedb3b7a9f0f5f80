"""Stages 1 and 1b: images lose tokens inside the encoder, and the rest is put back on its slots.

Expand, then drop: after the projector every token is put back in the slot of the patch in whose
place it stands, and the other slots are left empty. The model's own packing, placeholder check and
scatter run unchanged; the language model's first pre-hook drops the empty slots.

A decision between attention and MLP (ToMe) takes three hooks: the MLP's norm receives M x, the
MLP's output for a survivor is copied to all tokens that it stands for, and the next block (or the
projector) receives M of the block's output. M maps a copy to what was copied: nothing is lost.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mustdrop.engine.exclusive import Only
from mustdrop.engine.image import EncodedImage, Step, key_mask
from mustdrop.engine.refuse import is_eager, is_flash
from mustdrop.engine.tap import attention_tap
from mustdrop.engine.vision_view import EncoderState, ImageView
from mustdrop.functional import attention_rows
from mustdrop.reduction import Reduction
from mustdrop.strategy import KeyTokenStrategy, Place, VisionStrategy


@dataclass(eq=False, kw_only=True)
class EncoderStage(EncoderState):
    """Hooks on encoder and projector that let the vision strategies decide, image by image.

    Attributes:
        vision: Strategy of stage 1.
        key_tokens: Strategy of stage 1b.
        tags: Patch in each vision slot after the model's packing, per prompt.
    """

    vision: VisionStrategy | None
    key_tokens: KeyTokenStrategy | None
    tags: list[Int[Tensor, " slots"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts = self.adapter.facts
        places = self.vision.places if self.vision is not None else ()
        self.decision_blocks = {self.facts.block(p) for p in places if isinstance(p, int)}
        self.later_places = [name for name in ("features", "projected") if name in places]
        blocks = [*(self.vision.cls_attention_blocks if self.vision else ())]
        blocks += self.key_tokens.cls_attention_blocks if self.key_tokens else ()
        self.cls_attention_blocks = {self.facts.block(block) for block in blocks}
        blocks = self.vision.query_key_blocks if self.vision else ()
        self.query_key_blocks = {self.facts.block(block) for block in blocks}
        self.inside = self.vision is not None and self.vision.inside_block
        self.begin(0, torch.device("cpu"))

    def forget(self) -> None:
        """Discard the state of an earlier prompt."""
        self.encoded, self.tags, self.batch = [], [], []

    def begin(self, images: int, device: torch.device) -> None:
        """Start a new encoder call."""
        self.batch = [EncodedImage.whole(self.adapter.patches, device) for _ in range(images)]
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
                blocks = self.adapter.blocks(encoder)
                before(encoder, self._begin, named=True)
                for index, block in enumerate(blocks):
                    before(block, self._before(index), named=True)
                    if index in self.cls_attention_blocks | self.query_key_blocks:
                        probes[block.self_attn] = self._probe(index)
                    if self.inside and index in self.decision_blocks:
                        norm, mlp = self.adapter.mlp(block)
                        before(norm, self._before_mlp(index))
                        after(mlp, self._after_mlp(index))
                if self.facts.has_cls:
                    after(blocks[self.facts.feature_block], self._feature)
            before(self.adapter.projector, self._features)
            after(self.adapter.projector, self._projected)
            stack.enter_context(self.adapter.trace_packing(self.tags.append))
            stack.enter_context(attention_tap(probes))
            yield

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        self.begin(len(pixels), pixels.device)

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
        assert self.vision is not None
        extra = self.facts.has_cls if isinstance(location, int) else self.adapter.keeps_cls
        tokens = hidden[:, extra:]
        lengths = [len(image) for image in self.batch]
        before = [states[:length] for states, length in zip(tokens, lengths, strict=True)]
        views = [ImageView(self, number, location, before) for number in range(len(before))]
        decisions = [self.vision.reduce(view) for view in views]
        if isinstance(location, int) and not extra and not all(len(part) for part in decisions):
            raise ValueError(
                f"{type(self.vision).__name__} left no token of an image after block {location}, "
                "and this encoder has no [CLS]: its next block would have no input"
            )
        changes: list[Reduction | None] = []
        for image, decision in zip(self.batch, decisions, strict=True):
            if decision.mix is None and len(decision) == len(image):
                stay = torch.arange(len(image), device=tokens.device)
                if torch.equal(decision.keep, stay):
                    changes.append(None)
                    continue
            changes.append(decision)
            image.apply(location, decision, self.adapter.patches)
            self.weighted |= self.vision.proportional_attention and decision.sizes is not None
        return None if all(c is None for c in changes) else Step(self.batch, lengths, changes)

    def _features(self, module: nn.Module, args: tuple) -> tuple:
        features = args[0]
        extra = self.adapter.keeps_cls
        inside = self.steps.get(self.facts.feature_block)
        if inside is not None:  # the features are that block's output, still with all tokens
            short = inside.shorten(features[:, extra:], self.cls)
            features = torch.cat([features[:, :extra], short], 1)
        features = self._drop_at("features", features, self.cls)
        if "projected" not in self.later_places:
            self._mark("features", features[:, extra:])
        for image in self.batch:
            image.blocks[self.facts.blocks] = len(image)
        return (features, *args[1:])

    def _mark(self, location: Place, tokens: Float[Tensor, "b n c"]) -> None:
        """Mark the key tokens among the tokens that all of stage 1 has kept."""
        if self.key_tokens is None:
            return
        hidden = [t[: len(image)] for image, t in zip(self.batch, tokens, strict=True)]
        for number, image in enumerate(self.batch):
            if len(image):  # otherwise stage 1 has kept nothing to mark
                image.protected = self.key_tokens.protect(ImageView(self, number, location, hidden))

    def _drop_at(
        self, location: Place, states: Float[Tensor, "b n c"], cls: Float[Tensor, "b c"] | None
    ) -> Float[Tensor, "b m c"]:
        """Drop at a location after the encoder, if the strategy acts there."""
        step = self._decide(location, states) if location in self.later_places else None
        if step is None:
            return states
        extra = self.adapter.keeps_cls
        return torch.cat([states[:, :extra], step.shorten(states[:, extra:], cls)], 1)

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        extra = self.adapter.keeps_cls
        output = self._drop_at("projected", output, output[:, 0] if extra else None)
        if "projected" in self.later_places:
            self._mark("projected", output[:, extra:])
        self.encoded.extend(self.batch)
        if all(image.reduction is None for image in self.batch):
            return output
        empty = output.new_zeros(self.adapter.patches, output.shape[-1])
        # ``index_copy`` is not in place, so that gradients pass
        rows = [
            empty.index_copy(0, image.cells, states[: len(image)])
            for states, image in zip(output[:, extra:], self.batch, strict=True)
        ]
        full = torch.stack(rows)
        return torch.cat([output[:, :extra], full], 1) if extra else full
