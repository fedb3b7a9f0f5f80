"""Decisions by pairs of tokens: blocks change no result, and memory grows with the tokens.

The selections are compared with loops and with formulas in float64, all pairs at a time.
"""

import weakref
from collections import Counter

import naive_vision as naive
import numpy as np
import pytest
import torch
from fake_views import prefill_view, vision_view
from torch.utils._python_dispatch import TorchDispatchMode

from mustdrop import mixing, pairwise
from mustdrop.pairwise import bipartite_matching, density_peaks
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.reduction import Reduction
from mustdrop.vision import vispruner
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner, without_duplicates


def drawn(tokens: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, dim, generator=torch.Generator().manual_seed(seed))


def cosines(points: torch.Tensor) -> np.ndarray:
    unit = points.double() / points.double().norm(dim=1, keepdim=True)
    return (unit @ unit.T).numpy()


@pytest.fixture(params=[2**22, 200, 1])
def most(request, monkeypatch):
    """Number of pairs of a block: all pairs, a few rows, one row."""
    monkeypatch.setattr(pairwise, "MOST_PAIRS", request.param)


@pytest.mark.parametrize("keep", [1, 2, 9, 40, 60])
def test_divprune_in_blocks(most, keep):
    hidden = drawn(60)
    expected = naive.divprune(1.0 - cosines(hidden), keep)
    view = vision_view(hidden, block="projected")
    assert DivPrune(keep).reduce(view).keep.tolist() == sorted(expected)


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 99])
def test_matching_in_blocks(most, cls, count):
    metric = drawn(61)
    similarity = cosines(metric)[::2, 1::2]
    best, order = similarity.max(1), []
    if cls:
        best[0] = -np.inf
    order = np.argsort(-best, kind="stable")
    leave = order[: min(count, (61 - cls) // 2)]
    stay = order[len(leave) :] if count else np.arange(31)
    found = bipartite_matching(metric, count, cls)
    assert found[0].tolist() == (sorted(stay) if cls else list(stay))
    assert found[1].tolist() == list(leave)
    assert found[2].tolist() == similarity[leave].argmax(1).tolist()


@pytest.mark.parametrize("clusters", [1, 5, 40])
def test_density_peaks_in_blocks(most, clusters):
    points = drawn(40)
    distance = torch.cdist(points.double(), points.double()).numpy() / 6**0.5
    density = np.exp(-(np.sort(distance, 1)[:, :clusters] ** 2).mean(1))
    denser = np.where(density[None] > density[:, None], distance, distance.max())
    centres = np.argsort(-denser.min(1) * density, kind="stable")[:clusters]
    cluster = distance[:, centres].argmin(1)
    cluster[centres] = np.arange(clusters)
    found = density_peaks(points, clusters)
    assert found.centres.tolist() == centres.tolist()
    assert found.cluster.tolist() == cluster.tolist()


@pytest.mark.parametrize("neighbours", [1, 2, 32])
def test_duplicates_in_blocks(most, neighbours, monkeypatch):
    """With one neighbour many even entries have no odd one among their nearest tokens."""
    monkeypatch.setattr(vispruner, "NEIGHBOURS", neighbours)
    points = drawn(50)
    similarity, listed = cosines(points), list(range(49, 9, -1))
    found = without_duplicates(points / points.norm(dim=1, keepdim=True), torch.tensor(listed), 12)
    while len(listed) > 12:
        even, odd = listed[::2], listed[1::2]
        closest = similarity[np.ix_(even, odd)].max(1)
        order = np.argsort(-closest, kind="stable")
        listed = [even[i] for i in order[min(8, len(listed) - 12) :]] + odd
    assert found.tolist() == listed


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_few_tokens_of_many_are_left_without_duplicates(keep, monkeypatch):
    monkeypatch.setattr(pairwise, "MOST_PAIRS", 1)
    points = drawn(9)
    left = without_duplicates(points / points.norm(dim=1, keepdim=True), torch.arange(9), keep)
    assert len(left) == keep


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("strategy", [PruMerge, PruMergePlus])
def test_weights_of_many_tokens_are_sparse_and_the_same(strategy, variant, monkeypatch):
    def decided():
        hidden, score = drawn(60), drawn(60, 1)[:, 0]
        keys = torch.cat([hidden[:1], hidden])[None]
        view = vision_view(
            hidden, grid=(6, 10), queries_keys=lambda block: (keys, keys), block="features",
            cls_attention=lambda block: (4 * score[None]).softmax(1),
        )  # fmt: skip
        return strategy(neighbours=5, variant=variant).reduce(view)

    expected = decided()
    monkeypatch.setattr(pairwise, "MOST_PAIRS", 100)
    monkeypatch.setattr(mixing, "MOST_WEIGHTS", 0)
    found, hidden = decided(), drawn(60, 7, 3)
    assert found.matrix.is_sparse and not expected.matrix.is_sparse
    assert found.keep.tolist() == expected.keep.tolist() and len(found) > 2
    torch.testing.assert_close(found.mix, expected.mix)
    torch.testing.assert_close(found.sizes, expected.sizes)
    torch.testing.assert_close(found(hidden), expected(hidden))
    torch.testing.assert_close(
        found(hidden.bfloat16()).float(), expected(hidden), atol=0.1, rtol=0.1
    )
    assert 0 < found.macs(7) < expected.macs(7)
    left = torch.tensor([2, 0])
    torch.testing.assert_close(found.at(left).mix, expected.at(left).mix)
    later = Reduction(torch.tensor([1, 0]))
    torch.testing.assert_close(found.then(later, 60).mix, expected.then(later, 60).mix)
    first = Reduction(torch.arange(60).flip(0))
    torch.testing.assert_close(first.then(found, 60).mix, first.then(expected, 60).mix)


WIDTH = 4
STRATEGIES = {
    "divprune": lambda tokens: DivPrune(16),
    "tome": lambda tokens: ToMe([tokens // 4]),
    "local_merge": lambda tokens: LocalMerge(0.3, 2, score="mean", edges="keep"),
    "prumerge": lambda tokens: PruMerge(16),
    "prumerge_plus": lambda tokens: PruMergePlus(16),
    "visionzip": lambda tokens: VisionZip(13, 3),
    "prumerge_adaptive": lambda tokens: PruMerge(),
    "prumerge_plus_adaptive": lambda tokens: PruMergePlus(variant="paper"),
    "vispruner": lambda tokens: VisPruner(tokens - 400),
    "vispruner_few": lambda tokens: VisPruner(16),
    "average_pool": lambda tokens: AveragePool(16),
    "sparsevlm": lambda tokens: SparseVLM(keep=[tokens // 2], layers=[1]),
}


def decide(name: str, tokens: int) -> None:
    """One decision on ``tokens`` tokens, and the survivors of their states."""
    hidden, score = drawn(tokens, WIDTH), drawn(tokens, 1)[:, 0]
    strategy = STRATEGIES[name](tokens)
    if isinstance(strategy, SparseVLM):
        rows = torch.softmax(score, 0)[None, None].expand(2, 3, -1)
        view = prefill_view(
            tokens, hidden=hidden, attention=lambda **_: rows,
            inputs=drawn(tokens + 45, WIDTH, 1),
        )  # fmt: skip
    else:
        keys = torch.cat([hidden[:1], hidden])[None]
        height = 80  # the grid is 80 x 100 or 80 x 200
        view = vision_view(
            hidden, grid=(height, tokens // height), queries_keys=lambda block: (keys, keys),
            cls_attention=lambda block: score[None].softmax(1),
            block=0 if isinstance(strategy, (ToMe, LocalMerge)) else strategy.places[0],
        )  # fmt: skip
    reduction = strategy.reduce(view)
    reduction(hidden, hidden[0] if reduction.cls is not None else None)


class AllocatedBytes(TorchDispatchMode):
    """Bytes of all tensors that operations return while it is on.

    Attributes:
        peak: Largest number of bytes that were alive at a time.
        largest: Number of bytes of the largest tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.users = 0, Counter()
        self.peak = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor) and not part.is_sparse:  # of sparse ones: the parts
                self.count(part)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        self.users[address] += 1  # views share a storage
        if self.users[address] == 1:
            self.alive += size
        self.peak, self.largest = max(self.peak, self.alive), max(self.largest, size)
        weakref.finalize(tensor, self.free, address, size)

    def free(self, address: int, size: int) -> None:
        self.users[address] -= 1
        if not self.users[address]:
            self.alive -= size


SLOW = ("vispruner_few", "prumerge_plus_adaptive")  # half a minute each


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in STRATEGIES],
)
def test_memory_of_a_decision_grows_with_its_tokens(name, monkeypatch):
    monkeypatch.setattr(pairwise, "MOST_PAIRS", 2**19)
    peaks = []
    for tokens in (8000, 16000):
        with AllocatedBytes() as allocated:
            decide(name, tokens)
        assert allocated.largest < tokens**2 / 20  # one byte per pair would be too much
        peaks.append(allocated.peak)
    assert peaks[1] <= 2.1 * peaks[0]
