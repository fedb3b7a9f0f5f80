"""Every method of conf/method on tiny models, from its yaml files alone, so that no list is edited.

Counts come from the strategy's own plan for a small budget. A threshold that conf/tuned would hold
gets the first of a few values of its range (``thresholds``) at which the strategy drops some tokens
of a tiny model, but not all.
"""

from functools import cache
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from models import prompt, tiny_llava
from omegaconf import DictConfig, OmegaConf

from mustdrop import TokenDropper
from mustdrop.presets import compose  # noqa: F401  # registers the resolvers
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import STAGES, follows
from mustdrop.presets.tuned import references

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
TOKENS, GRID, DEPTH = 12, 6, 6
# Positions in the range of a threshold. Most strategies drop something at one of the first.
POINTS = (0.5, 0.7, 0.3, 0.8, 0.2, 0.9, 0.1, 0.6, 0.4)


def options(method: str) -> dict[str, str]:
    """The file of each stage that a method uses."""
    listed = _read("method", method).get("defaults", [])
    return {
        group.removeprefix("override /"): option for one in listed for group, option in one.items()
    }


def closed(method: str) -> bool:
    """Whether a method's counts follow from the budget."""
    stages = (_read(stage, option) for stage, option in options(method).items())
    return any(follows(node, name) for node in stages for name in node)


def config_of(
    method: str, tokens: float = TOKENS, grid: int = GRID, depth: int = DEPTH
) -> DictConfig:
    """A method on a small model, from its files; as composed, but for what is not needed here."""
    model = {"vision_tokens": grid**2, "layers": depth, "merging_blocks": 3}
    named = {"model": {"name": "small", **model}, "benchmark": {"name": "made_up"}}
    parts: list[Any] = [{"seed": 0, "budget": tokens, **named, **dict.fromkeys(STAGES)}]
    parts += [{stage: _read(stage, option)} for stage, option in options(method).items()]
    own = _read("method", method).copy()
    own.pop("defaults", None)
    cfg = OmegaConf.merge(*parts, own)
    assert isinstance(cfg, DictConfig)
    return cfg


def middle(node: DictConfig, names: list[str], point: float = 0.5) -> dict[str, float]:
    """Values of a strategy's fields in the middle of their ranges; 0.0 for a field without one."""
    ranges = instantiate(OmegaConf.merge(node, dict.fromkeys(names, 0.0))).thresholds

    def value(low: float, high: float) -> float:
        return low * (high / low) ** point if low > 0 else low + point * (high - low)

    return {name: value(*ranges[name]) if name in ranges else 0.0 for name in names}


def every_method() -> dict[str, TokenDropper]:
    """Dropper of each method by name, for prompts with images.

    Vanilla and the bounds that know the answer are left out.
    """
    droppers = {method: dropper_of(method) for method in OF_IMAGES}
    return {name: dropper for name, dropper in droppers.items() if _for_any_prompt(dropper)}


@cache
def dropper_of(method: str) -> TokenDropper:
    """A method on tiny models of 6 layers and 36 vision tokens per image."""
    cfg = config_of(method)
    for stage in STAGES:
        node = cfg[stage]
        if node is None:
            continue
        if node.get("layers") is not None:  # several of a deep decoder are one of 6 layers
            node.layers = list(dict.fromkeys(node.layers))
        names = [name for name, _, _ in references(cfg, stage)]
        if names:
            node.update(_thresholds(stage, node, names))
    return TokenDropper(**{stage: instantiate(cfg[stage]) for stage in STAGES}, **cfg.dropper)


def _thresholds(stage: str, node: DictConfig, names: list[str]) -> dict[str, float]:
    if stage not in ("vision", "prefill"):
        return middle(node, names)
    for point in POINTS:
        values = middle(node, names, point)
        if 0 < _dropped(stage, instantiate(OmegaConf.merge(node, values))) < 1:
            return values
    raise ValueError(f"{node._target_} drops all or no tokens at any value of {', '.join(names)}")


def _dropped(stage: str, strategy: Any) -> float:
    """Share of the vision tokens that do not reach the last layer of a tiny model."""
    model = _model()
    with TokenDropper(**{stage: strategy}).attach(model) as run, torch.inference_mode():
        model(**prompt(model, flat=0.5))
    return 1 - run.ledgers[0].vision_per_layer()[-1] / GRID**2


def _videos_only(method: str) -> bool:
    """Whether a method refuses images; see the prefill strategies."""
    prefill = options(method).get("prefill", "none")
    return prefill != "none" and get_class(_read("prefill", prefill)._target_).videos_only


@cache
def _model() -> Any:
    return tiny_llava(grid=GRID, layers=DEPTH)


@cache
def _read(group: str, option: str) -> DictConfig:
    node = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
    assert isinstance(node, DictConfig)
    return node


def _for_any_prompt(dropper: TokenDropper) -> bool:
    return dropper.may_drop and not (dropper.vision and dropper.vision.annotations)


OF_VIDEOS = [method for method in METHODS if _videos_only(method)]
OF_IMAGES = [method for method in METHODS if method not in OF_VIDEOS]
