"""State of one image (crop, frame) on its way through the encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.engine.prompts import ArrivedImage
from mustdrop.reduction import Reduction
from mustdrop.strategy import Place


@dataclass(eq=False)
class EncodedImage:
    """Tokens of one image (crop, frame), and the decisions on them.

    Attributes:
        image: Grid, pixels and prompt of the image.
        cells: Raster index of the cell in whose place each token stands, in the order of the
            tokens.
        sizes: Number of cells that each token stands for.
        protected: Whether each token is a key token.
        reduction: Reduction of all cells to these tokens; None: no strategy dropped or merged any.
        steps: Reduction at each location where something was decided.
        blocks: Block -> number of tokens at its input; the number of blocks is the key of
            the projector.
        pairs: Block -> number of pairs of patches that attend to one another, where attention stays
            in windows; on the device until all images are encoded.
        pair_counts: The same as numbers, once all images are encoded.
        cls_attention: Block -> attention of [CLS] to these tokens, if a strategy reads it.
        queries_keys: Block -> queries and keys of [CLS] and these tokens, if a strategy reads them.
        decision_macs: Multiply-accumulates of the decisions.
    """

    image: ArrivedImage
    cells: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]
    protected: Bool[Tensor, " tokens"]
    reduction: Reduction | None = None
    steps: dict[Place, Reduction] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    pairs: dict[int, Tensor] = field(default_factory=dict)
    pair_counts: dict[int, int] = field(default_factory=dict)
    cls_attention: dict[int, Float[Tensor, "heads tokens"]] = field(default_factory=dict)
    queries_keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    decision_macs: int = 0

    @classmethod
    def whole(cls, image: ArrivedImage, device: torch.device) -> "EncodedImage":
        """Make the state of an image before any decision."""
        total = image.grid[0] * image.grid[1]
        return cls(
            image,
            torch.arange(total, device=device),
            torch.ones(total, device=device),
            torch.zeros(total, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def total(self) -> int:
        """Number of cells of the image."""
        return self.image.grid[0] * self.image.grid[1]

    def apply(self, location: Place, reduction: Reduction) -> None:
        """Apply a decision to the state."""
        self.steps[location] = reduction
        whole = self.reduction
        if whole is not None and whole.mixes:
            self.decision_macs += reduction.macs(self.total) if whole.group is None else 0
        if whole is None and len(self) < self.total:  # the model's packing cut cells away
            whole = Reduction(self.cells)
        self.reduction = reduction if whole is None else whole.then(reduction, self.total)
        keep = reduction.keep
        self.cells, self.protected = self.cells[keep], self.protected[keep]
        self.sizes = self.sizes[keep] if reduction.sizes is None else reduction.sizes.to(self.sizes)
        self.cls_attention = {block: rows[:, keep] for block, rows in self.cls_attention.items()}
        self.queries_keys = {}  # they belong to the tokens before the decision

    def cut(self, left: Int[Tensor, " left"]) -> None:
        """Remove the tokens for which the model's packing has no slot, all but ``left``."""
        before = len(self)
        parts = (self.cells, self.protected, self.sizes)
        self.cells, self.protected, self.sizes = (part[left] for part in parts)
        self.cls_attention = {block: rows[:, left] for block, rows in self.cls_attention.items()}
        for block, states in self.queries_keys.items():
            extra = states[0].shape[1] - before  # [CLS]
            index = torch.cat([torch.arange(extra, device=left.device), left + extra])
            query, key = (part[:, index] for part in states)
            self.queries_keys[block] = (query, key)
        self.reduction = None if self.reduction is None else self.reduction.at(left)

    def move(self, device: torch.device) -> None:
        """Move the state from the encoder's device to another one."""
        if self.cells.device == device:
            return
        self.cells, self.sizes = self.cells.to(device), self.sizes.to(device)
        self.protected = self.protected.to(device)
        self.reduction = None if self.reduction is None else self.reduction.to(device)

    def log_sizes(self, extra: int, patches: int) -> Float[Tensor, " all"]:
        """Numbers that proportional attention adds to the scores of ``extra`` [CLS] and patches.

        Args:
            extra: Number of [CLS] before the patches.
            patches: Number of patches of a token.
        """
        sizes = self.sizes.log().repeat_interleave(patches)
        return torch.cat([sizes.new_zeros(extra), sizes])

    def count_macs(self, macs: int) -> None:
        """Add the multiply-accumulates of a decision."""
        self.decision_macs += macs


def key_mask(
    images: Sequence[EncodedImage],
    extra: int,
    hidden: Float[Tensor, "b n c"],
    added: bool,
    weighted: bool,
    patches: int = 1,
) -> Tensor:
    """Mask of the keys that hold a token, one row per image of a batch padded on the right.

    Args:
        images: Images of the batch.
        extra: Number of [CLS] before the tokens.
        hidden: States of the batch.
        added: Whether the mask is added to the scores.
        weighted: Whether the tokens' log sizes are added, too.
        patches: Number of states of a token.
    """
    lengths = torch.tensor([len(image) * patches for image in images])
    seen = torch.arange(hidden.shape[1]) < (lengths + extra)[:, None]
    seen = seen.to(hidden.device, non_blocking=True)
    if not added:
        return seen
    numbers = torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device)
    if weighted:
        for row, image in zip(numbers, images, strict=True):
            row[: len(image) * patches + extra] = image.log_sizes(extra, patches)
    return numbers.masked_fill(~seen, torch.finfo(hidden.dtype).min)
