"""Parity with the authors' own code: every golden array, name by name.

Indices and lengths must be exact, values within 1e-5 of their maximum, logits within 1e-4.
``tests/helpers/golden_runners.py`` says what replays which file.
"""

from dataclasses import replace
from pathlib import Path

import golden_cls_attention
import golden_prumerge
import golden_runners
import golden_sparsevlm
import naive_prefill
import naive_vision
import numpy as np
import pytest
import torch
from golden_fastv import replay_fastv
from golden_mustdrop import Replay, load_model, official, oracle_logits
from golden_runners import (
    GIVEN,
    GOLDEN,
    INPUTS,
    OWN_TESTS,
    RUNNERS,
    SETS,
    WITHOUT,
    cases,
    load,
    tolerance,
)

from mustdrop.masked import relative_error

HERE = golden_runners.HERE
LAYOUTS = {**naive_vision.LAYOUTS, **naive_prefill.LAYOUTS}


def same(name: str, ours: torch.Tensor, theirs: np.ndarray) -> None:
    """Exact for indices and lengths, close for values."""
    expected = torch.from_numpy(np.asarray(theirs))
    if name in SETS or name.endswith("key_in"):
        expected = expected.sort().values
    assert ours.shape == expected.shape, f"{name}: {ours.shape} != {expected.shape}"
    largest = tolerance(name, np.asarray(theirs))
    if not largest:
        assert torch.equal(ours.long(), expected.long()), name
    elif expected.numel():
        error = relative_error(ours.float(), expected.float())
        assert error <= largest, f"{name}: relative error {error:.1e} > {largest:.0e}"


def everything() -> list[Path]:
    """Every file of every method that has no tests of its own."""
    methods = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
    return [path for method in methods if method not in OWN_TESTS for path in cases(method)]


def compare(path: Path, data: dict[str, np.ndarray]) -> None:
    """Every array that the method's runner returns, and that it returns those it must."""
    method = path.parent.name
    ours = RUNNERS[method](path.stem, data)
    assert ours and ours.keys() <= data.keys(), ours.keys() - data.keys()
    if method in GIVEN:
        # an array may be given in one file and asked for in another
        asked = {name for name in data if name not in GIVEN[method] and not name.startswith("sd_")}
        missing = asked - ours.keys()
        assert not missing, f"not replayed: {missing}"
    for name, value in ours.items():
        same(name, value, data[name])


def test_there_are_golden_files():
    assert cases("mustdrop") and everything()
    assert {path.name for path in HERE.iterdir() if path.is_dir()} == RUNNERS.keys() | OWN_TESTS


@pytest.mark.parametrize("path", everything(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_method_equals_its_authors_code(path):
    method = path.parent.name
    for name, why in WITHOUT.items():
        if f"{method}/{path.stem}".startswith(name):
            pytest.skip(f"{method}: {why}")
    if method not in RUNNERS:
        pytest.fail(f"golden/{method} has no runner: add one to RUNNERS, or a reason to WITHOUT")
    compare(path, load(path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_runner_knows_layouts_without_a_file(layout):
    """On arrays of plain loops, in place of the authors'."""
    compare(Path(layout), LAYOUTS[layout]())


WRONG = {  # a hyper-parameter of the file, changed
    "divprune/random_r0.111": {"ratio": np.array(0.125)},
    "fastervlm/T64": {"T": np.array(63)},
    "hired/llava15_r0.111": {"ratio": np.array(0.125)},
    "prumerge/prumerge_fixed_1_8_B2": {"ratio": np.array(0.13)},
    "tome/no_cls_r7": {"r": np.array(6)},
    "tome/one_layer_cls_r17": {"r": np.array(18)},
    "visionzip/d54_c10": {"contextual": np.array(11), "dominant": np.array(53)},
    "vispruner/T64": {"T": np.array(62)},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_hyper_parameter_fails_parity(case):
    path = HERE / f"{case}.npz"
    with pytest.raises(AssertionError):
        compare(path, {**load(path), **WRONG[case]})


@pytest.mark.parametrize(
    ("case", "runner", "strategy", "wrong"),
    [
        ("prumerge/prumerge_adaptive_s301", golden_prumerge, "PruMerge", {"neighbours": 31}),
        ("prumerge/prumerge_adaptive_s301", golden_prumerge, "PruMerge", {"variant": "paper"}),
        ("prumerge/prumerge_plus_adaptive_s301", golden_prumerge, "PruMergePlus", {"keep": 235}),
        ("vispruner/T64", golden_cls_attention, "VisPruner", {"important_ratio": 0.4}),
    ],
    ids=["neighbours", "variant", "keep", "important_ratio"],
)
def test_a_wrong_field_fails_parity(case, runner, strategy, wrong, monkeypatch):
    right = getattr(runner, strategy)
    changed = {"cls_attention": lambda block: torch.rand(1, 576)}  # the paper's reading asks
    plain = runner.vision_view
    monkeypatch.setattr(runner, "vision_view", lambda *a, **k: plain(*a, **{**changed, **k}))
    monkeypatch.setattr(runner, strategy, lambda *args, **kw: right(*args, **{**kw, **wrong}))
    path = HERE / f"{case}.npz"
    with pytest.raises(AssertionError):
        compare(path, load(path))


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


def parity_sparsevlm(model, data: dict[str, np.ndarray], **changes) -> int:
    """How many of a case's arrays our SparseVLM gives."""
    replay = golden_sparsevlm.Replay(model, data, **changes)
    names = [name for name in data if name not in golden_sparsevlm.INPUTS]
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
    [{"scale": 1.04}, {"bias": 1.0}, {"recycle": 0.5}, {"per_cluster": 5}, {"layers": (2, 6, 15)}],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_field_of_sparsevlm_fails_parity(model, change):
    data = load(HERE / "sparsevlm_v1" / "case0_s0.8_b0.npz")
    wrong = replace(golden_sparsevlm.preset(data).prefill, **change)
    with pytest.raises((AssertionError, KeyError)):
        parity_sparsevlm(model, data, prefill=wrong)


def test_original_positions_are_not_the_authors_of_sparsevlm(model):
    data = load(HERE / "sparsevlm_v1" / "case0_s0.8_b0.npz")
    with pytest.raises(AssertionError):
        parity_sparsevlm(model, data, positions="original")


@pytest.mark.parametrize(
    ("layout", "name", "value"),
    [
        ("pyramiddrop/rank_drop_B2_mask", "ratio_next", 0.47),
        ("pyramiddrop/rank_drop_B2_mask", "rope_base", 5000),
        ("pyramiddrop/rank_drop_B2_mask", "image_index", 10),
        ("vtw/withdraw", "img_len", 575),
        ("vtw/findk", "eta", 1e-9),
        ("fastv/inplace_rank144", "sys_len", 34),
        ("fastv/mask_rank144", "rank", 143),
    ],
)
def test_a_wrong_hyper_parameter_of_a_layout_fails_parity(layout, name, value):
    data = {**LAYOUTS[layout](), name: np.asarray(value)}
    with pytest.raises(AssertionError):
        compare(Path(layout), data)
