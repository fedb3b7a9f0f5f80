"""Parity with the authors' own code: every golden array, name by name.

Files are found under $MUSTDROP_GOLDEN (default tests/golden), laid out as <method>/*.npz. Indices
and lengths must be exact, values within 1e-5 of their maximum, logits within 1e-4.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_fastv import replay_fastv
from golden_layouts import NAIVE, OUTPUTS
from golden_mustdrop import Replay, load_model, official, oracle_logits
from golden_pyramiddrop import replay_pyramiddrop
from golden_sparsevlm import INPUTS as SPARSEVLM_INPUTS
from golden_sparsevlm import Replay as ReplaySparseVLM
from golden_sparsevlm import preset as preset_sparsevlm
from golden_vtw import replay_vtw

from mustdrop.oracle import relative_error

GOLDEN = Path(os.environ.get("MUSTDROP_GOLDEN", Path(__file__).parent / "golden"))
INPUTS = {"image_u8", "input_ids", "gamma", "alpha", "v_token_start", "text_seq", "margins"}
SETS = {"key_index_topk"}  # the authors list them by score; as sets they mean the same
MODEL_FILES = {"weights.npz"}


def cases(method: str) -> list[Path]:
    files = sorted((GOLDEN / method).glob("*.npz"))
    return [file for file in files if file.name not in MODEL_FILES]


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def same(name: str, ours: torch.Tensor, theirs: np.ndarray) -> None:
    """Exact for indices and lengths, close for values."""
    expected = torch.from_numpy(np.asarray(theirs))
    if name in SETS or name.endswith("key_in"):
        expected = expected.sort().values
    assert ours.shape == expected.shape, f"{name}: {ours.shape} != {expected.shape}"
    if not expected.dtype.is_floating_point:
        assert torch.equal(ours.long(), expected.long()), name
    elif expected.numel():
        tolerance = 1e-4 if name == "logits" else 1e-5
        error = relative_error(ours.float(), expected.float())
        assert error <= tolerance, f"{name}: relative error {error:.1e} > {tolerance:.0e}"


def test_there_are_golden_files():
    assert cases("mustdrop") and cases("fastv")


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN / "mustdrop")


@pytest.mark.parametrize("path", cases("mustdrop"), ids=lambda path: path.stem)
def test_mustdrop_official_equals_the_authors_code(path, model):
    data = load(path)
    replay = Replay(model, data)
    compared = 0
    for name, theirs in data.items():
        if name not in INPUTS:
            same(name, replay.ours(name), theirs)
            compared += 1
    assert compared >= 20


@pytest.mark.parametrize("path", cases("mustdrop"), ids=lambda path: path.stem)
def test_mustdrop_with_correct_decode_positions_equals_the_oracle(path, model):
    data = load(path)
    correct = official(data, decode_positions="continue")
    found, expected = oracle_logits(model, data, correct)
    assert relative_error(found, expected) <= 1e-5
    theirs = torch.from_numpy(data["logits"])
    assert relative_error(found[:1, :320], theirs[:1]) <= 1e-4  # the first token is theirs
    if len(np.unique(data["kv_len_after_prefill"])) > 1:  # something was dropped between layers
        assert relative_error(found[1:, :320], theirs[1:]) > 1e-2  # the others are not: D14


def test_a_wrong_threshold_fails_parity(model):
    data = load(cases("mustdrop")[0])
    wrong = Replay(model, {**data, "gamma": data["gamma"] * 0.5})
    with pytest.raises(AssertionError):
        for name, theirs in data.items():
            if name not in INPUTS:
                same(name, wrong.ours(name), theirs)


@pytest.mark.parametrize("path", cases("fastv"), ids=lambda path: path.stem)
def test_fastv_equals_the_authors_code(path):
    data = load(path)
    ours = replay_fastv(data)
    assert (ours.keys() <= data.keys() and "keep" in ours) or "keymask" in ours
    for name, value in ours.items():
        same(name, value, data[name])


# --- rivals of the prefill: SparseVLM, PyramidDrop, VTW, and FastV's other layouts ---

# a reading of the authors' code in plain numpy loops stands in for files that are not here
LAYOUTS = {
    "pyramiddrop": ["rank_drop_B1.npz", "rank_drop_B2_mask.npz", "budget.npz"],
    "vtw": ["withdraw.npz", "findk.npz"],
}
RUNNERS = {
    "fastv": replay_fastv,
    "pyramiddrop": replay_pyramiddrop,
    "vtw": replay_vtw,
}
RIVALS = [(method, path) for method in ("pyramiddrop", "vtw") for path in cases(method)]


def parity_sparsevlm(model, data, **changes) -> int:
    """How many of a case's arrays our SparseVLM gives."""
    replay = ReplaySparseVLM(model, data, **changes)
    names = [name for name in data if name not in SPARSEVLM_INPUTS]
    for name in names:
        if data[name].any():
            same(name, replay.ours(name), data[name])
        else:  # a relative error of nothing is no number
            assert not replay.ours(name).any(), name
    return len(names)


