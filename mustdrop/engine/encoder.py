"""Stage 1 and 1b at work: images run shorter through the encoder, and come out on their slots.

Expand, then drop: behind the projector every token is put back in the slot of the patch in whose
place it stands, and the other slots are left empty. The model's own packing, placeholder check and
scatter run unchanged; the language model's first pre-hook drops the empty slots.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mustdrop.engine.known import Known, told
from mustdrop.engine.refuse import is_eager, is_flash
from mustdrop.engine.tap import attention_tap
from mustdrop.functional import attention_rows, stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.reduction import Reduction
from mustdrop.strategy import KeyTokenStrategy, Place, VisionStrategy, VisionView


@dataclass(eq=False)
class EncodedImage:
    """What happened to one image (crop, frame).

    Attributes:
        cells: Raster index of the patch in whose place each token stands, in the order of the
            tokens.
        reduction: From all patches to these tokens; None: nothing was dropped or merged.
        steps: The reduction of each place where something was decided.
        blocks: Encoder block -> patch tokens at its input; the number of blocks -> the projector.
        protected: Key tokens among the tokens.
        sizes: Patches that each token stands for.
    """

    cells: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]
    protected: Bool[Tensor, " tokens"]
    reduction: Reduction | None = None
    steps: dict[Place, Reduction] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    cls_attention: dict[int, Float[Tensor, "heads tokens"]] = field(default_factory=dict)

    def apply(self, place: Place, reduction: Reduction, patches: int) -> None:
        """Take over a decision."""
        self.steps[place] = reduction
        whole = self.reduction
        self.reduction = reduction if whole is None else whole.then(reduction, patches)
        self.cells = self.cells[reduction.keep]
        self.protected = self.protected[reduction.keep]
        self.sizes = (
            reduction.sizes.to(self.sizes)
            if reduction.sizes is not None
            else self.sizes[reduction.keep]
        )
        self.cls_attention = {
            block: heads[:, reduction.keep] for block, heads in self.cls_attention.items()
        }


@dataclass(eq=False)
class EncoderStage:
    """Hooks on encoder and projector that let the vision strategies decide, image by image.

    Attributes:
        owners: Told the number of images of one encoder call, says which prompt each belongs to.
        keys: Told the number of an image, returns its key for random draws.
        known: What was told of each image from outside.
    """

    adapter: ModelAdapter
    vision: VisionStrategy | None
    key_tokens: KeyTokenStrategy | None
    owners: Callable[[int], Sequence[int]]
    keys: Callable[[int], int]
    known: Known = ()
    encoded: list[EncodedImage] = field(default_factory=list)
    tags: list[Int[Tensor, " slots"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts = self.adapter.facts
        self.batch: list[EncodedImage] = []
        at = self.vision.at if self.vision is not None else ()
        self.at = {self.facts.block(place) for place in at if isinstance(place, int)}
        self.behind = [place for place in ("features", "projected") if place in at]
        reads = [*(self.vision.reads if self.vision else ())]
        reads += self.key_tokens.reads if self.key_tokens else ()
        self.reads = {self.facts.block(block) for block in reads}
        self.masks: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Drop what an earlier prompt left behind."""
        self.encoded, self.tags, self.batch = [], [], []

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Hooks in place; the encoder as found on exit."""
        with ExitStack() as stack:
            probes = {}
            for encoder in self.adapter.encoders:
                blocks = self.adapter.blocks(encoder)
                hook = encoder.register_forward_pre_hook(self._begin, with_kwargs=True)
                stack.callback(hook.remove)
                for index, block in enumerate(blocks):
                    hook = block.register_forward_pre_hook(self._before(index), with_kwargs=True)
                    stack.callback(hook.remove)
                    if index in self.reads:
                        probes[block.self_attn] = self._probe(index)
            projector = self.adapter.projector
            stack.callback(projector.register_forward_pre_hook(self._features).remove)
            stack.callback(projector.register_forward_hook(self._projected).remove)
            stack.enter_context(self.adapter.trace_packing(self.tags.append))
            stack.enter_context(attention_tap(probes))
            yield

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        patches = self.adapter.patches
        device = pixels.device
        self.batch = [
            EncodedImage(
                torch.arange(patches, device=device),
                torch.ones(patches, device=device),
                torch.zeros(patches, dtype=torch.bool, device=device),
            )
            for _ in range(len(pixels))
        ]
        self.masks = {}

    def _before(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
            hidden = args[0]
            acts = index - 1 in self.at
            if acts:
                cls = hidden[:, : self.facts.has_cls]
                tokens = self._reduce(index - 1, hidden[:, self.facts.has_cls :])
                hidden = torch.cat([cls, tokens], 1)
            for image in self.batch:
                image.blocks[index] = len(image.cells)
            lengths = {len(image.cells) for image in self.batch}
            if not acts and len(lengths) == 1:
                return None
            if len(lengths) == 1:
                return (hidden, *args[1:]), kwargs
            return (hidden, self._mask(module, hidden, acts), *args[2:]), kwargs

        return hook

    def _mask(self, module: nn.Module, hidden: Float[Tensor, "b n c"], stale: bool) -> Tensor:
        """Key-padding mask of a ragged batch, in the form that the block's attention wants."""
        if stale:
            self.masks = {}
        attention = module.self_attn
        if "mask" not in self.masks:
            lengths = torch.tensor([len(image.cells) for image in self.batch])
            seen = torch.arange(hidden.shape[1]) < (lengths + self.facts.has_cls)[:, None]
            seen = seen.to(hidden.device)
            if is_eager(attention):
                floor = torch.finfo(hidden.dtype).min
                added = torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device)
                seen = added.masked_fill(~seen, floor)
            self.masks["mask"] = seen if is_flash(attention) else seen[:, None, None, :]
        return self.masks["mask"]

    def _probe(self, index: int) -> Callable:
        def probe(query: Tensor, key: Tensor, scaling: float) -> None:
            cls = self.facts.has_cls
            for image, q, k in zip(self.batch, query, key, strict=True):
                tokens = cls + len(image.cells)
                row = attention_rows(q[:, :1], k[:, :tokens], scaling)
                image.cls_attention[index] = row[:, 0, cls:]

        return probe

    def _reduce(self, place: Place, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b m c"]:
        """Let the strategy decide image by image; a ragged result is padded on the right."""
        assert self.vision is not None
        before = [
            states[: len(image.cells)] for image, states in zip(self.batch, hidden, strict=True)
        ]
        decisions = [
            self.vision.reduce(self._view(number, place, before)) for number in range(len(before))
        ]
        after = []
        for image, states, decision in zip(self.batch, before, decisions, strict=True):
            if decision.mix is None and len(decision) == len(states):
                unmoved = torch.equal(
                    decision.keep, torch.arange(len(states), device=states.device)
                )
                if unmoved:
                    after.append(states)
                    continue
            image.apply(place, decision, self.adapter.patches)
            after.append(decision(states))
        return nn.utils.rnn.pad_sequence(after, batch_first=True)

    def _view(self, number: int, place: Place, hidden: Sequence[Tensor]) -> VisionView:
        image = self.batch[number]

        def crops() -> list[Tensor]:
            owner = self.owners(len(hidden))
            return [
                states for states, own in zip(hidden, owner, strict=True) if own == owner[number]
            ]

        def cls_attention(block: int) -> Tensor:
            asked = self.facts.block(block)
            if asked not in image.cls_attention:
                raise ValueError(
                    f"[CLS] attention of block {asked} was not read; list it in 'reads', and ask "
                    f"for blocks that have run (now: {sorted(image.cls_attention)})"
                )
            return image.cls_attention[asked]

        def generator(seed: int) -> torch.Generator:
            key = self.keys(len(self.encoded) + number)
            return torch.Generator().manual_seed(stable_seed(seed, key, place))

        def known(name: str) -> Tensor:
            marked = told(self.known, len(self.encoded) + number, name, self.facts.grid)
            return marked.to(image.cells.device)

        return VisionView(
            place, self.facts.grid, image.cells, image.sizes, lambda: hidden[number], crops,
            cls_attention, generator, known,
        )  # fmt: skip

    def _features(self, module: nn.Module, args: tuple) -> tuple:
        features = args[0]
        extra = self.adapter.keeps_cls
        cls, tokens = features[:, :extra], features[:, extra:]
        if self.key_tokens is not None:
            hidden = [t[: len(i.cells)] for i, t in zip(self.batch, tokens, strict=True)]
            for number, image in enumerate(self.batch):
                image.protected = self.key_tokens.protect(self._view(number, "features", hidden))
        if "features" in self.behind:
            tokens = self._reduce("features", tokens)
        for image in self.batch:
            image.blocks[self.facts.blocks] = len(image.cells)
        return (torch.cat([cls, tokens], 1) if extra else tokens, *args[1:])

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        extra = self.adapter.keeps_cls
        cls, tokens = output[:, :extra], output[:, extra:]
        if "projected" in self.behind:
            tokens = self._reduce("projected", tokens)
        self.encoded.extend(self.batch)
        if all(image.reduction is None for image in self.batch):
            return output
        full = output.new_zeros(len(output), self.adapter.patches, output.shape[-1])
        for slots, states, image in zip(full, tokens, self.batch, strict=True):
            slots.index_copy_(0, image.cells, states[: len(image.cells)])
        return torch.cat([cls, full], 1) if extra else full
