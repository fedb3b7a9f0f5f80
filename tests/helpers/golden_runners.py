"""What replays the golden arrays of each method, and how exact each array must be.

Files are found under $MUSTDROP_GOLDEN (default tests/golden), laid out as <method>/*.npz.
"""

import os
from collections.abc import Callable
from pathlib import Path

import golden_cls_attention
import golden_divprune
import golden_prumerge
import golden_pyramiddrop
import golden_sparsevlm
import golden_tome
import golden_visionzip
import golden_vtw
import numpy as np
from golden_cls_attention import replay_fastervlm, replay_hired, replay_vispruner
from golden_divprune import replay_divprune
from golden_fastv import replay_fastv
from golden_mustdrop import LlavaForConditionalGeneration, Replay
from golden_prumerge import replay_prumerge
from golden_pyramiddrop import replay_pyramiddrop
from golden_tome import replay_tome
from golden_visionzip import replay_visionzip
from golden_vtw import replay_vtw
from torch import Tensor

HERE = Path(__file__).parents[1] / "golden"
GOLDEN = Path(os.environ.get("MUSTDROP_GOLDEN", HERE))
INPUTS = {"image_u8", "input_ids", "gamma", "alpha", "v_token_start", "text_seq", "margins"}
# the authors list them by score; as sets they mean the same
SETS = {"key_index_topk", "all_indices"}
MODEL_FILES = {"weights.npz"}

# --- one line a method: file's stem and arrays -> ours by name -----------------------------------
RUNNERS: dict[str, Callable[[str, dict[str, np.ndarray]], dict[str, Tensor]]] = {
    "divprune": replay_divprune,
    "fastervlm": replay_fastervlm,
    "fastv": lambda stem, data: replay_fastv(data),
    "hired": replay_hired,
    "prumerge": replay_prumerge,
    "pyramiddrop": lambda stem, data: replay_pyramiddrop(data),
    "tome": replay_tome,
    "visionzip": replay_visionzip,
    "vispruner": replay_vispruner,
    "vtw": lambda stem, data: replay_vtw(data),
}
# arrays that a method's runner takes: it must return all others (FastV's test says which it needs)
GIVEN: dict[str, set[str]] = {
    "divprune": golden_divprune.GIVEN,
    "fastervlm": golden_cls_attention.GIVEN,
    "hired": golden_cls_attention.GIVEN,
    "prumerge": golden_prumerge.GIVEN,
    "pyramiddrop": golden_pyramiddrop.GIVEN,
    "tome": golden_tome.GIVEN,
    "visionzip": golden_visionzip.GIVEN,
    "vispruner": golden_cls_attention.GIVEN,
    "vtw": golden_vtw.GIVEN,
}
OWN_TESTS = {"mustdrop", "sparsevlm_v1"}  # their runners need more than arrays
# method, or method/start of the stem -> why nothing replays it
WITHOUT = {
    "cdpruner": "needs a text encoder, which no view has",
    "hired/next": "a budget shared among the crops of LLaVA-NeXT is not built",
}
# -------------------------------------------------------------------------------------------------


def cases(method: str, root: Path = GOLDEN) -> list[Path]:
    files = sorted((root / method).glob("*.npz"))
    return [file for file in files if file.name not in MODEL_FILES]


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def replayed(path: Path, model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    """Our values of the arrays of one golden file, for every method."""
    method, data = path.parent.name, load(path)
    if method == "mustdrop":
        replay = Replay(model, data)
        return {name: replay.ours(name) for name in data if name not in INPUTS}
    if method == "sparsevlm_v1":
        replay = golden_sparsevlm.Replay(model, data)
        return {name: replay.ours(name) for name in data if name not in golden_sparsevlm.INPUTS}
    return RUNNERS[method](path.stem, data)


def tolerance(name: str, array: np.ndarray) -> float:
    """Largest relative error of an array; 0 for indices, lengths and masks."""
    if array.dtype.kind != "f":
        return 0.0
    return 1e-4 if name == "logits" else 1e-5
