"""Views: the data that each kind of strategy may read; a value is computed when it is first read.

Knows nothing about models; the engine implements the views.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction

Rows = Literal["text", "last"] | Int[Tensor, " rows"]
Place = int | Literal["features", "projected"]  # a block, or after the encoder


class VisionView(ABC):
    """View of one image inside the encoder, without [CLS].

    Attributes:
        block: Block that has just run (for a strategy ``inside_block``, only its attention has),
            or ``features`` or ``projected`` after the encoder.
        grid: Cells of the image as (rows, columns).
        has_cls: Whether a [CLS] comes before the tokens.
        cells: Raster index of the cell in whose place each token stands. After the encoder
            (``features``, ``projected``), cells that the model's packing cuts away are missing.
        sizes: Number of cells that each token stands for.
    """

    block: Place
    grid: tuple[int, int]
    has_cls: bool
    cells: Int[Tensor, " tokens"]
    sizes: Float[Tensor, " tokens"]

    @property
    @abstractmethod
    def hidden(self) -> Float[Tensor, "tokens dim"]:
        """Hidden states of the image's tokens."""

    @property
    @abstractmethod
    def prompt_images(self) -> Sequence[Float[Tensor, "_ dim"]]:
        """Hidden states of all images (crops) of the same prompt, this one included."""

    @property
    @abstractmethod
    def span(self) -> tuple[int, int, int]:
        """Vision slots of the prompt that show earlier images; these and this image; all images."""

    @abstractmethod
    def cls_attention(self, block: int) -> Float[Tensor, "heads tokens"]:
        """Attention of [CLS] to each token in ``block``; [CLS]'s own column is left out.

        Raises:
            ValueError: If the encoder has no [CLS], or the strategy did not list the block in
                ``cls_attention_blocks``.
        """

    @abstractmethod
    def queries_keys(
        self, block: int
    ) -> tuple[Float[Tensor, "heads all dim"], Float[Tensor, "heads all dim"]]:
        """Queries and keys of ``block``, as its attention gets them; [CLS] first, if there is one.

        Raises:
            ValueError: If the strategy did not list the block in ``query_key_blocks``.
        """

    @abstractmethod
    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, image and ``block`` only."""

    @abstractmethod
    def annotation(self, name: str) -> Bool[Tensor, " cells"]:
        """Whether the annotation marks each cell of the image, in raster order.

        Raises:
            ValueError: If the image has no annotation of that name.
        """

    @abstractmethod
    def count_macs(self, macs: int) -> None:
        """Add the multiply-accumulates of a decision to the image's cost."""

    def annotated(self, name: str) -> Bool[Tensor, " tokens"]:
        """Whether each token stands in the place of a cell that the annotation marks.

        Raises:
            ValueError: If the image has no annotation of that name.
        """
        return self.annotation(name)[self.cells]


