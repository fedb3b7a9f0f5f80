"""Cost of a prompt, in closed form from its ledger: FLOPs and bytes of KV cache.

``vanilla`` costs are those of the same prompt with nothing dropped. They depend on sizes only, so
they are the same for every method.

Conventions, by name:
  macs      multiply-accumulates of matrix products; attention over the full n x n square, no causal
            halving; two or three matrices in the MLP; the strategies' own scoring included.
  flops     2 x macs, what ``torch.utils.flop_counter`` counts.
  sparsevlm 4 n d^2 + 2 n^2 d + 3 n d m per layer, the count that SparseVLM's code prints and calls
            FLOPs: the macs of a decoder whose heads are all key-value heads, without scoring and
            head.
  paper_mb  0.525 MB per vision token and layer-average, the factor behind Tables 3 and 6 of
            arXiv:2411.10803.
Knows nothing about models: shapes are numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mustdrop.ledger import TokenLedger

PAPER_MB_PER_TOKEN = 0.525


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a Llama-like decoder.

    Attributes:
        hidden: Width d.
        query: Width of all query heads together.
        kv: Width of all key (or value) heads together.
        ffn: Inner width m of the MLP.
        vocab: Number of rows of the language-model head.
        bytes_per_value: Size of one cached number in bytes.
        mlp_matrices: Number of d x m matrices in the MLP: 3 with a gate (SwiGLU), 2 without.
        experts: Number of experts that a router scores for each token; m is then the inner width of
            all experts together that compute a token. 0: there is one MLP for all tokens.
    """

    hidden: int
    query: int
    kv: int
    ffn: int
    vocab: int
    bytes_per_value: int = 2
    mlp_matrices: int = 3
    experts: int = 0

    def layer_macs(self, tokens: int) -> int:
        """Multiply-accumulates of one layer over ``tokens`` tokens."""
        projections = 2 * self.hidden * (self.query + self.kv)
        projections += (self.mlp_matrices * self.ffn + self.experts) * self.hidden
        return tokens * projections + 2 * tokens**2 * self.query


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a ViT encoder, and of the projector after it.

    Attributes:
        hidden: Width of the encoder.
        ffn: Inner width of its MLP.
        blocks: Number of blocks; all run, whichever block's features are read.
        extra: Number of tokens in addition to the patches: 1 for a [CLS].
        patch_values: Number of values in one patch, channels included.
        projection: Multiply-accumulates of the projector for one token.
        extra_projected: Number of tokens in addition to the cells that reach the projector: 1
            where the language model receives the [CLS].
        extra_of_frames: The same for each frame of a video.
        pooled: Whether an attention-pooling head runs after the blocks, as SigLIP's does by
            default. Its output is not used, but it is computed.
        mlp_matrices: Number of hidden x ffn matrices in the MLP: 3 with a gate (SwiGLU), 2 without.
        unit: Number of patches along each side of a cell.
        window: Side of an attention window in cells; None: all blocks attend to the whole image.
        full_blocks: Blocks that attend to the whole image although there are windows.
        added_blocks: Blocks whose output is projected too, for layers of the decoder (DeepStack).
        grid: Cells of what the encoder gets, where the model pools them; None: those of the ledger.
    """

    hidden: int
    ffn: int
    blocks: int
    extra: int
    patch_values: int
    projection: int
    extra_projected: int = 0
    extra_of_frames: int = 0
    pooled: bool = False
    mlp_matrices: int = 2
    unit: int = 1
    window: int | None = None
    full_blocks: Sequence[int] = ()
    added_blocks: Sequence[int] = ()
    grid: tuple[int, int] | None = None

    def block_macs(self, tokens: int, left: int, pairs: int | None = None) -> int:
        """Multiply-accumulates of a block.

        Args:
            tokens: Number of tokens that attend.
            left: Number of tokens that go through the MLP.
            pairs: Number of pairs of tokens that attend to one another; None: all pairs.
        """
        pairs = tokens**2 if pairs is None else pairs
        attention = 4 * tokens * self.hidden**2 + 2 * pairs * self.hidden
        return attention + self.mlp_matrices * left * self.hidden * self.ffn

    def head_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the pooling head: a query attends to ``tokens``, then an MLP."""
        attention = 2 * (tokens + 1) * self.hidden**2 + 2 * tokens * self.hidden
        return attention + 2 * self.hidden * self.ffn

    def window_pairs(self, grid: tuple[int, int], block: int) -> int | None:
        """Number of pairs that attend to one another in a block of a whole image; None: all."""
        if self.window is None or block in self.full_blocks:
            return None
        rows, columns = (_parts(side, self.window) for side in grid)
        return sum((row * column * self.unit**2) ** 2 for row in rows for column in columns)

    def image_macs(
        self,
        grid: tuple[int, int],
        seen: Mapping[int, int] | None = None,
        inside: bool = False,
        pairs: Mapping[int, int] | None = None,
        is_frame: bool = False,
    ) -> int:
        """Multiply-accumulates of patch embedding, blocks, head and projector for one image.

        Args:
            grid: Cells of the image as (rows, columns).
            seen: Block -> number of cells at its input; the number of blocks is the key of the
                projector. A missing key stands for all cells.
            inside: Whether the blocks dropped tokens between attention and MLP, not after.
            pairs: Block -> number of pairs that attend to one another, where attention stays in
                windows. A missing key stands for those of the whole image.
            is_frame: Whether the image is a frame of a video.
        """
        seen, pairs, patches = seen or {}, pairs or {}, self.unit**2
        cells = grid[0] * grid[1]
        total = cells * patches * self.patch_values * self.hidden
        tokens = cells
        for block in range(self.blocks):
            tokens = seen.get(block, cells)
            left = seen.get(block + 1, tokens) if inside else tokens
            total += self.block_macs(
                tokens * patches + self.extra,
                left * patches + self.extra,
                pairs.get(block, self.window_pairs(grid, block)),
            )
            if block in self.added_blocks:
                total += left * self.projection
        if self.pooled:
            total += self.head_macs(tokens + self.extra)
        extra = self.extra_of_frames if is_frame else self.extra_projected
        return total + (seen.get(self.blocks, cells) + extra) * self.projection


