"""Traces of a small made-up prompt, and run folders that hold them."""

import io

import numpy as np
import traced_runs
from PIL import Image
from results import write
from traced_runs import BEFORE, limits

from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import DecodeAttention, TextAttention, Trace

SIDE = 4  # patches across
ALL = tuple(range(SIDE**2))
WINDOW = (0, 1, 4, 5)  # merged into the token in the place of patch 5


def ledger(*kept, cached=None, key=(), merged=False, encoder=True):
    """A prompt of which the vision tokens at these places (from 0) enter each layer."""
    groups = [WINDOW, *((patch,) for patch in ALL if patch not in WINDOW)] if merged else None
    own = traced_runs.ledger(SIDE, kept, cached=cached, groups=groups, key=key)
    if merged and encoder:
        own.encoder = [{0: 16, 1: 13, 2: 13}]
    return own


def picture():
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
        stream, "WEBP", lossless=True
    )
    return stream.getvalue()


def gazes(own):
    """In each layer a tenth to the text, the rest to the vision tokens, the later the more."""
    out = {}
    for layer, cached in own.cached.items():
        places = cached[own.vision[cached]].numpy()
        share = np.arange(1, len(places) + 1, dtype=float)
        out[layer] = DecodeAttention(places, 0.9 * share / share.sum(), 0.1)
    return out


def mustdrop():
    """Merged, with a key token, filtered after layer 0: each test's every outcome occurs."""
    tokens = (5, *(patch for patch in ALL if patch not in WINDOW))
    #  5 low and key, 7 share, 8 word, 9 both; the rest low
    share = np.array([{7: 0.3, 9: 0.25}.get(token, 0.045) for token in tokens])
    largest = np.array([{8: 0.4, 9: 0.5}.get(token, 0.01) for token in tokens])
    word = np.array([{8: 1}.get(token, 0) for token in tokens])
    own = ledger(tokens, (5, 7, 8, 9), (5, 7, 8, 9), key=(5,), merged=True)
    look = TextAttention(np.array(tokens) + BEFORE, share, largest, word)
    region = np.zeros((SIDE, SIDE), dtype=bool)
    region[1, 3] = True  # patch 7
    return Trace(
        own,
        {0: look},
        gazes(own),
        ("where", "bus", "?"),
        limits(0.1, 0.2),
        (picture(),),
        region,
        "a",
    )


def fastv():
    own = ledger(ALL, (12, 13, 14, 15), (12, 13, 14, 15))
    rng = np.random.default_rng(0)
    share = rng.random(16)
    look = TextAttention(
        np.array(ALL) + BEFORE, share / share.sum(), share / 2, np.zeros(16, dtype=int)
    )
    return Trace(own, {0: look}, gazes(own), ("bus",), pictures=(picture(),), answer="a")


def vanilla():
    own = ledger(ALL, ALL, ALL)
    return Trace(own, {}, gazes(own), ("bus",), pictures=(picture(),), answer="a")


def keep(folder, trace, *docs):
    """Write a trace into a run's folder, for some of its samples."""
    for doc in docs:
        path = trace_path(folder, doc)
        path.parent.mkdir(exist_ok=True)
        trace.save(path)
    return folder


def write_traced(root):
    """Vanilla, MustDrop and FastV at one budget, two samples traced."""
    keep(write(root, "vanilla", "none", 576.0), vanilla(), 1, 2)
    keep(write(root, "mustdrop"), mustdrop(), 1, 2)
    keep(write(root, "fastv"), fastv(), 1, 2)
    return root
