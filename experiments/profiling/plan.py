"""The plan of a profile: its fields, checked before a model is built, and the run that it is about.

Loads no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.checks.run_checks import checked, require_count
from mustdrop.budget import Budget
from mustdrop.presets.compose import resolved
from mustdrop.presets.from_budget import budget_floor
from mustdrop.presets.planned import require_planned
from mustdrop.presets.tuned import references

PROMPTS, WEIGHTS = ("benchmark", "random"), ("checkpoint", "random")
CONFIG, CALIBRATE, SCHEDULE = "config", "calibrate", "schedule"
# Values of thresholds that do not matter while another one of the stage meets the budget: with
# alpha 1 no text token protects a vision token.
NEUTRAL = {"alpha": 1.0, "bias": 1.0}


@dataclass(frozen=True)
class ProfilePlan:
    """What a profile measures.

    Attributes:
        weights: ``checkpoint`` or ``random``.
        depth: Number of decoder layers of a random model; None: all.
        prompts: ``benchmark`` or ``random``.
        images: Numbers of images of a random prompt.
        frames: Numbers of frames of a random prompt that shows one video.
        size: Pixels of a picture or a frame (height, width); None: those usual for the family.
        batch: Numbers of prompts in a batch.
        new_tokens: Lengths of answers.
        rounds: Number of rounds.
        warm_ups: Number of runs of each arm before the first round.
        counts: ``config``, ``calibrate``, ``schedule``, or the path of a schedule file.
    """

    weights: str
    depth: int | None
    prompts: str
    images: Sequence[int]
    frames: Sequence[int]
    size: tuple[int, int] | None
    batch: Sequence[int]
    new_tokens: Sequence[int]
    rounds: int
    warm_ups: int
    counts: str

    @classmethod
    def read(cls, node: Mapping[str, Any]) -> "ProfilePlan":
        """Read the fields of ``profile`` in a config.

        Raises:
            ValueError: If a field cannot be used; the message names it.
        """
        given = dict(node)
        random = _choice("weights", given["weights"], WEIGHTS) == "random"
        given["prompts"] = given["prompts"] or ("random" if random else "benchmark")
        given["counts"] = str(given["counts"] or (CALIBRATE if random else CONFIG))
        _choice("prompts", given["prompts"], PROMPTS)
        given["frames"] = _counts("frames", given["frames"], empty=True)
        if given["images"] is None:
            given["images"] = [] if given["frames"] else [1]
        given["images"] = _counts("images", given["images"], empty=bool(given["frames"]))
        for name in ("batch", "new_tokens"):
            given[name] = _counts(name, given[name])
        for name, none in (("depth", True), ("rounds", False)):
            require_count(f"profile.{name}", given[name], none)
        if given["warm_ups"] != 0:
            require_count("profile.warm_ups", given["warm_ups"])
        if given["size"] is not None:
            given["size"] = _counts("size", given["size"], ordered=False)
            if len(given["size"]) != 2:
                raise ValueError(f"profile.size must be [height, width], got {given['size']}")
        plan = cls(**given)
        plan._check()
        return plan

    def _check(self) -> None:
        random = self.weights == "random"
        if random and self.prompts == "benchmark":
            raise ValueError(
                "profile.prompts must be random with profile.weights=random: a model without files "
                "has no tokenizer"
            )
        if not random and self.depth is not None:
            raise ValueError("profile.depth needs profile.weights=random")
        if random and self.counts == CONFIG:
            raise ValueError(
                "profile.counts must be calibrate, schedule or a file with profile.weights=random: "
                "thresholds mean nothing there"
            )
        alone = self.images == (1,) and not self.frames
        if self.prompts == "benchmark" and (not alone or self.size is not None):
            raise ValueError(
                "profile.images, profile.frames and profile.size need profile.prompts=random: a "
                "benchmark's questions have their own images"
            )
        if self.counts not in (CONFIG, CALIBRATE, SCHEDULE) and not Path(self.counts).is_file():
            raise ValueError(
                "profile.counts must be config, calibrate, schedule or the path of a file, got "
                f"{self.counts!r}"
            )

    @property
    def batches(self) -> list[tuple[int, int, int]]:
        """Images and frames of a prompt and prompts of a batch, of every batch that is measured."""
        inputs = [*((images, 0) for images in self.images), *((0, count) for count in self.frames)]
        return [(images, frames, batch) for images, frames in inputs for batch in self.batch]


def _choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"profile.{name} must be {' or '.join(choices)}, got {value!r}")
    return str(value)


def _counts(name: str, value: Any, ordered: bool = True, empty: bool = False) -> tuple[int, ...]:
    """A list of counts; those that are swept are sorted, each once."""
    values = list(value) if isinstance(value, list) else [value]
    if not values and not empty:
        raise ValueError(f"profile.{name} must be a list of counts of 1 or more, got []")
    for count in values:
        require_count(f"profile.{name}", count)
    return tuple(sorted({*values}) if ordered else values)


@dataclass(frozen=True)
class ProfiledRun:
    """The run that a profile is about.

    Attributes:
        cfg: Config with interpolations.
        config: Resolved config.
        free: Thresholds whose values the profile chooses, as ``stage.field``.
        searched: Threshold among them that meets the budget; None: there is none.
    """

    cfg: DictConfig
    config: Mapping[str, Any]
    free: Sequence[str] = ()
    searched: str | None = None


def profiled_run(cfg: DictConfig, plan: ProfilePlan, overrides: Sequence[str]) -> ProfiledRun:
    """The run that is profiled.

    Where thresholds are not those of the config, they get neutral values, which are part of the
    run's key; the values that were used stand in efficiency.json.

    Raises:
        ValueError: If the run cannot work.
    """
    cfg = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "profile"])
    if cfg.model.device_map is not None:
        raise ValueError(
            f"model.device_map must be null, got {cfg.model.device_map!r}: times are marked on one "
            "device"
        )
    if plan.depth is not None:
        if plan.depth > cfg.model.layers:
            raise ValueError(
                f"profile.depth must be at most the {cfg.model.layers} layers of "
                f"{cfg.model.name}, got {plan.depth}"
            )
        cfg.model.layers = plan.depth
    if plan.images != (1,) or plan.frames:
        cfg.model.vision_tokens = None  # counts follow from the budget for each prompt
    run = ProfiledRun(cfg, {})
    if plan.counts == CONFIG:
        config = checked(cfg, overrides)
    else:
        values = placeholders(cfg)
        run = ProfiledRun(cfg, {}, tuple(values), searched(cfg))
        for path, value in values.items():
            OmegaConf.update(cfg, path, value)
        config = resolved(cfg)
        require_planned(config)
    if budget_floor(config) is not None:
        raise ValueError(
            f"budget: {cfg.method.name} on {cfg.model.name} cannot keep as few as "
            f"{Budget.parse(cfg.budget)}, so there is no run to profile"
        )
    return replace(run, config=config)


def placeholders(cfg: DictConfig) -> dict[str, float]:
    """Value of each threshold that the config reads from a table, before it is calibrated."""
    values: dict[str, float] = {}
    for stage in ("vision", "prefill"):
        for name, _, _ in references(cfg, stage):
            values[f"{stage}.{name}"] = NEUTRAL.get(name, 0.0)
    return values


def searched(cfg: DictConfig) -> str | None:
    """Threshold that meets the budget: the first one that a table would hold; None: there is none.

    A stage's threshold with a default, as that of merging, belongs to the method and not to the
    budget.
    """
    for stage in ("prefill", "vision"):
        for name, _, has_default in references(cfg, stage):
            if not has_default:
                return f"{stage}.{name}"
    return None