def _parts(side: int, window: int) -> list[int]:
    """Sides of the windows along an axis; the last one may be smaller."""
    return [min(window, side - start) for start in range(0, side, window)]


def scoring_macs(ledger: TokenLedger, shape: DecoderShape) -> int:
    """Multiply-accumulates of the prefill's decisions, in addition to the model's own work."""
    rows = sum(
        rows * len(ledger.alive[layer]) * shape.query for layer, rows in ledger.scored_rows.items()
    )
    return rows + ledger.decision_macs


def prefill_macs(ledger: TokenLedger, shape: DecoderShape) -> int:
    """Multiply-accumulates of decoder layers, scoring, and the head over the last token."""
    layers = sum(shape.layer_macs(len(alive)) for alive in ledger.alive.values())
    return layers + scoring_macs(ledger, shape) + shape.hidden * shape.vocab


def vanilla_macs(ledger: TokenLedger, shape: DecoderShape) -> int:
    """Multiply-accumulates of the same prompt when nothing is dropped."""
    return ledger.depth * shape.layer_macs(ledger.seq_len) + shape.hidden * shape.vocab


def encoder_macs(ledger: TokenLedger, shape: EncoderShape) -> int:
    """Multiply-accumulates of the encoder, its projector and its decisions for one prompt.

    An image without a record in the ledger ran with all cells.
    """
    if shape.grid is not None:  # the encoder runs whole
        return vanilla_encoder_macs(ledger, shape) + ledger.encoder_decision_macs
    images = len(ledger.grids)
    seen, pairs = ledger.encoder or [{}] * images, ledger.encoder_pairs or [{}] * images
    blocks = sum(
        shape.image_macs(grid, image, ledger.merged_inside_blocks, windows, number in ledger.frames)
        for number, (grid, image, windows) in enumerate(zip(ledger.grids, seen, pairs, strict=True))
    )
    return blocks + ledger.encoder_decision_macs


def vanilla_encoder_macs(ledger: TokenLedger, shape: EncoderShape) -> int:
    """Multiply-accumulates of encoder and projector when nothing is dropped in them."""
    tiles = ledger.tiles or [1] * len(ledger.grids)
    return sum(
        count * shape.image_macs(shape.grid or grid, is_frame=number in ledger.frames)
        for number, (grid, count) in enumerate(zip(ledger.grids, tiles, strict=True))
    )


def flops(macs: int | float) -> int | float:
    """Floating-point operations of multiply-accumulates: one product and one sum each."""
    return 2 * macs


def sparsevlm_macs(tokens_per_layer: Sequence[int], shape: DecoderShape) -> int:
    """The count of SparseVLM's code (modelling_sparse_llama.py:216-219), which it calls FLOPs."""
    d, m = shape.hidden, shape.ffn
    return sum(4 * n * d**2 + 2 * n**2 * d + 3 * n * d * m for n in tokens_per_layer)


def kv_bytes(ledger: TokenLedger, shape: DecoderShape) -> int:
    """Bytes of the prompt's KV cache while decoding, text and vision."""
    tokens = sum(len(cached) for cached in ledger.cached.values())
    return 2 * tokens * shape.kv * shape.bytes_per_value


def vanilla_kv_bytes(ledger: TokenLedger, shape: DecoderShape) -> int:
    """Bytes of the same prompt's KV cache when nothing is dropped."""
    return 2 * ledger.depth * ledger.seq_len * shape.kv * shape.bytes_per_value


def paper_mb(ledger: TokenLedger) -> float:
    """KV megabytes as Tables 3 and 6 of arXiv:2411.10803 count them, 0.14 % above true fp16."""
    return PAPER_MB_PER_TOKEN * ledger.counts().resident
