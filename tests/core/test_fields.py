"""What the fields of strategies may hold: walks every strategy, so a new file is tested unasked."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from omegaconf import OmegaConf
from sound import SOUND, strategies

from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.sink_recent import SinkRecent
from mustdrop.evaluation.token_controls import Controls
from mustdrop.fields import Layers, Within, plain
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.vtw import VTW
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

NO_NUMBER = (True, "64", [3], {"keep": 3}, complex(1, 1))
WRONG = {
    int: (0.5, 10.0, math.nan, *NO_NUMBER),
    float: (math.nan, math.inf, -math.inf, *NO_NUMBER),
    bool: (0, 1, "false", "", [True]),
    str: (3, True, ["x"]),
    list: (3, "23", {"2": 3}, {2, 3}, True),
}


def base(kind: Any) -> tuple[type, Any, Within | None, bool]:
    """(basic kind, kind of a list's parts, range, whether None may be) of a field's type."""
    none = type(None) in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        others = (type(None), Budget)
        (kind,) = (part for part in get_args(kind) if part not in others)
    within = next((part for part in get_args(kind) if isinstance(part, Within)), None)
    if within is not None:
        kind = get_args(kind)[0]
    if isinstance(kind, type):
        return kind, None, within, none
    parts = get_args(kind)
    if all(isinstance(part, str) for part in parts):
        return str, None, None, none
    return list, parts[0], within, none


def wrong_values(kind: Any) -> Iterator[Any]:
    """Values that a field of a type must not hold."""
    basic, part, within, none = base(kind)
    yield from WRONG[basic]
    if not none:
        yield None
    if part is not None:
        yield from ([value] for value in wrong_values(part))
        if within is not None:
            yield []
    elif within is not None:
        yield from (edge - 1 for edge in (within.least,) if math.isfinite(edge))
        yield from (edge + 1 for edge in (within.most,) if math.isfinite(edge))
    if get_origin(kind) is not None and basic is str:
        yield "misspelt"


def remade(stage: Any, name: str, value: Any) -> Any:
    """The stage with one field changed and checked anew, past the run-time checker of the tests."""
    made = object.__new__(type(stage))
    for field in fields(stage):
        object.__setattr__(made, field.name, getattr(stage, field.name))
    object.__setattr__(made, name, value)
    made.__post_init__()
    return made


def test_every_strategy_has_a_sound_instance_here():
    assert set(strategies()) <= set(SOUND)
    assert len(strategies()) >= 20


@pytest.mark.parametrize("kind", strategies(), ids=lambda kind: kind.__name__)
def test_a_field_refuses_what_is_not_of_its_kind(kind):
    assert is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        tried = list(wrong_values(hints[field.name]))
        assert len(tried) >= 4
        for value in tried:
            with pytest.raises(ValueError, match=f"{kind.__name__}.{field.name}.* got ") as told:
                remade(SOUND[kind], field.name, value)
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", strategies(), ids=lambda kind: kind.__name__)
def test_every_kind_of_whole_number_and_list_is_the_same_strategy(kind):
    stage = SOUND[kind]
    for field in fields(kind):
        value = getattr(stage, field.name)
        for same in alike(value):
            made = remade(stage, field.name, same)
            assert made == stage and repr(made) == repr(stage)


def alike(value: Any) -> list[Any]:
    """Other spellings of a value: NumPy's numbers, OmegaConf's and NumPy's lists."""
    if isinstance(value, bool):
        return [np.bool_(value)]
    if isinstance(value, int):
        return [np.int64(value), np.int32(value)]
    if isinstance(value, float):
        return [np.float64(value), *([int(value)] if value.is_integer() else [])]
    if isinstance(value, tuple):
        return [list(value), OmegaConf.create([*value]), np.array(value)]
    return []


def test_a_range_holds_its_ends():
    for value in (0.0, 1.0, 0, 1):
        assert DualAttention(float(value), float(value)).gamma == value
    for value in (-1e-9, 1 + 1e-9):
        with pytest.raises(ValueError, match=r"DualAttention\.gamma must be a share"):
            DualAttention(value, None)
        with pytest.raises(ValueError, match=r"DualAttention\.alpha must be an attention weight"):
            DualAttention(None, value)
    assert FastV(0).keep == 0
    assert SparseVLM(keep=[1], layers=[2], per_cluster=1).per_cluster == 1


def test_the_words_for_a_field_say_whether_it_may_be_none():
    with pytest.raises(ValueError, match=r"^keep must be a count, or None, got 0.5$"):
        plain("keep", 0.5, Annotated[int, Within("a count", 0.0)] | None)
    with pytest.raises(ValueError, match=r"one layer or more, like \[2, 6\], got 'ab'$"):
        plain("layers", "ab", Layers)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (DualAttention(0.1, 0.1), {"layers": (2, 6, 10, 14), "strict": False, "min_keep": 1}),
        (FastV(3), {"layer": 1, "rows": "last"}),
        (PyramidDrop([0.5] * 3), {"layers": (7, 15, 23)}),
        (
            SparseVLM(keep=[1] * 4),
            {"layers": (2, 6, 15, 19), "recycle": 0.3, "per_cluster": 10, "scale": None},
        ),
        (VTW(3), {"layer": 3}),
        (SinkRecent(), {"sinks": 4, "tokens": None, "from_layer": 2}),
        (OutputAware(), {"from_layer": 2}),
        (ClsAttention(), {"rule": "outlier", "mu": 1.5, "ratio": 0.08, "block": -1}),
        (LocalMerge(0.8), {"window": 3, "block": 0, "strict": True}),
        (PruMerge(), {"keep": None, "block": -1, "neighbours": 32, "variant": "code"}),
        (PruMergePlus(), {"keep": None, "block": -1, "neighbours": 32, "variant": "code"}),
        (VisionZip(8, 4), {"block": -2}),
        (VisPruner(4), {"important_ratio": 0.5, "block": -2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_defaults_are_those_of_the_papers_and_their_code(stage, expected):
    assert {name: getattr(stage, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("score", "window", "most"), [("mean", 3, 1), ("sum", 3, 72), ("sum", 2, 12)]
)
def test_a_merge_threshold_is_near_the_range_of_its_score(score, window, most):
    """A sum's threshold for means would merge nothing, silently."""
    for tau in (-most, most, 2 * most):
        assert LocalMerge(float(tau), window, score=score).tau == tau
    for tau in (-2 * most - 0.01, 2 * most + 0.01):
        with pytest.raises(
            ValueError, match=rf"LocalMerge.tau must be near .* \[-{most}, {most}\]"
        ):
            LocalMerge(tau, window, score=score)


def test_the_dropper_and_its_controls_check_theirs():
    dropper, controls = TokenDropper(), Controls("both", [0, 1], [2], True)
    for stage, name, value in (
        (dropper, "log_scores", "false"),
        (controls, "flat_grid", "yes"),
        (controls, "schedule_random", [0.5]),
        (controls, "flat_random", ["1"]),
        (controls, "flat_random", 3),
    ):
        with pytest.raises(ValueError, match=rf"{type(stage).__name__}.{name}.* got "):
            remade(stage, name, value)
