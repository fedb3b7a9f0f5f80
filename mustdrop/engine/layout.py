"""Layout of surviving tokens: per prompt in sequence order, in the batch padded on the left.

Counts are known on the host at all times, so that nothing here waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.engine.prompt_vision import PromptVision
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction


@dataclass(eq=False)
class Prompt:
    """Tokens of one prompt that are alive, in sequence order, without padding.

    Attributes:
        ledger: Record that this prompt writes.
        alive: Original position of each token.
        position: Rotary position of each token.
        vision: Indices into ``alive`` of the vision tokens, ascending: a slice if they form one
            unbroken segment.
        segment: Number of the unbroken segment of vision slots of each vision token, ascending.
        cells: Flat cell in whose place each vision token stands, see ``shown``.
        sizes: Number of cells that each vision token stands for.
        protected: Whether each vision token is a key token.
        other_count: Number of tokens that are not vision tokens; they are never dropped.
        trailing_text: Number of text tokens after the last vision slot.
        shown: Images and videos of the prompt.
        first: Rotary position of the prompt's first token before any drop.
        last: Rotary position of the prompt's last token before any drop.
        recounted: Whether rotary positions were renumbered. The positions do not show it: where
            tokens were reordered and none dropped, the last position is the same as before.
        memo: Values that a strategy computed once for all layers.
    """

    ledger: TokenLedger
    alive: Int[Tensor, " alive"]
    position: Int[Tensor, " alive"]
    vision: slice | Int[Tensor, " vision"]
    segment: Int[Tensor, " vision"]
    cells: Int[Tensor, " vision"]
    sizes: Float[Tensor, " vision"]
    protected: Bool[Tensor, " vision"]
    other_count: int
    trailing_text: int
    shown: PromptVision
    first: Int[Tensor, ""]
    last: Int[Tensor, ""]
    recounted: bool = False
    memo: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def vision_count(self) -> int:
        """Number of vision tokens alive."""
        return len(self) - self.other_count

    def vision_in(self, alive: Int[Tensor, " n"]) -> slice | Int[Tensor, " vision"]:
        """Indices of the vision tokens among the ``alive`` tokens of any layer."""
        count = len(alive) - self.other_count
        if isinstance(self.vision, slice):
            return slice(self.vision.start, self.vision.start + count)
        is_text = self.ledger.vision[alive].logical_not()
        return is_text.to(torch.uint8).argsort(stable=True)[:count]

    def vision_index(self) -> Int[Tensor, " vision"]:
        """``vision`` as an index, also where it is a slice."""
        if isinstance(self.vision, slice):
            return torch.arange(self.vision.start, self.vision.stop, device=self.alive.device)
        return self.vision

    def reduce(self, reduction: Reduction, compact: bool) -> Int[Tensor, " after"]:
        """Apply a decision on the vision tokens.

        The survivors move to the start of their segment, in the order of the reduction.

        Args:
            reduction: Reduction of the vision tokens alive now.
            compact: Whether rotary positions are renumbered, from the prompt's first one on.

        Returns:
            The index, among the tokens alive before, of each token that goes on.
        """
        device, tokens = self.alive.device, len(self)
        keep, sizes = reduction.keep.to(device), reduction.sizes
        if isinstance(self.vision, slice):
            start, stop = self.vision.start, self.vision.stop
            index = torch.arange(tokens, device=device)
            gather = torch.cat([index[:start], keep + start, index[stop:]])
            self.vision = slice(start, start + len(keep))
        else:
            by_segment = self.segment[keep].argsort(stable=True)
            keep = keep[by_segment]
            sizes = None if sizes is None else sizes[by_segment]
            gather = self._merge_segments(self.vision, keep)
        self.segment, self.cells = self.segment[keep], self.cells[keep]
        self.protected = self.protected[keep]
        self.sizes = self.sizes[keep] if sizes is None else sizes.to(self.sizes)
        self.alive = self.alive[gather]
        if compact:
            self.position = self.first + torch.arange(len(gather), device=device)
            self.recounted = True
        else:
            self.position = self.position[gather]
        return gather

    @property
    def contiguous(self) -> bool:
        """Whether the vision tokens form one unbroken segment."""
        return isinstance(self.vision, slice)

    def _merge_segments(
        self, vision: Int[Tensor, " vision"], keep: Int[Tensor, " kept"]
    ) -> Int[Tensor, " after"]:
        """Order of the tokens that go on, for several segments; updates ``self.vision``."""
        device = keep.device
        is_text = torch.ones(len(self), dtype=torch.bool, device=device).index_fill_(
            0, vision, False
        )
        text = is_text.logical_not().to(torch.uint8).argsort(stable=True)[: self.other_count]
        segment = self.segment[keep]
        rank = torch.arange(len(keep), device=device) - torch.searchsorted(segment, segment)
        start = vision[torch.searchsorted(self.segment, segment)]
        order = torch.cat([text, start + rank]).argsort()
        self.vision = order.argsort()[self.other_count :]
        return torch.cat([text, vision[keep]])[order]

    def order_of(self, reduction: Reduction) -> Int[Tensor, " after"] | None:
        """Order of the survivors by segment; None: the order of the reduction is right."""
        return None if self.contiguous else self.segment[reduction.keep].argsort(stable=True)


def align(index: Sequence[Int[Tensor, " _"]], pads: Sequence[int]) -> Int[Tensor, "batch longest"]:
    """Stack rows of indices, aligned to the right; each row's pad is added to its indices."""
    if len(index) == 1 and not pads[0]:
        return index[0][None]
    longest = max(len(row) for row in index)
    rows = [
        F.pad(row + pad if pad else row, (longest - len(row), 0))
        for row, pad in zip(index, pads, strict=True)
    ]
    return torch.stack(rows)


