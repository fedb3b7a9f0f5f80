"""The command ``mustdrop list``: names of presets, with one line about each."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mustdrop.evaluation import tasks
from mustdrop.presets.folders import preset_file, preset_names

BAD_INPUT = 2
GROUPS = {
    "methods": "method", "models": "model", "benchmarks": "benchmark",
    "experiments": "experiment", "inputs": "inputs", "images": "image", "controls": "controls",
    "trackers": "tracker", "launchers": "launcher", "judges": "judge",
}  # fmt: skip
USAGE = f"""usage: mustdrop list GROUP

GROUP is one of {", ".join(GROUPS)}. Each name is a file of the folder of that group under conf/;
choose it by `mustdrop run GROUP=NAME`, as in `mustdrop run method=fastv`.

`mustdrop list lmms-eval` prints the folder of the tasks for lmms-eval's own command line:
  python -m lmms_eval --model mustdrop --model_args method=fastv,budget=t128 \\
    --include_path "$(mustdrop list lmms-eval)" --tasks pocket_vqa"""


def main(arguments: Sequence[str]) -> int:
    """Print the presets of a group.

    Returns:
        Exit code: 0, or 2 for an unknown group.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if [*arguments] == ["lmms-eval"]:
        print(Path(tasks.__file__).parent / "lmms_eval")
        return 0
    group = GROUPS.get(arguments[0], arguments[0])
    if group not in GROUPS.values() or len(arguments) > 1:
        name = " ".join(arguments)
        close = get_close_matches(name, GROUPS, 1)
        end = f"did you mean {close[0]}?" if close else f"there are {', '.join(GROUPS)}"
        print(f"error: no group {name!r}; {end}", file=sys.stderr)
        return BAD_INPUT
    files = [preset_file(group, f"{name}.yaml") for name in preset_names(group)]
    width = max(len(file.stem) for file in files)
    for file in files:
        print(f"{file.stem:{width}}  {description(file)}".rstrip())
    return 0


def description(file: Path) -> str:
    """First comment of a yaml file, up to its source or command."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            text = line.removeprefix("# ")
            for mark in (" Source:", " Command:"):
                text = text.partition(mark)[0]
            return text
    return ""
