"""Stages 1 and 1b: images lose tokens inside the encoder, and the rest is put back on its slots.

Expand, then drop: after the projector every token is put back in the slot of the cell in whose
place it stands, and the other slots are left empty. The model's own packing, placeholder check and
scatter run unchanged; the language model's first pre-hook lets the strategy decide at ``projected``
and drops the empty slots (:mod:`mustdrop.engine.entering`).

A decision between attention and MLP (ToMe) takes three hooks: the MLP's norm receives M x, the
MLP's output for a survivor is copied to all tokens that it stands for, and the next block (or the
projector) receives M of the block's output. M maps a copy to what was copied: nothing is lost.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mustdrop.engine.encoder_attention import EncoderAttention
from mustdrop.engine.encoder_decisions import EncoderDecisions
from mustdrop.engine.encoder_layouts import first_layout
from mustdrop.engine.encoder_step import Step, packing_step
from mustdrop.engine.exclusive import Only
from mustdrop.engine.gathered_layout import GroupedLayout
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.tap import attention_tap
from mustdrop.models import EncoderPart
from mustdrop.strategy import Place


@dataclass(eq=False, kw_only=True)
class EncoderStage(EncoderDecisions):
    """Hooks on encoder and projector that let the vision strategies decide, image by image.

    Attributes:
        received: Whether the attention that a patch receives stands for the attention of [CLS].
    """

    received: bool = False

    def __post_init__(self) -> None:
        self.facts = self.adapter.facts
        places = self.vision.places if self.vision is not None else ()
        self.decision_blocks = {self.facts.block(p) for p in places if isinstance(p, int)}
        self.at_features, self.at_input = "features" in places, "projected" in places
        blocks = [*(self.vision.cls_attention_blocks if self.vision else ())]
        blocks += self.key_tokens.cls_attention_blocks if self.key_tokens else ()
        keys = self.vision.query_key_blocks if self.vision else ()
        self.attention = EncoderAttention(
            {self.facts.block(block) for block in blocks},
            {self.facts.block(block) for block in keys},
            self.received,
        )
        self.inside = self.vision is not None and self.vision.inside_block

    def forget(self) -> None:
        """Discard the state of an earlier prompt."""
        self.encoded, self.batch = [], []

    def arrive(self, device: torch.device) -> None:
        """Take the images as they arrived, where the encoder runs whole."""
        if self.facts.whole_encoder is not None:
            self.encoded = [EncodedImage.whole(image, device) for image in self.arrived()]

    def _begin(self, encoder: EncoderPart, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Start a new encoder call; an image without slots in the prompts is refused."""
        pixels = encoder.pixels(args, kwargs)
        arrived, first = self.arrived(), len(self.encoded)
        if first + len(pixels) > len(arrived):
            raise ValueError(
                f"{first + len(pixels)} images for {len(arrived)} image placeholders in the prompts"
            )
        images = zip(arrived[first : first + len(pixels)], pixels, strict=True)
        self.batch = [EncodedImage.whole(image, part.device) for image, part in images]
        self.part, self.keeps_cls = encoder, int(self.adapter.keeps_cls(encoder))
        self.front = int(encoder.has_cls)
        self.steps: dict[int, Step] = {}  # decided inside a block, not yet applied to its output
        self.cls: Tensor | None = None
        self.weighted = False
        self.attention.segments = []  # a call that failed may have left some
        self.layout = first_layout(encoder, self.batch)

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Add hooks to encoder and projector; remove them on exit."""
        if self.facts.whole_encoder is not None:
            yield
            return
        with ExitStack() as stack:

            def before(module: nn.Module, function: Callable, named: bool = False) -> None:
                hook = Only(module, function)
                handle = module.register_forward_pre_hook(hook, with_kwargs=named)
                stack.callback(handle.remove)

            def after(module: nn.Module, function: Callable, named: bool = False) -> None:
                hook = Only(module, function)
                handle = module.register_forward_hook(hook, with_kwargs=named)
                stack.callback(handle.remove)

            probes = {}
            for encoder in self.adapter.encoders:
                before(encoder.module, partial(self._begin, encoder), named=True)
                for index, block in enumerate(encoder.blocks):
                    before(block, self._before(index), named=True)
                    if encoder.masks_attention:
                        before(encoder.attention(block), self._masked, named=True)
                    if index in self.attention.blocks:
                        probes[encoder.attention(block)] = self.attention.probe
                        after(encoder.attention(block), self._attended(index), named=True)
                    if self.inside and index in self.decision_blocks:
                        norm, mlp = encoder.mlp(block)
                        before(norm, self._before_mlp(index))
                        after(mlp, self._after_mlp(index))
                for index, module in encoder.added_projectors.items():
                    before(module, self._before_next(index))
                    after(module, self._after_added)
                if self.adapter.feature_norm is not None:
                    before(self.adapter.feature_norm, self._before_next(self.facts.feature_block))
                if encoder.has_cls:
                    after(encoder.blocks[self.facts.feature_block], self._feature)
                if encoder.gathered:
                    after(encoder.module, self._gathering)
            before(self.adapter.feature_entry, self._features)
            after(self.adapter.projector, self._projected)
            stack.enter_context(attention_tap(probes))
            yield

    def _before(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
            states = args[0]
            if self.inside:
                step = self.steps.get(index - 1)
                cls = states[:, 0] if self.front else None
                states = states if step is None else step.apply(states, self.front, cls)
            elif index - 1 in self.decision_blocks:
                states = self._drop_at(index - 1, states, self.front)
            args, kwargs = self.layout.fit(module, states, args, kwargs)
            pairs = self.layout.pairs(kwargs)
            for number, image in enumerate(self.batch):
                image.blocks[index] = len(image)
                if pairs is not None:
                    image.pairs[index] = pairs[number]
            return args, kwargs

        return hook

    def _masked(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        states = args[0] if args else kwargs["hidden_states"]
        mask = self.layout.attention_mask(module, states)
        return None if mask is None else (args, {**kwargs, "attention_mask": mask})

    def _attended(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            self.attention.record(index, self.layout, kwargs.get("cu_seqlens"))

        return hook

    def _before_mlp(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            front, tokens = self.layout.split(args[0], self.front)
            step = self._decide(index, tokens, front)
            for image in self.batch:
                image.queries_keys.pop(index, None)
            if step is None:
                return None
            self.steps[index] = step
            short = step.shorten(tokens, front[:, 0] if self.front else None)
            return (step.after.join(front, short), *args[1:])

        return hook

    def _after_mlp(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            step = self.steps.get(index)
            if step is None:
                return None
            front, short = step.after.split(output, self.front)
            return step.before.join(front, step.lengthen(short))

        return hook

    def _feature(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.cls = output[:, 0]

    def _gathering(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Hand the patches of all cells to the model, which makes one state of those of a cell."""
        assert isinstance(self.layout, GroupedLayout)
        states = output.last_hidden_state
        self.cls = states[:, 0] if self.front else None
        output.last_hidden_state = self.layout.whole(states, self.front)

    def _before_next(self, index: int) -> Callable:
        """Hook of a module that gets the output of a block, which still has all tokens."""

        def hook(module: nn.Module, args: tuple) -> tuple | None:
            step, states = self.steps.get(index), args[0]
            cls = states[:, 0] if self.front else None
            return None if step is None else (step.apply(states, self.front, cls), *args[1:])

        return hook

    def _after_added(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Put what is projected of a block's output into the places of the cells."""
        whole = all(image.reduction is None for image in self.batch)
        return None if whole else self.layout.expand(0, output)

    def _decide(self, location: Place, tokens: Tensor, front: Tensor) -> Step | None:
        """Let the strategy decide for each image of the call; None: all tokens stay as they are."""
        before = self.layout
        rows = [row[:length] for row, length in zip(tokens, before.lengths, strict=True)]
        changes = self.decide(location, rows)
        if isinstance(location, int) and not self.front and not all(map(len, self.batch)):
            raise ValueError(
                f"{type(self.vision).__name__} left no token of an image after block {location}, "
                "and this encoder has no [CLS]: its next block would have no input"
            )
        if all(change is None for change in changes):
            return None
        self.layout = self.layout.now(self.weighted)
        return Step(before, self.layout, changes)

    def _drop_at(self, location: Place, states: Tensor, front: int) -> Tensor:
        """Decide at a location, and apply the decision to the states there."""
        ahead, tokens = self.layout.split(states, front)
        step = self._decide(location, tokens, ahead)
        if step is None:
            return states
        cls = self.cls if location == "features" else ahead[:, 0] if front else None
        return step.after.join(ahead, step.shorten(tokens, cls))

    def _features(self, module: nn.Module, args: tuple) -> tuple:
        features, front = args[0], self.keeps_cls
        if isinstance(self.layout, GroupedLayout):
            self.layout, features = self.layout.narrowed(features)
        inside = self.steps.get(self.facts.feature_block)
        if inside is not None and self.adapter.feature_norm is None:
            # the features are that block's output, still with all tokens
            features = inside.apply(features, front, self.cls)
        whole, cut = (self.layout, features), packing_step(self.layout)
        if cut is not None:
            features, self.layout = cut.apply(features, front, None), cut.after
        fitted = self.layout
        if self.at_features:
            features = self._drop_at("features", features, front)
        if not self.at_input and self.key_tokens is not None:
            _, tokens = self.layout.split(features, front)
            lengths = self.layout.lengths
            self.mark("features", [row[:n] for row, n in zip(tokens, lengths, strict=True)])
        if self.layout is fitted:  # nothing was decided, so the projector gets what the model made
            self.layout, features = whole
        for image, length in zip(self.batch, self.layout.lengths, strict=True):
            image.blocks[self.facts.blocks] = length
        return (features, *args[1:])

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.encoded.extend(self.batch)
        if all(image.reduction is None for image in self.batch):
            return output
        return self.layout.expand(self.keeps_cls, output)
