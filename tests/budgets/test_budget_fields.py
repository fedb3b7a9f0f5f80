"""Whatever field of a method is changed at a budget, the budget is met or the run is refused.

Walks conf/method: a method whose yaml computes its counts from the budget is tested unasked, each
of its fields one after the other. Methods with thresholds have no closed form to hold.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from hydra.utils import get_class, instantiate
from models import prompt, tiny_llava
from omegaconf import DictConfig, ListConfig, OmegaConf
from tiny_methods import OF_IMAGES, closed, config_of

from experiments.cli.errors import KNOWN, message
from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import STAGES, budget_floor
from mustdrop.presets.planned import planned, require_planned
from mustdrop.presets.tuned import missing_fields
from mustdrop.schedule import executed_average
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip

TOKENS, DEPTH, GRID = 40, 8, 12


def small(method: str, tokens: float = TOKENS) -> DictConfig:
    """A method on a small model, from its files."""
    return config_of(method, tokens, GRID, DEPTH)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config, as far as it is needed here."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    budget = Budget.parse(cfg.budget)
    entry = budget and {"name": budget.name, "tokens": budget.tokens, "share": budget.share}
    return {**config, "budget": entry}


CLOSED = [method for method in OF_IMAGES if closed(method)]
# presets of a strategy that an earlier one has, with other values of its fields
AGAIN = {"oracle", "fastervlm", "fastv_paper", "prumerge_paper", "prumerge_plus_paper"}


@pytest.fixture(scope="module")
def model():
    return tiny_llava(layers=DEPTH, grid=GRID)


def others(value: Any, hint: Any) -> Iterator[Any]:
    """Other values that the field's type allows."""
    if type(None) in get_args(hint):
        yield None
    if get_origin(hint) is Literal:
        yield from (word for word in get_args(hint) if word != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 3, value - 1, 1)
    elif isinstance(value, float):
        yield from (0.0, value / 2, 0.9, 1.0, 2.0)
    elif isinstance(value, ListConfig):
        yield from ([value[0]], list(value)[:-1], [*value, value[-1]], [])
        counts = all(isinstance(each, int) for each in value)
        yield from ([each // 2 if counts else each / 2 for each in value], [*value][::-1])
        if counts:
            yield [each + 1 for each in value]


def changes(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every field of the stages and of the dropper, with other values."""
    for stage in STAGES:
        if cfg[stage] is not None:
            hints = get_type_hints(get_class(cfg[stage]._target_))
            for name in cfg[stage]:
                if name != "_target_":
                    for value in others(cfg[stage][name], hints[name]):
                        yield f"{stage}.{name}", value
    hints = get_type_hints(TokenDropper)
    # all methods share the dropper's own fields
    for field in fields(TokenDropper) if cfg.method.name in ("sparsevlm_fixed", "tome") else ():
        if field.name not in STAGES:
            for value in others(cfg.dropper.get(field.name, field.default), hints[field.name]):
                yield f"dropper.{field.name}", value


def executed(model, cfg: DictConfig) -> float | None:
    """The executed average of a prompt; None where the budget is out of reach."""
    config = plain(cfg)
    require_planned(config)
    if budget_floor(config) is not None:
        return None
    dropper = TokenDropper(**{stage: instantiate(cfg[stage]) for stage in STAGES}, **cfg.dropper)
    marked = torch.zeros(GRID, GRID, dtype=torch.bool)
    marked[3:5] = True
    known = [{"target_patches": marked, "object_patches": marked}]
    with dropper.attach(model, known) as run, torch.inference_mode():
        model(**prompt(model, flat=0.5))
    return run.ledgers[0].counts().executed_average


def tolerance(method: str) -> float:
    """What the closed form promises: half a layer for VTW, a token for all others."""
    return GRID**2 / DEPTH / 2 if method == "vtw" else 1.0


def test_most_methods_have_a_closed_form():
    assert len(CLOSED) > 20
    assert not {"vanilla", "mustdrop", "sparsevlm"} & {*CLOSED}


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=pytest.mark.slow) if one in AGAIN else one for one in CLOSED],
)
def test_a_changed_field_meets_the_budget_or_is_refused(model, method):
    cfg = small(method)
    assert executed(model, cfg) == pytest.approx(TOKENS, abs=tolerance(method))
    met = 0
    for place, value in [*changes(cfg)]:
        changed = cfg.copy()
        OmegaConf.update(changed, place, value, force_add=True)
        try:
            found = executed(model, changed)
        except KNOWN as error:
            assert "\n" not in message(error), (place, value)
            continue
        if found is not None:
            assert found == pytest.approx(TOKENS, abs=tolerance(method)), (place, value)
            met += 1
    counted = (".keep", ".ratios", ".removed", ".layer")
    assert met or all(place.endswith(counted) for place, _ in changes(cfg))


@pytest.mark.parametrize(("recycle", "per_cluster"), [(0.5, 2), (0.9, 1), (1.0, 1), (1.0, 50)])
def test_sparsevlm_meets_its_budget_whatever_it_recycles(model, recycle, per_cluster):
    cfg = small("sparsevlm_fixed", 100)
    cfg.prefill.recycle, cfg.prefill.per_cluster = recycle, per_cluster
    found = executed(model, cfg)
    if found is None:  # too much of what leaves comes back as a cluster of its own
        cfg.prefill.keep = [0, 0, 0]
        cfg.budget = None
        lowest = executed(model, cfg)
        assert lowest is not None and lowest > 100
    else:
        assert found == pytest.approx(100, abs=1.0)


KEEP_CLS = OmegaConf.load(conf_dir() / "vision" / "cls_topk.yaml")


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (("fastv", {"prefill": {"keep": 9}}), "prefill.keep=9, prefill.layer=0 make it 25.9"),
        (("vtw", {"prefill": {"layer": 2}}), "prefill.layer=2 make it 54.0"),
        (("vtw", {"prefill": {"layer": 0}}), "prefill.layer=0 make it 18.0"),
        (
            ("visionzip", {"vision": {"contextual": 30}}),
            "vision.dominant=34, vision.contextual=30 make it 64.0",
        ),
        (
            ("tome", {"vision": {"merged_per_block": [9, 9]}}),
            r"vision.merged_per_block=\[9, 9\] make it 126.0",
        ),
        (("pyramiddrop", {"prefill": {"ratios": [1.0, 1.0, 1.0]}}), "make it 144.0"),
        (("sparsevlm_fixed", {"prefill": {"keep": [3, 2, 1]}}), r"prefill.keep=\[3, 2, 1\]"),
        (("fastv", {"vision": KEEP_CLS}), "vision.keep=40, prefill.keep=25"),
        (("prumerge", {"vision": {"keep": None}}), "vision.keep=null keeps as many tokens as"),
        (("oracle", {"vision": {"keep": None}}), "choose budget=none with it"),
    ],
)
def test_counts_given_by_hand_beside_a_budget_are_refused_with_both_numbers(chosen, reason):
    method, changes = chosen
    cfg = OmegaConf.merge(small(method), OmegaConf.create(changes))
    config = plain(cfg)
    with pytest.raises(ValueError, match=reason):
        require_planned(config)
    require_planned({**config, "budget": None})


def test_what_depends_on_the_prompt_is_not_planned():
    for method in ("mustdrop", "mustdrop_merge", "sparsevlm"):
        cfg = small(method)
        for name in missing_fields(cfg):
            OmegaConf.update(cfg, name, 0.01)
        config = plain(cfg)
        assert planned(config) is None
        require_planned(config)
    fastv = plain(small("fastv"))
    assert planned(fastv) is not None
    assert planned({**fastv, "key_tokens": {"rule": "outlier"}}) is None  # they all stay


def test_a_token_more_or_less_is_allowed_and_two_are_not():
    base = plain(small("random"))
    for keep, right in ((40, True), (41, True), (39, True), (42, False), (38, False)):
        config = {**base, "prefill": {**base["prefill"], "keep": keep}}
        if right:
            require_planned(config)
        else:
            with pytest.raises(ValueError, match=f"prefill.keep={keep}, prefill.layer=-1 make it"):
                require_planned(config)
    half = {**base, "budget": {"name": "t40.5", "tokens": 40.5}}
    require_planned({**half, "prefill": {**base["prefill"], "keep": 41}})
    with pytest.raises(ValueError, match=r"executed average of 40\.5 tokens"):
        require_planned({**half, "prefill": {**base["prefill"], "keep": 42}})


def test_a_budget_out_of_reach_is_no_contradiction():
    cfg = small("fastv")
    cfg.prefill.layer = 5
    config = plain(cfg)
    assert budget_floor(config) == 108 and planned(config) is None
    require_planned(config)


def test_what_follows_a_drop_cannot_bring_tokens_back():
    def left(vision, prefill):
        return executed_average(vision, prefill, 144, 8)

    assert left(ClsTopK(999), None) == 144
    assert left(VisionZip(100, 99), None) == 144
    assert left(ToMe([100, 100]), None) == 36
    assert left(ClsTopK(8), FastV(99, layer=3)) == 8
    assert left(ClsTopK(8), PyramidDrop([0.5, 1.0], layers=[1, 3])) == 5
    kept = SparseVLM(keep=[80, 0], layers=[1, 3], recycle=0.5, per_cluster=1)
    # 33 of the 64 that leave first come back as clusters, then 57 of 113
    assert left(None, kept) == (2 * 144 + 2 * 113 + 4 * 57) / 8
    assert left(None, FastV(9, layer=7)) is None
    assert left(None, FastV(9, layer=-2)) is None
    assert left(LocalMerge(0.5), FastV(9, layer=1)) is None
    assert left(LocalMerge(0.5), None) is None
