"""ModelAdapter: where a model family keeps its modules, and what its vision tokens show."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.ledger import OFF_GRID
from mustdrop.models.encoders import EncoderPart
from mustdrop.models.encoders.base import Part
from mustdrop.strategy import ModelFacts

ProcessorOutput = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class VisualInput:
    """One image or one video of a prompt.

    Attributes:
        grids: (rows, columns) of the cells of each of its encoded images: the whole image, its
            crops, or its frames, in the order in which the encoder gets them.
        cells: Flat cell that each of its vision tokens shows, counted through ``grids``;
            ``OFF_GRID`` for a newline or a frame's [CLS].
        pixels: What the encoder gets of each encoded image; random draws depend on it.
        is_video: Whether its encoded images are frames.
        tiles: Number of images that the encoder gets for each grid, where one grid is stitched from
            several; empty: one for each.
        crops: (rows, columns) of the crops that tile the picture. They are all of its encoded
            images but the first, row after row; None: there are no crops.
    """

    grids: Sequence[tuple[int, int]]
    cells: Int[Tensor, " slots"]
    pixels: Sequence[Tensor]
    is_video: bool = False
    crops: tuple[int, int] | None = None
    tiles: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.crops is not None and self.crops[0] * self.crops[1] != len(self.grids) - 1:
            raise ValueError(
                f"crops must be (rows, columns) of {len(self.grids) - 1} crops, got {self.crops}"
            )

    @classmethod
    def raster(
        cls,
        pixels: Sequence[Tensor],
        grid: tuple[int, int],
        with_cls: bool = False,
        is_video: bool = False,
    ) -> "VisualInput":
        """Make an input whose vision tokens are all cells of each encoded image in raster order.

        Args:
            pixels: Pixels of each encoded image.
            grid: Cells of an encoded image as (rows, columns).
            with_cls: Whether an off-grid token stands before each encoded image.
            is_video: Whether the encoded images are frames.
        """
        cells = torch.arange(len(pixels) * grid[0] * grid[1]).view(len(pixels), -1)
        if with_cls:
            cells = torch.cat([torch.full((len(pixels), 1), OFF_GRID), cells], 1)
        return cls([grid] * len(pixels), cells.flatten(), pixels, is_video)


@dataclass(frozen=True, eq=False)
class ModelAdapter(ABC):
    """Access to the parts of one model family."""

    model: Any

    @property
    def base(self) -> Part:
        """Module that receives ``input_ids`` and calls all other parts."""
        return self.model.model

    @property
    def language_model(self) -> Part:
        """Decoder without its head."""
        return self.base.language_model

    @cached_property
    def layers(self) -> Sequence[Part]:
        """Decoder layers; each has ``self_attn`` and ``input_layernorm``."""
        return list(self.language_model.layers)

    @cached_property
    def final_norm(self) -> Part | None:
        """Norm behind the decoder's layers; None where it has no known name."""
        text = self.language_model
        return getattr(text, "norm", None) or getattr(text, "final_layernorm", None)

    @cached_property
    @abstractmethod
    def encoders(self) -> Sequence[EncoderPart]:
        """Vision encoders; a call of one encodes a batch of images.

        A model has one, or one for images and, behind it, one for the frames of videos.
        """

    @property
    def projector(self) -> Part:
        """Module that maps the features of cells to the language model's width."""
        return self.base.multi_modal_projector

    @property
    def feature_entry(self) -> Part:
        """Module whose input are the features of cells: the projector, or a module inside it."""
        return self.projector

    def project(self, features: Tensor) -> Tensor:
        """Map the features of one image [1, tokens, dim] to [tokens, width], as the model does."""
        return self.projector(features).flatten(0, -2)

    @property
    def feature_norm(self) -> Part | None:
        """Norm between the block whose output is read and the projector; None: there is none."""
        return None

    @cached_property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """Facts about the model that strategies may use."""

    @property
    def causal(self) -> bool:
        """Whether each token of a prompt sees those before it; if not, the model's masks count."""
        return True

    @property
    def window(self) -> int | None:
        """Number of tokens up to which all layers see a whole conversation; None: all of them do.

        Without it, a model with layers that see less is refused.
        """
        return None

    def kind(self, layer: int) -> str:
        """Kind of a decoder layer; layers of one kind get the same masks and rotary embeddings."""
        kinds = getattr(self.language_model.config, "layer_types", None)
        return kinds[layer] if kinds else "full_attention"

    @abstractmethod
    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        """Images and videos of a batch, in the order of the prompts, by the id of their slots.

        The ids stand in the order in which the model encodes them. This is a pure function of what
        the processor returned.

        Raises:
            ValueError: If the inputs lack what the model needs to place its vision tokens.
        """

    @property
    def image_tokens(self) -> int | None:
        """Number of vision tokens of an image, where it is the same for all images."""
        return None

    @property
    def encoder_grid(self) -> tuple[int, int] | None:
        """Cells of what the encoder gets, where the model pools them; None: those of the grids."""
        return None

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        """Fields of the family's processor from which it counts vision tokens, and their values."""
        return {}

    def keeps_cls(self, encoder: EncoderPart) -> bool:
        """Whether the language model gets this encoder's [CLS], in an off-grid slot."""
        return False

    def take_added(
        self, arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Float[Tensor, "batch seq dim"]]]:
        """Separate the states that the language model adds between its layers (DeepStack).

        Args:
            arguments: Arguments of the language model.

        Returns:
            The arguments without these states; and the states that are added after layer 0, after
            layer 1, and so on, with zeros for tokens that get none.
        """
        return dict(arguments), []

    def rotary(
        self, hidden: Tensor, positions: Int[Tensor, "*axes batch seq"], layer: int = 0
    ) -> Any:
        """Rotary embeddings (cos, sin) that a decoder layer gets for these positions.

        Coordinates have three axes, the last ones; a position that is one number has it on each.
        """
        if self.facts.coordinates:
            numbers = positions.dim() == 2
            positions = positions.expand(3, *positions.shape) if numbers else positions[-3:]
        return self.language_model.rotary_emb(hidden, position_ids=positions)


def sized_images(inputs: ProcessorOutput) -> list[tuple[Tensor, list[int]]]:
    """(encoded images, [height, width]) of each image whose size the processor returns.

    Raises:
        ValueError: If an image has no size.
    """
    pixels, sizes = inputs.get("pixel_values"), inputs.get("image_sizes")
    if pixels is None:
        return []
    if sizes is None or len(sizes) != len(pixels):
        given = "none" if sizes is None else len(sizes)
        raise ValueError(f"image_sizes must have one row per image: {len(pixels)}, got {given}")
    return list(zip(pixels, torch.as_tensor(sizes).tolist(), strict=True))
