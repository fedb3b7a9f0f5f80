"""TokenLedger: which token of one prompt lived where. Original positions only; knows no model."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# How the names of a stored ledger's arrays begin.
NAMES = (
    "vision", "protected", "depth", "spent", "encoder", "inside", "scored", "alive/", "cached/",
    "scores/", "source/",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """The four numbers that tell how many vision tokens a prompt had; always reported together.

    Attributes:
        nominal: Tokens the method was asked for; None where it has no target.
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
    """What the vision tokens of one image stand for at the language model's input.

    Attributes:
        patches: Grid of the image as (rows, columns).
        slots: Original position of each token, in the order in which they entered.
        mix: Weight of every patch in every token; None: token i is patch ``cells[i]``.
        cls: Weight of the encoder's [CLS] in every token, where it takes part.
        cells: Raster index of the patch in whose place each token stands.
    """

    patches: tuple[int, int]
    slots: Int[Tensor, " tokens"]
    cells: Int[Tensor, " tokens"]
    mix: Float[Tensor, "tokens patches"] | None = None
    cls: Float[Tensor, " tokens"] | None = None


@dataclass(eq=False)
class TokenLedger:
    """The record of one prompt.

    Attributes:
        seq_len: Tokens of the prompt as the processor built it, padding left out.
        vision: Slots that hold image content.
        protected: Slots that hold key tokens.
        alive: Per layer, the original positions at its input, in the order of the sequence.
        cached: Per layer, the original positions in its KV cache while decoding.
        encoder: Per image (crop, frame), encoder block -> patch tokens at its input; the number of
            blocks -> patch tokens at the projector's.
        sources: Per image, what its tokens stand for; empty where the encoder was left alone.
        scores: Layer -> the strategy's score of each vision token alive there (opt-in).
        scored_rows: Layer -> number of attention rows computed on top of the model's own.
        decision_macs: Multiply-accumulates of the other work of the prefill's decisions, mixing
            included.
        encoder_decision_macs: Multiply-accumulates of the encoder's decisions.
        merged_inside_blocks: Whether the encoder's blocks lost tokens between attention and MLP,
            not after.
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
        """Prompt tokens that are no vision tokens; they are never dropped."""
        return self.seq_len - int(self.vision.sum())

    def vision_per_layer(self) -> list[int]:
        """Vision tokens that entered each layer."""
        text = self.text_tokens
        return [len(self.alive[layer]) - text for layer in range(self.depth)]

    def resident_per_layer(self) -> list[int]:
        """Vision tokens in each layer's KV cache while decoding."""
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
        """The tokens that the encoder handed on of one image.

        Args:
            image: Which image (crop, frame) of the prompt, from 0.
            grid: Rows and columns of its patches, where the ledger has no sources and the slots
                are the raster grids of the images one after the other; by default one square grid.

        Returns:
            The image's grid, the slot of each token, and which patches each token carries.

        Raises:
            ValueError: If there is no such image, or the slots are no whole grids.
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
        own = slots[image * size : (image + 1) * size]
        return (rows, columns), own, torch.eye(size, dtype=torch.bool, device=slots.device)

    def dropped_after(self) -> dict[int, Int[Tensor, " dropped"]]:
        """Layer -> original positions of the vision slots that left after it; -1: at the input."""
        before = torch.arange(self.seq_len, device=self.vision.device)
        out = {}
        for layer in range(self.depth):
            now = self.alive[layer]
            if len(now) != len(before):
                out[layer - 1] = before[~torch.isin(before, now)]
            before = now
        return out

    def save(self, path: Path) -> None:
        """Write the ledger as a compressed npz."""
        np.savez_compressed(path, **self.arrays())

    @classmethod
    def load(cls, path: Path) -> "TokenLedger":
        """Read what :meth:`save` wrote; ValueError if older code did."""
        with np.load(path) as stored:
            return cls.of_arrays({key: stored[key] for key in stored.files}, str(path))

    def arrays(self) -> dict[str, Any]:
        """The ledger as named numpy arrays; a layer like the one before it is left out."""
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
        """The ledger that :meth:`arrays` told, other names left aside; ``path`` is for errors."""
        if "depth" not in arrays:
            raise ValueError(f"{path} was written by older code: delete it and trace again")
        data = {k: torch.from_numpy(part) for k, part in arrays.items() if k.startswith(NAMES)}
        ledger = cls(len(data["vision"]), data["vision"], data["protected"])
        ledger.scored_rows = {int(layer): int(rows) for layer, rows in data["scored"].tolist()}
        ledger.decision_macs, ledger.encoder_decision_macs = (
            int(data["spent"]),
            int(data["encoder_spent"]),
        )
        ledger.merged_inside_blocks = bool(data["inside"])
        images = sum(key.startswith("encoder/") for key in data)
        ledger.encoder = [
            {int(block): int(tokens) for block, tokens in data[f"encoder/{image}"].tolist()}
            for image in range(images)
        ]
        for image in range(sum(key.endswith("/patches") for key in data)):
            rows, columns = data[f"source/{image}/patches"].tolist()
            ledger.sources.append(
                TokenSources(
                    (rows, columns),
                    data[f"source/{image}/slots"],
                    data[f"source/{image}/cells"],
                    data.get(f"source/{image}/mix"),
                    data.get(f"source/{image}/cls"),
                )
            )
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
    """Layers whose tokens are not those of the layer before, the first among them."""
    for layer, index in layers.items():
        before = layers.get(layer - 1)
        if before is None or not torch.equal(before, index):
            yield layer, index.int()
