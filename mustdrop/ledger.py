"""TokenLedger: the tokens alive in each layer, by original position. Knows nothing about models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.sources import TokenSources

# Prefixes of the array names of a stored ledger.
NAMES = (
    "vision", "protected", "grids", "cells", "depth", "spent", "encoder", "pairs", "inside",
    "scored", "alive/", "cached/", "scores/", "source/", "mosaics", "tiles",
    "videos",
)  # fmt: skip
OFF_GRID = -1  # cell of a vision slot that shows none, such as a newline or a frame's [CLS]


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


@dataclass(eq=False)
class TokenLedger:
    """Record of one prompt.

    Attributes:
        seq_len: Number of tokens of the prompt as the processor built it, without padding.
        vision: Whether each slot holds image content.
        protected: Whether each slot holds a key token.
        grids: Cells of each encoded image (crop, frame) of the prompt as (rows, columns).
        cells: Flat cell that each vision slot shows, counted through ``grids``, or ``OFF_GRID``.
        mosaics: (index of the first crop, rows, columns) of the crops that tile each picture.
        videos: (index of the first frame, number of frames) of each video.
        tiles: Number of images that the encoder gets for each grid; empty: one for each.
        alive: Layer -> original positions of the tokens at its input, in sequence order.
        cached: Layer -> original positions of the tokens in its KV cache while decoding.
        encoder: Block -> number of cells at its input, one mapping per image; the number of blocks
            is the key of the projector.
        encoder_pairs: Block -> pairs of patches that attend to one another, by image; for windows.
        sources: Cells in the tokens of each image; empty without stages 1 and 1b.
        scores: Layer -> score of each vision token alive there (opt-in).
        scored_rows: Layer -> number of attention rows computed in addition to the model's own.
        decision_macs: Multiply-accumulates of the prefill's decisions, without the scored rows.
        encoder_decision_macs: Multiply-accumulates of the encoder's decisions.
        merged_inside_blocks: Whether blocks of the encoder dropped tokens before their MLP.
    """

    seq_len: int
    vision: Bool[Tensor, " seq"]
    protected: Bool[Tensor, " seq"]
    grids: Sequence[tuple[int, int]] = ()
    cells: Int[Tensor, " slots"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    mosaics: Sequence[tuple[int, int, int]] = ()
    videos: Sequence[tuple[int, int]] = ()
    tiles: Sequence[int] = ()
    alive: dict[int, Int[Tensor, " alive"]] = field(default_factory=dict)
    cached: dict[int, Int[Tensor, " cached"]] = field(default_factory=dict)
    encoder: list[dict[int, int]] = field(default_factory=list)
    encoder_pairs: list[dict[int, int]] = field(default_factory=list)
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
    def frames(self) -> set[int]:
        """Indices of the encoded images that are frames of a video."""
        return {frame for first, count in self.videos for frame in range(first, first + count)}

    @property
    def shown_cells(self) -> int:
        """Number of vision slots that show a cell; the others are newlines and the like."""
        return int((self.cells != OFF_GRID).sum())

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
        entered, resident = self.vision_per_layer(), self.resident_per_layer()
        left = [*entered[1:], entered[-1]]
        return Counts(nominal, fmean(left), fmean(entered), fmean(resident))

    def image_tokens(
        self, image: int = 0
    ) -> tuple[tuple[int, int], Int[Tensor, " image_tokens"], Bool[Tensor, "tokens cells"]]:
        """Tokens of one image that the encoder passed on.

        Args:
            image: Index of the image (crop, frame) in the prompt.

        Returns:
            The image's grid, the slot of each token, and whether each token holds each cell.

        Raises:
            ValueError: If there is no such image.
        """
        if not 0 <= image < len(self.grids):
            raise ValueError(f"image must be in [0, {len(self.grids)}), got {image}")
        grid = self.grids[image]
        size = grid[0] * grid[1]
        if self.sources:
            source = self.sources[image]
            if source.mix is not None:
                return grid, source.slots, source.mix != 0
            slots, cells = source.slots, source.cells
        else:
            first = sum(rows * columns for rows, columns in self.grids[:image])
            in_image = (self.cells >= first) & (self.cells < first + size)
            slots = self.vision.nonzero().flatten()[in_image]
            cells = self.cells[in_image] - first
        return grid, slots, cells[:, None] == torch.arange(size, device=cells.device)

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
            "grids": torch.tensor(self.grids).view(-1, 2),
            "cells": self.cells.int(),
            "depth": torch.tensor([len(self.alive), len(self.cached)]),
            **{f"alive/{layer}": index for layer, index in _changes(self.alive)},
            **{f"cached/{layer}": index for layer, index in _changes(self.cached)},
            **{f"scores/{layer}": score.float() for layer, score in self.scores.items()},
        }
        for name in ("mosaics", "videos", "tiles"):
            if len(values := getattr(self, name)):
                arrays[name] = torch.tensor(values)
        for image, source in enumerate(self.sources):
            named = {name: getattr(source, name) for name in ("slots", "cells", "mix", "cls")}
            for name, value in named.items():
                if value is not None:
                    is_float = value.is_floating_point()
                    arrays[f"source/{image}/{name}"] = value.float() if is_float else value
        arrays["spent"] = torch.tensor(self.decision_macs)
        arrays["encoder_spent"] = torch.tensor(self.encoder_decision_macs)
        arrays["inside"] = torch.tensor(self.merged_inside_blocks)
        arrays["scored"] = torch.tensor(sorted(self.scored_rows.items())).view(-1, 2)
        for name, images in (("encoder", self.encoder), ("pairs", self.encoder_pairs)):
            for image, blocks in enumerate(images):
                arrays[f"{name}/{image}"] = torch.tensor(sorted(blocks.items())).view(-1, 2)
        return {name: array.detach().cpu().numpy() for name, array in arrays.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], path: str = "this") -> "TokenLedger":
        """Build a ledger from :meth:`arrays`; ignores other names; ``path`` is for errors."""
        if "grids" not in arrays:
            raise ValueError(f"{path} was written by older code: delete it and trace again")
        data = {k: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(NAMES)}
        grids = [(int(rows), int(columns)) for rows, columns in data["grids"].tolist()]
        vision, protected = data["vision"], data["protected"]
        ledger = cls(len(vision), vision, protected, grids, data["cells"].long())
        if "mosaics" in data:
            ledger.mosaics = [(first, *shape) for first, *shape in data["mosaics"].tolist()]
        if "videos" in data:
            ledger.videos = [(first, count) for first, count in data["videos"].tolist()]
        if "tiles" in data:
            ledger.tiles = data["tiles"].tolist()
        ledger.scored_rows = {int(layer): int(rows) for layer, rows in data["scored"].tolist()}
        ledger.decision_macs = int(data["spent"])
        ledger.encoder_decision_macs = int(data["encoder_spent"])
        ledger.merged_inside_blocks = bool(data["inside"])
        ledger.encoder, ledger.encoder_pairs = _by_block(data, "encoder"), _by_block(data, "pairs")
        for image in range(sum(key.endswith("/slots") for key in data)):
            prefix = f"source/{image}/"
            parts = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
            mix, cls = parts.get("mix"), parts.get("cls")
            ledger.sources.append(TokenSources(parts["slots"], parts["cells"], mix, cls))
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


def _by_block(data: Mapping[str, Tensor], name: str) -> list[dict[int, int]]:
    """Numbers by block, one mapping per image."""
    images = sum(key.startswith(f"{name}/") for key in data)
    return [dict(data[f"{name}/{image}"].tolist()) for image in range(images)]


def _changes(layers: Mapping[int, Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Layers whose tokens differ from those of the layer before, and the first layer."""
    for layer, index in layers.items():
        before = layers.get(layer - 1)
        if before is None or not torch.equal(before, index):
            yield layer, index.int()
