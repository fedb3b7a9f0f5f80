"""A model with tokens dropped, by name, for lmms-eval's own command line; from any folder.

python -m lmms_eval --model mustdrop --model_args pretrained=packaged,method=fastv,budget=t128 \
    --tasks pope --batch_size 8 --limit 100 --output_path results

model_args are those of experiments/run.py: presets by their names (model, method, budget,
benchmark: whose tuned thresholds to take), and single values by their place (prefill.gamma=1e-3).
``pretrained`` alone finds its preset. lmms-eval's command line ends with exit code 0 whatever is
raised, and would leave other ranks waiting; so an error here leaves the process, with code 1 or 2.
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
from mustdrop.budgets.closed_form import STAGES, budget_floor
from mustdrop.budgets.planned import require_planned
from mustdrop.evaluation.chat import DocumentError
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Instance
from mustdrop.presets.compose import composed, conf_dir
from mustdrop.presets.names import require_fields, require_names
from mustdrop.provenance.fingerprint import run_fingerprint

PRESETS = ("model", "method", "budget", "benchmark", *STAGES)
PLACES = ("model", "dropper", "budget", *STAGES)
PLAIN = ("pretrained", "seed", "max_new_tokens")


class MustDropVLM(DroppedVLM):
    """``--model mustdrop``.

    Args:
        batch_size: Prompts at a time; it changes no answer.
        device: ``cuda``, ``cpu`` ...; None: the GPU of this rank, or the CPU.
        max_batch_size: Not used; lmms-eval hands it to every model.
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
                raise ValueError(f"budget: out of reach, the least executed average is {floor:g}")
            require_planned(config)
            torch.manual_seed(config["seed"])
            dropper = instantiate(cfg.dropper)
            model, processor = instantiate(cfg.model).load(device or "auto")
            kept = {name: config[name] for name in ("model", "method", "budget", "dropper", "seed")}
            # lmms-eval's cache of answers goes by this; lmms-eval itself reads the rows
            without_rows = {**config, "benchmark": {"task": {}}}
            kept["fingerprint"] = run_fingerprint(without_rows).id
            budget = config["budget"]
            super().__init__(
                model, processor, dropper, kept, int(batch_size),
                float(budget["tokens"]) if budget else None, max_new_tokens,
            )  # fmt: skip
            self.accelerator = _accelerator()

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        with Leaving((DocumentError,)):
            return super().generate_until(requests)


def _accelerator() -> Accelerator:
    """Where lmms-eval's ranks meet."""
    found, world = Accelerator(), int(os.environ.get("WORLD_SIZE", 1))
    if found.num_processes != world:
        raise ValueError(
            f"accelerate sees {found.num_processes} process, the launcher started {world}: without "
            "GPUs set ACCELERATE_USE_CPU=true"
        )
    return found


@dataclass(frozen=True)
class Leaving(AbstractContextManager):
    """An exception becomes the end of the process: lmms-eval would print it and call it success.

    Attributes:
        known: What is the user's to mend, and told in a line.
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
    """What experiments/run.py would be given.

    Raises:
        ValueError: If an argument has no such name, or no preset has these weights.
    """
    for name in args:
        place, dot, _ = name.partition(".")
        if not (name in PRESETS or name in PLAIN or (dot and place in PLACES)):
            raise ValueError(
                f"model_args: there is no {name!r}; there are {', '.join(PLAIN + PRESETS)}, and "
                f"single values such as prefill.gamma=1e-3"
            )
    given = dict(args)
    weights = given.pop("pretrained", None)
    if weights is not None:
        if "model" not in given:
            given["model"] = _preset(str(weights))
        given["model.pretrained"] = str(weights)
    return [
        # a folder may be called [x], which the grammar would take for a list
        f"{name}={_quoted(value, always=name == 'model.pretrained')}"
        for name, value in given.items()
    ]


def _preset(weights: str) -> str:
    """The one under conf/model with these weights."""
    presets = sorted((conf_dir() / "model").glob("*.yaml"))
    for path in presets:
        if OmegaConf.load(path).pretrained == weights:
            return path.stem
    known = ", ".join(path.stem for path in presets)
    raise ValueError(
        f"model_args: say which model {weights} is, as in model=llava15_7b; there are {known}"
    )


def _quoted(value: Any, always: bool = False) -> str:
    """A value as hydra's grammar has it; only a path needs quotes."""
    text = "null" if value is None else str(value)
    return "'" + text.replace("'", "\\'") + "'" if always or "/" in text else text