def padding(lengths: Sequence[int]) -> list[int]:
    """Number of padding slots in front of each row."""
    longest = max(lengths)
    return [longest - length for length in lengths]


def take(
    states: Float[Tensor, "*axes #batch before dim"], index: Int[Tensor, "batch after"]
) -> Float[Tensor, "*axes batch after dim"]:
    """Select tokens of each prompt by index; states of a batch of one serve all prompts.

    Whole rows are copied, which is faster than ``gather`` number by number.
    """
    batch, before = states.shape[-3:-1]
    rows = index
    if batch > 1:
        rows = index + before * torch.arange(batch, device=index.device)[:, None]
    chosen = states.flatten(-3, -2).index_select(-2, rows.flatten())
    return chosen.unflatten(-2, index.shape)


def valid(pads: Sequence[int], length: int, device: torch.device) -> Bool[Tensor, "batch seq"]:
    """Whether each slot holds a token."""
    front = torch.tensor(pads).to(device, non_blocking=True)
    return torch.arange(length, device=device) >= front[:, None]


def seen_in(mask: Tensor | None) -> Bool[Tensor, "#batch 1 rows tokens"] | None:
    """Whether each row sees each token by a layer's mask; None: the mask is causal."""
    if mask is None or mask.dim() < 4:
        return None
    return mask if mask.dtype == torch.bool else mask >= 0  # otherwise added to the scores


@dataclass(eq=False)
class Masks:
    """Attention masks in the form that the layers' attention needs; None if no mask is needed.

    Attributes:
        eager: Whether masks are numbers that are added to the scores.
        flash: Whether masks are [batch, tokens].
    """

    eager: bool
    flash: bool

    def prefill(self, pads: Sequence[int], length: int, like: Tensor) -> Tensor | None:
        """Causal mask of a left-padded batch; padding attends to itself, so no row is empty."""
        ragged = any(pads)
        if self.flash:
            return valid(pads, length, like.device) if ragged else None
        if not ragged and not self.eager:
            return None  # sdpa's own causal path
        causal = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
        seen = causal[None] & valid(pads, length, like.device)[:, None]
        seen.diagonal(dim1=1, dim2=2).fill_(True)
        return self._form(seen[:, None], like)

    def gathered(
        self,
        allowed: Bool[Tensor, "#batch 1 before before"],
        index: Int[Tensor, "batch after"],
        pads: Sequence[int],
        like: Tensor,
    ) -> Tensor | None:
        """Mask of the tokens that remain of a left-padded batch, from the model's own mask.

        Args:
            allowed: Whether each token (row) sees each other one in the model itself.
            index: Slot of each token that remains; meaningless in the padding.
            pads: Padding in front of each prompt now.
            like: States whose dtype and device the mask has.
        """
        rows = torch.arange(len(allowed), device=allowed.device)[:, None, None]
        index = index.to(allowed.device)
        seen = allowed[rows, 0, index[:, :, None], index[:, None]]
        seen &= valid(pads, index.shape[1], allowed.device)[:, None]
        seen.diagonal(dim1=1, dim2=2).fill_(True)
        return self._form(seen[:, None].to(like.device), like)

    def decode(self, pads: Sequence[int], length: int, new: int, like: Tensor) -> Tensor | None:
        """Mask of ``new`` tokens over a left-padded cache of ``length`` tokens, these included."""
        if not any(pads) and (new == 1 or self.flash):  # flash attention aligns causal rows itself
            return None
        seen = valid(pads, length, like.device)
        if self.flash:
            return seen
        ones = torch.ones(new, length, dtype=torch.bool, device=like.device)
        return self._form((seen[:, None] & ones.tril(length - new))[:, None], like)

    def _form(self, seen: Bool[Tensor, "b 1 q k"], like: Tensor) -> Tensor:
        if not self.eager:
            return seen
        zeros = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
        return zeros.masked_fill(~seen, torch.finfo(like.dtype).min)
