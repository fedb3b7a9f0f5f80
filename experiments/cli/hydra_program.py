"""A command that is a Hydra program: short help, and names are checked before Hydra composes."""

import sys
from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from experiments.cli.errors import SAMPLES_KEPT, ending
from mustdrop.presets.folders import user_configs
from mustdrop.presets.names import require_fields, require_names

HYDRA_HELP = "Hydra's own options: --hydra-help; the whole configuration: --cfg job."


def run_hydra(
    job: Callable[[], None],
    arguments: Sequence[str] | None,
    description: str | None,
    compose: Callable[[Sequence[str]], DictConfig] | None = None,
    kept: str = SAMPLES_KEPT,
) -> None:
    """Run a Hydra program; bad input ends it with one line and an exit code.

    Args:
        job: Function that ``hydra.main`` decorates.
        arguments: Arguments of the command line; None for those of the process.
        description: Text of ``--help``.
        compose: Composes the config of overrides, to check their fields; None for the config of
            a run.
        kept: End of the sentence after ctrl-C: which work is kept.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & {*given}:
        print(f"{(description or '').strip()}\n\n{HYDRA_HELP}")
        return

    def program() -> None:
        require_names(given)
        if not {"-m", "--multirun"} & {*given}:  # a sweep checks its runs one by one
            require_fields(given, compose)
        sys.argv = [sys.argv[0], *given, *user_configs()]
        job()

    if code := ending(program, kept):
        raise SystemExit(code)
