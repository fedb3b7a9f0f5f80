"""TokenLedger: the tokens alive in each layer, by original position. Knows nothing about models."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Prefixes of the array names of a stored ledger.
NAMES = (
    "vision", "protected", "depth", "spent", "encoder", "inside", "scored", "alive/", "cached/",
    "scores/", "source/",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """The four counts of the vision tokens of one prompt; always reported together.

    Attributes:
        nominal: Number of tokens that the method should keep; None if it has no target.
        paper_average: Mean over layers of the tokens left *after* each layer's own drop (the count
            of the authors' script).
        executed_average: Mean over layers of the tokens that *entered* the layer.
        resident: Mean over layers of the vision tokens in the KV cache while decoding.
    """

    nominal: float | None
    paper_average: float
    executed_average: float
    resident: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TokenSources:
    """Patches that the vision tokens of one image stand for at the language model's input.

    Attributes:
        patches: Patch grid of the image as (rows, columns).
        slots: Original position of each token, in the order in which they entered.
        mix: Weight of every patch in every token; None: token i is patch ``cells[i]``.
        cls: Weight of the encoder's [CLS] in every token, if it takes part.
        cells: Raster index of the patch in whose place each token stands.
    """

    patches: tuple[int, int]
    slots: Int[Tensor, " tokens"]
    cells: Int[Tensor, " tokens"]
    mix: Float[Tensor, "tokens patches"] | None = None
    cls: Float[Tensor, " tokens"] | None = None


@dataclass(eq=False)
class TokenLedger:
    """Record of one prompt.

    Attributes:
        seq_len: Number of tokens of the prompt as the processor built it, without padding.
        vision: Whether each slot holds image content.
        protected: Whether each slot holds a key token.
        alive: Layer -> original positions of the tokens at its input, in sequence order.
        cached: Layer -> original positions of the tokens in its KV cache while decoding.
        encoder: Block -> number of patch tokens at its input, one mapping per image (crop, frame);
            the number of blocks is the key of the projector.
        sources: Patches in the tokens of each image; empty without stages 1 and 1b.
        scores: Layer -> score of each vision token alive there (opt-in).
        scored_rows: Layer -> number of attention rows computed in addition to the model's own.
        decision_macs: Multiply-accumulates of the prefill's decisions, mixing included, without
            the scored rows.
        encoder_decision_macs: Multiply-accumulates of the encoder's decisions.
        merged_inside_blocks: Whether the encoder's blocks dropped tokens between attention and
            MLP, not after.
    """

    seq_len: int
    vision: Bool[Tensor, " seq"]
    protected: Bool[Tensor, " seq"]
    alive: dict[int, Int[Tensor, " alive"]] = field(default_factory=dict)
    cached: dict[int, Int[Tensor, " cached"]] = field(default_factory=dict)
    encoder: list[dict[int, int]] = field(default_factory=list)
    sources: list[TokenSources] = field(default_factory=list)
    scores: dict[int, Float[Tensor, " scored_rows"]] = field(default_factory=dict)
    scored_rows: dict[int, int] = field(default_factory=dict)
    decision_macs: int = 0
    encoder_decision_macs: int = 0
    merged_inside_blocks: bool = False

    @property
    def depth(self) -> int:
        """Number of decoder layers recorded."""
        return len(self.alive)

    @property
    def text_tokens(self) -> int:
        """Number of prompt tokens that are not vision tokens; they are never dropped."""
        return self.seq_len - int(self.vision.sum())

    def vision_per_layer(self) -> list[int]:
        """Number of vision tokens that entered each layer."""
        text = self.text_tokens
        return [len(self.alive[layer]) - text for layer in range(self.depth)]

    def resident_per_layer(self) -> list[int]:
        """Number of vision tokens in each layer's KV cache while decoding."""
        text = self.text_tokens
        return [len(self.cached[layer]) - text for layer in range(self.depth)]

    def counts(self, nominal: float | None = None) -> Counts:
        """The four counts (see :class:`Counts`).

        Raises:
            ValueError: If no prefill was recorded.
        """
        if not self.alive:
            raise ValueError("the ledger is empty: run a prefill with this dropper attached first")
        entered = self.vision_per_layer()
        left = [*entered[1:], entered[-1]]
        resident = self.resident_per_layer()
        depth = self.depth
        return Counts(nominal, sum(left) / depth, sum(entered) / depth, sum(resident) / depth)

    def image_tokens(
        self, image: int = 0, grid: tuple[int, int] | None = None
    ) -> tuple[tuple[int, int], Int[Tensor, " image_tokens"], Bool[Tensor, "tokens patches"]]:
        """Tokens of one image that the encoder passed on.

        Args:
            image: Index of the image (crop, frame) in the prompt.
            grid: Rows and columns of the image's patches, for a ledger without sources whose slots
                are the raster grids of the images in turn; by default one square grid.

        Returns:
            The image's grid, the slot of each token, and whether each token holds each patch.

        Raises:
            ValueError: If there is no such image, or the slots do not form whole grids.
        """
        if self.sources:
            if not 0 <= image < len(self.sources):
                raise ValueError(f"image must be in [0, {len(self.sources)}), got {image}")
            source = self.sources[image]
            if source.mix is not None:
                return source.patches, source.slots, source.mix != 0
            patches = torch.arange(source.patches[0] * source.patches[1])
            carries = source.cells[:, None] == patches.to(source.cells.device)
            return source.patches, source.slots, carries
        slots = self.vision.nonzero().flatten()
        rows, columns = grid or (isqrt(len(slots)), isqrt(len(slots)))
        size = rows * columns
        if not size or len(slots) % size or (grid is None and size != len(slots)):
            expected = "a square grid" if grid is None else f"grids of {rows} x {columns}"
            raise ValueError(
                f"expected {expected}, got {len(slots)} vision slots: give the grid of one image"
            )
        if not 0 <= image < len(slots) // size:
            raise ValueError(f"image must be in [0, {len(slots) // size}), got {image}")
        slots = slots[image * size : (image + 1) * size]
        return (rows, columns), slots, torch.eye(size, dtype=torch.bool, device=slots.device)

    def dropped_after(self) -> dict[int, Int[Tensor, " dropped"]]:
        """Layer -> original positions of the vision slots dropped after it; -1: at the input."""
        before = torch.arange(self.seq_len, device=self.vision.device)
        dropped = {}
        for layer in range(self.depth):
            alive = self.alive[layer]
            if len(alive) != len(before):
                dropped[layer - 1] = before[~torch.isin(before, alive)]
            before = alive
        return dropped

    def save(self, path: Path) -> None:
        """Write the ledger as a compressed npz."""
        np.savez_compressed(path, **self.arrays())

    @classmethod
    def load(cls, path: Path) -> "TokenLedger":
        """Read a file of :meth:`save`; raise ValueError if older code wrote it."""
        with np.load(path) as stored:
            return cls.of_arrays({key: stored[key] for key in stored.files}, str(path))

    def arrays(self) -> dict[str, Any]:
        """Convert to named numpy arrays; a layer equal to the one before it is left out."""
        arrays = {
            "vision": self.vision,
            "protected": self.protected,
            "depth": torch.tensor([len(self.alive), len(self.cached)]),
            **{f"alive/{layer}": index for layer, index in _changes(self.alive)},
            **{f"cached/{layer}": index for layer, index in _changes(self.cached)},
            **{f"scores/{layer}": score.float() for layer, score in self.scores.items()},
        }
        for image, source in enumerate(self.sources):
            arrays[f"source/{image}/patches"] = torch.tensor(source.patches)
            arrays[f"source/{image}/slots"] = source.slots
            arrays[f"source/{image}/cells"] = source.cells
            if source.mix is not None:
                arrays[f"source/{image}/mix"] = source.mix.float()
            if source.cls is not None:
                arrays[f"source/{image}/cls"] = source.cls.float()
        arrays["spent"] = torch.tensor(self.decision_macs)
        arrays["encoder_spent"] = torch.tensor(self.encoder_decision_macs)
        arrays["inside"] = torch.tensor(self.merged_inside_blocks)
        arrays["scored"] = torch.tensor(sorted(self.scored_rows.items())).view(-1, 2)
        for image, blocks in enumerate(self.encoder):
            arrays[f"encoder/{image}"] = torch.tensor(sorted(blocks.items())).view(-1, 2)
        return {name: array.detach().cpu().numpy() for name, array in arrays.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], path: str = "this") -> "TokenLedger":
        """Build a ledger from :meth:`arrays`; ignores other names; ``path`` is for errors."""
        if "depth" not in arrays:
            raise ValueError(f"{path} was written by older code: delete it and trace again")
        data = {k: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(NAMES)}
        ledger = cls(len(data["vision"]), data["vision"], data["protected"])
        ledger.scored_rows = {int(layer): int(rows) for layer, rows in data["scored"].tolist()}
        ledger.decision_macs = int(data["spent"])
        ledger.encoder_decision_macs = int(data["encoder_spent"])
        ledger.merged_inside_blocks = bool(data["inside"])
        images = sum(key.startswith("encoder/") for key in data)
        ledger.encoder = [
            {int(block): int(tokens) for block, tokens in data[f"encoder/{image}"].tolist()}
            for image in range(images)
        ]
        for image in range(sum(key.endswith("/patches") for key in data)):
            prefix = f"source/{image}/"
            rows, columns = data[prefix + "patches"].tolist()
            slots, cells = data[prefix + "slots"], data[prefix + "cells"]
            mix, cls_weights = data.get(prefix + "mix"), data.get(prefix + "cls")
            ledger.sources.append(TokenSources((rows, columns), slots, cells, mix, cls_weights))
        kept = {
            name: {int(k.split("/")[1]): v for k, v in data.items() if k.startswith(f"{name}/")}
            for name in ("alive", "cached", "scores")
        }
        ledger.scores = dict(sorted(kept["scores"].items()))
        for name, depth in zip(("alive", "cached"), data["depth"].tolist(), strict=True):
            layers, last = getattr(ledger, name), torch.empty(0, dtype=torch.long)
            for layer in range(depth):
                last = layers[layer] = kept[name].get(layer, last).long()
        return ledger


def _changes(layers: Mapping[int, Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Layers whose tokens differ from those of the layer before, and the first layer."""
    for layer, index in layers.items():
        before = layers.get(layer - 1)
        if before is None or not torch.equal(before, index):
            yield layer, index.int()
