"""The command ``mustdrop``: one subcommand for each script of experiments/ and analysis/."""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from experiments.cli.errors import FILES_KEPT, SAMPLES_KEPT, ending
from mustdrop import __version__

BAD_INPUT = 2
# Subcommand -> function that takes its arguments and returns an exit code or None, and one line.
COMMANDS = {
    "run": ("experiments.run:program", "run a method on a benchmark; with -m several of them"),
    "demo": ("experiments.demo:main", "compare methods on the embedded model in five minutes"),
    "sweep": ("experiments.sweep:main", "plan, watch, retry or submit a sweep"),
    "calibrate": ("experiments.calibrate:program", "find the threshold that meets a budget"),
    "trace": ("experiments.trace:main", "answer single samples again and record every decision"),
    "pareto": ("experiments.pareto:main", "search thresholds on the front of accuracy and tokens"),
    "vtw": ("experiments.vtw_layer:main", "find the layer after which VTW drops all tokens"),
    "profile": ("experiments.efficiency:program", "measure time, memory and FLOPs of a method"),
    "bench": ("experiments.bench:main", "measure the engine's time against a lower bound"),
    "doctor": ("experiments.doctor.command:program", "check a model on a benchmark before runs"),
    "judge": ("experiments.judge:program", "judge open answers of finished runs by an LLM"),
    "tables": ("analysis.tables.__main__:main", "print or write tables of runs"),
    "claims": ("analysis.claims.__main__:main", "judge claims on finished runs"),
    "figures": ("analysis.figures.__main__:main", "draw figures of runs"),
    "report": ("analysis.report.__main__:main", "write one HTML page about a folder of runs"),
    "pack": ("experiments.sharing.pack:main", "write one archive of runs to share them"),
    "board": ("experiments.sharing.board:main", "write a static site of leaderboards from packs"),
    "published": ("analysis.published.__main__:main", "check published numbers against each other"),
    "sync": ("experiments.sync:main", "upload runs that were made offline"),
    "list": ("mustdrop.cli.listing:main", "list presets: methods, models, benchmarks, ..."),
}
# Subcommands that continue after a stop where they were; the others start their work again.
CONTINUING = ("run", "demo", "sweep", "trace", "pareto", "profile", "judge")
EXAMPLES = """\
examples:
  mustdrop run                                   the embedded model, benchmark and MustDrop
  mustdrop run method=fastv budget=t128 benchmark.limit=50
  mustdrop run -m method=vanilla,random,mustdrop budget=t192,t128
  mustdrop tables summary --runs outputs/run
  mustdrop list methods

`mustdrop COMMAND --help` explains a command. Outputs go to the working folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Of the command line; None: those of the process.

    Returns:
        Exit code: 0 for success, 2 for bad input, 130 after ctrl-C; a subcommand's help lists its
            others.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] in ("--version", "-V"):
        print(f"mustdrop {__version__}")
        return 0
    name, *rest = given
    if name not in COMMANDS:
        print(f"error: {unknown(name)}", file=sys.stderr)
        return BAD_INPUT
    sys.argv = [f"mustdrop {name}", *rest]
    module, _, function = COMMANDS[name][0].partition(":")
    kept = SAMPLES_KEPT if name in CONTINUING else FILES_KEPT
    return ending(lambda: getattr(import_module(module), function)(rest), kept)


def usage() -> str:
    """Help text of the command, less than a screen long."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: mustdrop COMMAND [ARGUMENTS]", "", *lines, "", EXAMPLES])


def unknown(name: str) -> str:
    """Sentence about a command that does not exist, with the closest one that does."""
    close = get_close_matches(name, COMMANDS, 1)
    end = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
    return f"no command {name!r}; {end}"
