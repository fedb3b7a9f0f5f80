"""Judge the open answers of finished runs by a language model, in a pass after the runs.

mustdrop judge outputs/run --dry-run          # calls and tokens that are needed; makes no call
mustdrop judge outputs/run --budget 3000      # makes these calls, 3000 at most
mustdrop judge outputs/run judge=local judge.model=Qwen/Qwen2.5-7B-Instruct --budget 3000

The server is any that speaks OpenAI's interface. Settings: conf/judge/, as judge.concurrency=4. The
API key comes from the environment variable that judge.key_variable names. Verdicts are shared by
all runs (cache=FOLDER); no answer with a verdict is sent again. A killed or stopped pass continues
with the same command, and asks again about answers that got no verdict. An answer without a verdict
is listed with its reason and never counts as wrong.
Exit codes: 0 all answers were asked about, 1 some were not or a run cannot be read, 2 bad input,
75 another process uses this judge.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.cli.errors import BUSY, leave
from experiments.tracking.follow import catch_up
from mustdrop.judging.asking import JudgingPass, PassOutcome
from mustdrop.judging.cache import VerdictCache, cache_file, read_verdicts
from mustdrop.judging.judge import ApiKey, Judge
from mustdrop.judging.judged_runs import (
    JudgingPlan,
    RunAnswers,
    plan,
    read_answers,
    write_judgements,
)
from mustdrop.judging.progress import judging_progress
from mustdrop.presets.compose import composed
from mustdrop.presets.names import require_fields, require_names
from mustdrop.runs.folder import TornFile
from mustdrop.runs.repair import read_config
from mustdrop.runs.writer import Busy


def settings(overrides: Sequence[str]) -> tuple[Judge, Path]:
    """Judge and folder of the cache that a command line chooses.

    Raises:
        ValueError: If a name, a field or a value is wrong (or Hydra's own errors).
    """
    require_names(overrides)
    require_fields(overrides, lambda groups: composed(*groups, name="judge"))
    cfg = composed(*overrides, name="judge")
    node: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    judge = instantiate(node["judge"], _convert_="all")
    if not isinstance(judge, Judge):
        raise TypeError(f"judge must name a Judge, got {type(judge).__name__}")
    return judge, Path(node["cache"])


def runs_under(roots: Sequence[Path], judge: Judge) -> tuple[list[RunAnswers], int]:
    """Finished runs under some folders, and the number of runs that cannot be read.

    Raises:
        FileNotFoundError: If a folder is missing, or there is no finished run.
        ValueError: If a sample does not have exactly one target.
    """
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"no results folder {root}")
    paths = (path.parent for root in roots for path in root.rglob("samples.jsonl"))
    folders = {path.resolve(): path for path in paths}
    runs, torn = [], 0
    for folder in sorted(folders.values()):
        try:
            run = read_answers(folder, judge)
        except TornFile as error:
            torn += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        if run is None:
            print(f"not finished, so not judged: {folder}", file=sys.stderr)
        else:
            runs.append(run)
    if not runs and not torn:
        raise FileNotFoundError(f"no finished run under {', '.join(map(str, roots))}")
    return runs, torn


def described(needed: JudgingPlan, judge: Judge) -> str:
    """Calls and tokens that a plan needs, in a few lines."""
    calls = len(needed.missing)
    longest = judge.options.get("max_tokens") or judge.options.get("max_completion_tokens")
    replies = f", replies at most {calls * longest:,}" if isinstance(longest, int) else ""
    return (
        f"{judge.name} at {judge.base_url}\n"
        f"  {len(needed.runs)} runs, {needed.samples:,} samples, {needed.distinct:,} different "
        f"answers, {needed.distinct - calls:,} of them with a verdict\n"
        f"  calls needed: {calls:,}; at most {calls * judge.attempts:,} if calls fail\n"
        f"  tokens: prompts about {needed.prompt_tokens:,} (4 characters each){replies}"
    )


def require_budget(needed: JudgingPlan, budget: int | None) -> None:
    """Check that a budget of calls is given and is large enough.

    Raises:
        ValueError: If it is not.
    """
    calls = len(needed.missing)
    if budget is None and calls:
        raise ValueError(f"--budget must be given: {calls} calls are needed, --budget {calls}")
    if budget is not None and budget < calls:
        raise ValueError(f"--budget {budget} is too small: {calls} calls are needed")


def judged(needed: JudgingPlan, judge: Judge, cache: VerdictCache, budget: int) -> PassOutcome:
    """Ask about all answers of a plan that have no verdict, and write the runs' files.

    The files are also written after an interruption or an error.
    """
    outcome = PassOutcome()
    try:
        if needed.missing:
            key = ApiKey.of(judge)
            with judging_progress(judge.model, len(needed.missing)) as progress:
                judging = JudgingPass(judge, key, cache, budget, progress.add)
                outcome = judging.outcome
                asyncio.run(judging.run(needed.missing))
    finally:
        for run in needed.runs:
            totals = write_judgements(run, judge, cache.verdicts, outcome.faults)
            print(f"{run.folder}\n  {totals}")
    return outcome


def main(arguments: Sequence[str]) -> int:
    """Judge; return the exit code."""
    options = _parsed(arguments)
    given = [text for text in options.arguments if not Path(text).is_dir()]
    overrides = [text for text in given if "=" in text]
    roots = [Path(text) for text in options.arguments if text not in overrides]
    judge, folder = settings(overrides)
    runs, torn = runs_under(roots or [Path("outputs")], judge)
    if options.dry_run:
        print(described(plan(runs, judge, read_verdicts(cache_file(folder, judge))), judge))
        return 1 if torn else 0
    try:
        with VerdictCache(folder, judge) as cache:
            needed = plan(runs, judge, cache.verdicts)
            print(described(needed, judge), file=sys.stderr)
            require_budget(needed, options.budget)
            outcome = judged(needed, judge, cache, options.budget or 0)
    except Busy as error:
        print(f"error: {error}", file=sys.stderr)
        return BUSY
    for run in runs:
        catch_up(read_config(run.folder).get("tracker"), run.folder)
    print(
        f"{outcome.calls:,} calls; tokens of replies with a verdict, as the server counts them: "
        f"prompts {outcome.tokens[0]:,}, replies {outcome.tokens[1]:,}"
    )
    if outcome.stopped is not None:
        print(f"stopped early: {outcome.stopped}; the same command continues", file=sys.stderr)
    return 1 if torn or outcome.stopped is not None else 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mustdrop judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments", nargs="*", metavar="folder or name=value", help="folders of runs; settings"
    )
    parser.add_argument("--dry-run", action="store_true", help="print calls and tokens only")
    parser.add_argument("--budget", type=int, metavar="N", help="highest number of calls")
    options = parser.parse_intermixed_args(arguments)
    if options.budget is not None and options.budget < 0:
        raise ValueError(f"--budget must be a count of calls, got {options.budget}")
    return options


def program(arguments: Sequence[str]) -> int:
    """Judge; a signal of a cluster ends the pass as ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminate)
    return main(arguments)


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    leave(lambda: program(sys.argv[1:]))
