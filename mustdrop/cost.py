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
    """

    hidden: int
    query: int
    kv: int
    ffn: int
    vocab: int
    bytes_per_value: int = 2
    mlp_matrices: int = 3

    def layer_macs(self, tokens: int) -> int:
        """Multiply-accumulates of one layer over ``tokens`` tokens."""
        projections = 2 * self.hidden * (self.query + self.kv)
        projections += self.mlp_matrices * self.hidden * self.ffn
        return tokens * projections + 2 * tokens**2 * self.query


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a ViT encoder with a two-matrix MLP, and of the two-layer projector after it.

    Attributes:
        hidden: Width of the encoder.
        ffn: Inner width of its MLP.
        blocks: Number of blocks; all run, whichever block's features are read.
        extra: Number of tokens in addition to the patches: 1 for a [CLS].
        patch_values: Number of values in one patch, channels included.
        projected: Width after the projector.
        extra_projected: Number of tokens in addition to the patches that reach the projector: 1
            where the language model receives the [CLS].
        pooled: Whether an attention-pooling head runs after the blocks, as SigLIP's does by
            default. Its output is not used, but it is computed.
    """

    hidden: int
    ffn: int
    blocks: int
    extra: int
    patch_values: int
    projected: int
    extra_projected: int = 0
    pooled: bool = False

    def block_macs(self, tokens: int, left: int) -> int:
        """Multiply-accumulates of a block: attention over ``tokens``, MLP over ``left`` of them."""
        attention = 4 * tokens * self.hidden**2 + 2 * tokens**2 * self.hidden
        return attention + 2 * left * self.hidden * self.ffn

    def head_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the pooling head: a query attends to ``tokens``, then an MLP."""
        attention = 2 * (tokens + 1) * self.hidden**2 + 2 * tokens * self.hidden
        return attention + 2 * self.hidden * self.ffn

    def image_macs(
        self, cells: int, seen: Mapping[int, int] | None = None, inside: bool = False
    ) -> int:
        """Multiply-accumulates of patch embedding, blocks, head and projector for one image.

        Args:
            cells: Number of cells of the image.
            seen: Block -> number of cells at its input; the number of blocks is the key of the
                projector. A missing key stands for all cells.
            inside: Whether the blocks dropped tokens between attention and MLP, not after.
        """
        seen = seen or {}
        total = cells * self.patch_values * self.hidden
        tokens = cells
        for block in range(self.blocks):
            tokens = seen.get(block, cells)
            left = seen.get(block + 1, tokens) if inside else tokens
            total += self.block_macs(tokens + self.extra, left + self.extra)
        if self.pooled:
            total += self.head_macs(tokens + self.extra)
        left = seen.get(self.blocks, cells) + self.extra_projected
        return total + left * (self.hidden * self.projected + self.projected**2)


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
    seen = ledger.encoder or [{} for _ in ledger.grids]
    blocks = sum(
        shape.image_macs(rows * columns, image, ledger.merged_inside_blocks)
        for (rows, columns), image in zip(ledger.grids, seen, strict=True)
    )
    return blocks + ledger.encoder_decision_macs


def vanilla_encoder_macs(ledger: TokenLedger, shape: EncoderShape) -> int:
    """Multiply-accumulates of encoder and projector when nothing is dropped in them."""
    return sum(shape.image_macs(rows * columns) for rows, columns in ledger.grids)


def flops(macs: int) -> int:
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