class PrefillView(ABC):
    """View of one prompt's vision tokens between two decoder layers; ``len`` is their number.

    Attributes:
        layer: Layer that has just run; -1 at the language model's input.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        grids: Cells of each encoded image (crop, frame) of the prompt as (rows, columns).
        visual_inputs: Range of the encoded images of each image or video of the prompt, and whether
            it is a video.
        entered: Number of vision tokens that entered layer 0; at the language model's input, the
            number present there.
        entered_cells: Number of these that show a cell; a share of a budget refers to it.
        protected: Whether each vision token is a key token, which must stay.
        sizes: Number of cells that each vision token stands for.
        text: Original positions of the text tokens after the last vision token.
        inputs: Input embeddings of the whole prompt at the language model.
    """

    layer: int
    depth: int
    prompt_index: int
    grids: Sequence[tuple[int, int]]
    visual_inputs: Sequence[tuple[range, bool]]
    entered: int
    entered_cells: int
    protected: Bool[Tensor, " vision"]
    sizes: Float[Tensor, " vision"]
    text: Int[Tensor, " text"]
    inputs: Float[Tensor, "prompt dim"]

    def __len__(self) -> int:
        return len(self.protected)

    @property
    @abstractmethod
    def positions(self) -> Int[Tensor, " vision"]:
        """Original position of each vision token."""

    @property
    @abstractmethod
    def protected_count(self) -> int:
        """Number of key tokens; the first read in a batch waits for the device."""

    @property
    @abstractmethod
    def entered_positions(self) -> Int[Tensor, " entered"]:
        """Original positions of the vision tokens that entered layer 0."""

    @property
    @abstractmethod
    def cell_coordinates(self) -> Int[Tensor, "vision 3"]:
        """(encoded image, row, column) of each vision token; -1 for newlines and the like."""

    @property
    @abstractmethod
    def hidden(self) -> Float[Tensor, "vision dim"]:
        """Hidden states of the vision tokens."""

    @abstractmethod
    def attention(
        self, rows: Rows = "text", of: Literal["this", "next"] = "this"
    ) -> Float[Tensor, "heads rows vision"]:
        """Attention from text to the vision tokens.

        Args:
            rows: Rows to return: all text after the last vision token, only its last token, or
                indices into it.
            of: Layer that has just run, or the next one on this layer's output (a look-ahead).
        """

    @abstractmethod
    def received_attention(self) -> Float[Tensor, " vision"]:
        """Attention that each vision token received from all tokens of the prompt in this layer.

        Mean over heads and rows, in float32; a few rows are computed at a time.
        """

    @abstractmethod
    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, prompt (ids, pixels) and layer only."""

    @abstractmethod
    def cached(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Value that is the same for all layers: computed at the first, then reused."""

    @abstractmethod
    def log_score(self, score: Float[Tensor, " vision"]) -> None:
        """Give the ledger the score by which the tokens are ranked; it may keep it."""

    @abstractmethod
    def count_macs(self, macs: int) -> None:
        """Add the multiply-accumulates of a decision, without attention rows, to its cost."""

    def of_cells(
        self, values: Shaped[Tensor, " cells"], off_grid: float
    ) -> Shaped[Tensor, " vision"]:
        """Value of the cell in whose place each vision token stands.

        Args:
            values: Value of each cell, counted through ``grids``; on the host.
            off_grid: Value of a slot that shows no cell.
        """
        starts = [0, *accumulate(rows * columns for rows, columns in self.grids)]
        widths = [columns for _, columns in self.grids] or [1]
        coordinates = self.cell_coordinates
        image, row, column = coordinates.T
        first, width = (
            torch.tensor(numbers).to(image, non_blocking=True)[image]
            for numbers in (starts, widths)
        )
        padded = torch.cat([values, values.new_zeros(1)]).to(image.device, non_blocking=True)
        return padded[first + row * width + column].masked_fill(image < 0, off_grid)

    def top(self, score: Float[Tensor, " vision"], keep: int) -> Reduction:
        """Keep the ``keep`` tokens of highest score, in sequence order; key tokens rank first.

        The result is smaller if there are fewer tokens, larger if there are more key tokens.
        """
        kept = min(max(keep, self.protected_count), len(self))
        return Reduction(top_keep(score, kept, self.protected), ascending=True)


class CacheView(ABC):
    """View of one prompt's KV cache in one layer, after the prefill.

    Attributes:
        layer: Index of the layer.
        depth: Number of decoder layers.
        prompt_index: Index of the prompt in the batch.
        positions: Original position of each vision token in this layer's cache.
        survives: Whether each vision token was still alive in the last layer.
        survivors: Number of vision tokens alive in the last layer.
        protected: Whether each vision token is a key token.
    """

    layer: int
    depth: int
    prompt_index: int
    positions: Int[Tensor, " vision"]
    survives: Bool[Tensor, " vision"]
    survivors: int
    protected: Bool[Tensor, " vision"]

    @abstractmethod
    def generator(self, seed: int) -> torch.Generator:
        """Random generator that depends on seed, prompt (ids, pixels) and layer only."""
