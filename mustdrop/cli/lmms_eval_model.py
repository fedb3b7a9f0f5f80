"""The model ``mustdrop`` for lmms-eval's own command line, from any working folder.

python -m lmms_eval --model mustdrop --model_args pretrained=packaged,method=fastv,budget=t128 \
    --tasks pope --batch_size 8 --limit 100 --output_path results

model_args are those of mustdrop run: names of presets (model, inputs, method, budget, benchmark;
the benchmark selects the tuned thresholds) and single values by their path (prefill.gamma=1e-3).
Tasks of output type multiple_choice or loglikelihood need ``--force_simple`` as well.
``pretrained`` alone finds its preset. lmms-eval's command line ends with exit code 0 after every
error and leaves other ranks waiting; so an error here ends the process with code 1 or 2.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import os
import sys
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.checks.run_checks import checked
from experiments.cli.errors import BAD_INPUT, KNOWN, message
from mustdrop import openmp
from mustdrop.budget import Budget, floor_text
from mustdrop.evaluation.chat import DocumentError
from mustdrop.evaluation.choices import ScoringVLM
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Instance
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import STAGES, budget_floor
from mustdrop.presets.names import require_fields, require_names
from mustdrop.presets.planned import require_planned
from mustdrop.provenance.fingerprint import run_fingerprint

PRESETS = ("model", "inputs", "method", "budget", "benchmark", *STAGES)
FIELD_GROUPS = ("model", "dropper", *STAGES)
ACTIVE_THREADS = (
    "lmms-eval imports torch before mustdrop, so threads that wait use CPU time, which slows other "
    "runs on this machine; start it as OMP_WAIT_POLICY=PASSIVE python -m lmms_eval ..."
)
PLAIN = ("pretrained", "seed", "max_new_tokens", "workers")


class MustDropVLM(DroppedVLM):
    """The class of ``--model mustdrop``.

    Args:
        batch_size: Number of prompts in a batch; it changes no answer.
        device: ``cuda``, ``cpu`` ...; None for the GPU of this rank, or the CPU.
        max_batch_size: Not used; lmms-eval passes it to every model.
        args: ``--model_args``, as strings and numbers.
    """

    def __init__(
        self,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        **args: Any,
    ) -> None:
        with Leaving(KNOWN):
            max_new_tokens = int(args.pop("max_new_tokens", 64))
            given = overrides(args)
            require_names(given)
            require_fields(given)
            cfg = composed(*given)
            config = checked(cfg, given)
            floor = budget_floor(config)
            if floor is not None:
                raise ValueError(
                    f"budget: out of reach, the least executed average is {floor_text(floor)}"
                )
            require_planned(config)
            torch.manual_seed(config["seed"])
            dropper = instantiate(cfg.dropper)
            model, processor = instantiate(cfg.model).load(device or "auto")
            identity = {
                name: config[name] for name in ("model", "method", "budget", "dropper", "seed")
            }
            # lmms-eval's cache of answers uses this as its key. lmms-eval itself reads the rows.
            without_rows = {**config, "benchmark": {"task": {}}}
            identity["fingerprint"] = run_fingerprint(without_rows).id
            super().__init__(
                model, processor, dropper, identity, int(batch_size),
                Budget.read(config["budget"]), max_new_tokens, workers=config["workers"],
            )  # fmt: skip
            self.accelerator = _accelerator()
        if openmp.TOO_LATE:
            print(f"note: {ACTIVE_THREADS}", file=sys.stderr)

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        with Leaving((DocumentError,)):
            return super().generate_until(requests)

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        with Leaving((DocumentError,)):
            return super().loglikelihood(requests)


class MustDropScoringVLM(ScoringVLM, MustDropVLM):
    """The class of ``--model mustdrop --force_simple``, for multiple-choice tasks."""


def _accelerator() -> Accelerator:
    """Accelerator through which lmms-eval's ranks communicate."""
    accelerator, world = Accelerator(), int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != world:
        raise ValueError(
            f"accelerate sees {accelerator.num_processes} process, but the launcher started "
            f"{world}: without GPUs set ACCELERATE_USE_CPU=true"
        )
    return accelerator


@dataclass(frozen=True)
class Leaving(AbstractContextManager):
    """A context that ends the process on an error; lmms-eval would print it and exit with code 0.

    Attributes:
        known: Types of errors that the user can correct; they are printed in one line.
    """

    known: tuple[type[Exception], ...] = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, self.known):
            print(f"error: {message(error)}", file=sys.stderr)
            raise SystemExit(BAD_INPUT) from error
        if isinstance(error, Exception):
            traceback.print_exception(error)
            raise SystemExit(1) from error


def overrides(args: dict[str, Any]) -> list[str]:
    """Command-line overrides of mustdrop run that equal the model_args.

    Raises:
        ValueError: If the name of an argument is unknown, or no preset has the weights.
    """
    for name in args:
        group, dot, _ = name.partition(".")
        if not (name in PRESETS or name in PLAIN or (dot and group in FIELD_GROUPS)):
            raise ValueError(
                f"model_args: names must be {', '.join(PLAIN + PRESETS)}, or single values such as "
                f"prefill.gamma=1e-3, got {name!r}"
            )
    given = dict(args)
    weights = given.pop("pretrained", None)
    if weights is not None:
        if "model" not in given:
            given["model"] = _preset(str(weights))
        given["model.pretrained"] = str(weights)
    return [
        # Quoted, because a folder named [x] would be read as a list.
        f"{name}={_quoted(value, always=name == 'model.pretrained')}"
        for name, value in given.items()
    ]


def _preset(weights: str) -> str:
    """Name of the preset under conf/model with the given weights."""
    presets = sorted((conf_dir() / "model").glob("*.yaml"))
    for path in presets:
        if OmegaConf.load(path).pretrained == weights:
            return path.stem
    known = ", ".join(path.stem for path in presets)
    raise ValueError(
        f"model_args: no preset has the weights {weights}; set model to one of {known}"
    )


def _quoted(value: Any, always: bool = False) -> str:
    """A value in Hydra's override grammar; only paths need quotes."""
    text = "null" if value is None else str(value)
    return "'" + text.replace("'", "\\'") + "'" if always or "/" in text else text