@pytest.mark.parametrize("path", cases("sparsevlm_v1"), ids=lambda path: path.stem)
def test_sparsevlm_equals_the_authors_code(path, model):
    assert parity_sparsevlm(model, load(path)) >= 40


@pytest.mark.parametrize(
    "change",
    [{"scale": 1.3}, {"bias": 1.0}, {"recycle": 0.5}, {"per_cluster": 5}, {"layers": (2, 6, 15)}],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_hyper_parameter_of_sparsevlm_fails_parity(model, change):
    data = load(cases("sparsevlm_v1")[0])
    right = preset_sparsevlm(data).prefill
    values = {name: right.scale * by if name == "scale" else by for name, by in change.items()}
    with pytest.raises((AssertionError, KeyError)):
        parity_sparsevlm(model, data, prefill=replace(right, **values))


def test_original_positions_are_not_the_authors_of_sparsevlm(model):
    data = load(cases("sparsevlm_v1")[0])
    with pytest.raises(AssertionError):
        parity_sparsevlm(model, data, positions="original")


def parity(method: str, data: dict[str, np.ndarray]) -> int:
    """How many of a file's arrays our method gives; every one that is no input has to be."""
    ours = RUNNERS[method](data)
    for name, value in ours.items():
        same(name, value, data[name])
    return len(ours)


@pytest.mark.parametrize(
    ("method", "path"), RIVALS, ids=lambda value: value if isinstance(value, str) else value.stem
)
def test_rivals_of_the_prefill_equal_the_authors_code(method, path):
    data = load(path)
    assert path.name in LAYOUTS[method], "a layout without a runner"
    outputs = {name for name in data if name in OUTPUTS}
    assert parity(method, data) == len(outputs) > 0


@pytest.mark.parametrize("layout", NAIVE)
def test_every_layout_of_the_rivals_has_a_runner(layout):
    method, data = layout.split("/")[0], NAIVE[layout]()
    outputs = {name for name in data if name in OUTPUTS}
    assert parity(method, data) == len(outputs) > 0


@pytest.mark.parametrize(
    ("layout", "name", "value"),
    [
        ("pyramiddrop/rank_drop_B2_mask", "ratio_next", 0.47),
        ("pyramiddrop/rank_drop_B2_mask", "rope_base", 5000),
        ("pyramiddrop/rank_drop_B2_mask", "image_index", 10),
        ("vtw/withdraw", "img_len", 575),
        ("vtw/findk", "eta", 1e-9),
        ("fastv/inplace_rank", "sys_len", 34),
        ("fastv/mask_rank", "rank", 143),
    ],
)
def test_a_wrong_hyper_parameter_of_a_rival_fails_parity(layout, name, value):
    data = NAIVE[layout]()
    with pytest.raises(AssertionError):
        parity(layout.split("/")[0], {**data, name: np.asarray(value)})
