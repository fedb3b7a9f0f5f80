"""PruMerge: keep tokens of outstanding [CLS] attention and merge their neighbours into them.

PruMerge+ is PruMerge with the tokens of an even grid as additional centres.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import attention_rows, complement, outliers, ranked, true_indices
from mustdrop.mixing import Entries
from mustdrop.pairwise import nearest_to
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import Budget, Count, ModelFacts, VisionView, Within, require_fields

Variant = Literal["paper", "code"]
Kept = Annotated[int, Within("1 or more, as the dropped tokens are merged into one", 1.0)] | Budget
TINY = 1.0e-30  # least weight, so that tokens without any attention give their plain mean


def score_and_keys(
    view: VisionView, block: int, variant: Variant
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "tokens channels"]]:
    """Attention of [CLS] to each token, by the rule of ``variant``, and the tokens' keys."""
    query, key = (rearrange(x, "h n d -> 1 n (h d)") for x in view.queries_keys(block))
    if variant == "paper":
        score = view.cls_attention(block).float().mean(0)
    else:
        # In float32, because no attention of the model takes products over all channels.
        scaling = key.shape[-1] ** -0.5
        score = attention_rows(query[:, :1].float(), key.float(), scaling)[0, 0, 1:]
        view.count_macs(key.shape[1] * key.shape[2])
    return score, key[0, int(view.has_cls) :].float()


def cluster_entries(
    score: Float[Tensor, " tokens"],
    keys: Float[Tensor, "tokens channels"],
    centres: Int[Tensor, " centres"],
    neighbours: int,
    variant: Variant,
) -> Entries:
    """Weights that merge into each centre the ``neighbours`` tokens of most similar keys.

    code:  y_i = x_i + sum_j a_j x_j;    paper:  y_i = (a_i x_i + sum_j a_j x_j) / (a_i + sum_j a_j)

    A neighbour may be another centre.
    """
    nearest = nearest_to(F.normalize(keys, dim=-1), centres, neighbours)
    index = torch.cat([nearest, centres[:, None]], 1)
    if variant == "code":
        weight = torch.cat([score[nearest], torch.ones_like(score[centres, None])], 1)
    else:
        weight = score.clamp_min(TINY)[index]
        weight = weight / weight.sum(1, keepdim=True)
    survivor = torch.arange(len(centres), device=centres.device)[:, None].expand_as(index)
    return Entries(survivor.flatten(), index.flatten(), weight.flatten())


def merged(
    view: VisionView,
    score: Float[Tensor, " tokens"],
    keys: Float[Tensor, "tokens channels"],
    centres: Int[Tensor, " centres"],
    neighbours: int,
    variant: Variant,
) -> Reduction:
    """Merge the neighbours into each centre, and all other tokens into one more token.

    That token, if there are others, takes the slot of the other token of highest attention.
    """
    view.count_macs(len(centres) * keys.numel())
    rest = complement(centres, len(score))
    entries, keep = cluster_entries(score, keys, centres, neighbours, variant), centres
    if len(rest):
        left = score[rest] if variant == "code" else score[rest].clamp_min(TINY)
        last = (
            torch.full_like(rest, len(centres)),
            rest,
            left if variant == "code" else left / left.sum(),
        )
        entries = Entries(*(torch.cat(pair) for pair in zip(entries, last, strict=True)))
        keep = torch.cat([centres, rest[ranked(score[rest])[:1]]])
    matrix = entries.matrix(len(keep), len(score))
    return Reduction(keep, matrix, entries.sizes(view.sizes, len(keep)))


def grid_step(standing_out: int, tokens: int) -> int:
    """Step of the even grid, a third of one over the share of tokens that stand out.

    The step would be 0, which is not valid, if more than a third stood out; by the quartile rule at
    most a quarter can.
    """
    return tokens // max(standing_out, 1) // 3


@dataclass(frozen=True)
class _Merging(KeepPerImage):
    """Base of the two methods, which differ in the tokens that others are merged into."""

    keep: Kept | None = None
    block: int = -1
    neighbours: Count = 32
    variant: Variant = "code"
    places = ("features",)
    fewest = 1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def normalised(self) -> bool:
        return self.variant == "paper"

    @property
    def cls_attention_blocks(self) -> tuple[int, ...]:
        return (self.block,) if self.variant == "paper" else ()

    @property
    def query_key_blocks(self) -> tuple[int]:
        return (self.block,)

    def check(self, facts: ModelFacts) -> None:
        facts.require_cls(self.block)
        if self.variant == "code" and not facts.has_cls:
            raise ValueError(
                f"{type(self).__name__}.variant=code attends with the query of [CLS], which this "
                "encoder lacks: use variant=paper"
            )

    def reduce(self, view: VisionView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: VisionView) -> Decision:
        score, keys = score_and_keys(view, self.block, self.variant)

        def around(centres: Int[Tensor, " centres"]) -> Reduction:
            return merged(view, score, keys, centres, self.neighbours, self.variant)

        if self.keep is None:
            return PendingReduction(
                outliers(score).long(), lambda out: around(self.adaptive(score, out))
            )
        count = self.kept(view)
        # the remainder is a token, too
        return around(self.centres(score, count - (count < len(score))))

    @abstractmethod
    def centres(self, score: Float[Tensor, " tokens"], count: int) -> Int[Tensor, " centres"]:
        """Indices of the tokens that others are merged into, ``count`` of them.

        Args:
            score: Attention of [CLS] to each token.
            count: Number of centres.
        """

    @abstractmethod
    def adaptive(
        self, score: Float[Tensor, " tokens"], outstanding: Sequence[int]
    ) -> Int[Tensor, " centres"]:
        """Indices of the tokens that others are merged into, as many as the image gives.

        Args:
            score: Attention of [CLS] to each token.
            outstanding: 1 for each token whose score stands out, 0 for the others.
        """


@final
@dataclass(frozen=True)
class PruMerge(_Merging):
    """Keep the tokens that stand out in [CLS] attention and merge similar tokens into them.

    S = {i : a_i > Q3 + 1.5 (Q3 - Q1)};  the k tokens of nearest keys are merged into each i in S,
    weighted by their attention a; one more token, the remainder, is the weighted sum of all tokens
    outside S. It acts before the projector.

    Source: LLaVA-PruMerge, arXiv:2403.15388.
    Differs from the authors' code (42Shawn/LLaVA-PruMerge at 097c0411): with ``variant="code"``,
        only in the quartiles, which are those of the image, where the code pools its whole batch.

    Attributes:
        keep: Number of tokens kept per image, remainder included; None keeps all that stand out and
            the remainder. A number of at least the patches keeps all, without a remainder.
        block: Encoder block whose keys and attention are read.
        neighbours: Number of tokens merged into each kept token, k.
        variant: ``paper``: weights are normalised to an average that includes the token itself, and
            attention is the mean of the model's heads. ``code``: weights are not normalised, the
            weight of the token itself is one, and attention is softmax(q k^T / sqrt(C)) over all C
            channels, as of a single head.
    """

    def centres(self, score: Float[Tensor, " tokens"], count: int) -> Int[Tensor, " centres"]:
        return ranked(score)[:count]

    def adaptive(
        self, score: Float[Tensor, " tokens"], outstanding: Sequence[int]
    ) -> Int[Tensor, " centres"]:
        return self.centres(score, sum(outstanding))


@final
@dataclass(frozen=True)
class PruMergePlus(_Merging):
    """Keep tokens that stand out in [CLS] attention and an even grid; merge similar ones into them.

    Source: LLaVA-PruMerge, arXiv:2403.15388 (PruMerge+).
    Differs from the authors' code (42Shawn/LLaVA-PruMerge at 097c0411), with ``variant="code"``:
        nothing where ``keep`` is None and the code runs, for one image; the last token is never in
        the grid, as in the code. Where no token stands out, the code divides by zero; here the step
        is that of one token. Where all are kept, the code adds a token of zeros; here there is
        none. Where more than a third stand out, the code's step is 0 and it fails; here it is 1,
        but by the quartile rule at most a quarter stand out. A fixed ``keep`` is ours: the code's,
        for training, lists patches twice.

    Attributes:
        keep: Number of tokens kept per image, remainder included: half of the others by attention,
            half evenly spaced among the rest. None keeps all that stand out and every n-th token,
            n = floor(1 / their share) / 3; this keeps all where more than a sixth stand out.
        block: Encoder block whose keys and attention are read.
        neighbours: Number of tokens merged into each kept token.
        variant: Weights and attention; see :class:`PruMerge`.
    """

    def adaptive(
        self, score: Float[Tensor, " tokens"], outstanding: Sequence[int]
    ) -> Int[Tensor, " centres"]:
        tokens, count = len(score), sum(outstanding)
        chosen = ranked(score)[:count]
        rest = complement(chosen, tokens)
        step = max(grid_step(count, tokens), 1)
        on_grid = (rest % step == 0) & (rest < tokens - 1)
        spaced = sum(not out for out in outstanding[: tokens - 1 : step])
        return torch.cat([chosen, rest[true_indices(on_grid, spaced)]])

    def centres(self, score: Float[Tensor, " tokens"], count: int) -> Int[Tensor, " centres"]:
        spaced = count // 2
        chosen = ranked(score)[: count - spaced]
        rest = complement(chosen, len(score))
        index = (2 * torch.arange(spaced, device=rest.device) + 1) * len(rest) // (2 * spaced or 1)
        return torch.cat([chosen, rest[index]])
