"""The result table of a folder of runs, printed.

python -m analysis.tables outputs/demo
python -m analysis.tables outputs/demo --types --format markdown
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from analysis.tables.rendering import show, to_csv, to_markdown
from analysis.tables.summary import by_type, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a results folder."""
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=main.__doc__)
    parser.add_argument("root", type=Path, help="a results folder, such as outputs/demo")
    parser.add_argument("--types", action="store_true", help="accuracy per question type instead")
    parser.add_argument("--metric", help="the score to read (default: the benchmark's own)")
    parser.add_argument("--format", choices=("text", "markdown", "csv"), default="text")
    options = parser.parse_args(arguments)
    try:
        frame = (by_type if options.types else summary)(options.root, options.metric)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.format == "text":
        show(frame, Console(width=None if sys.stdout.isatty() else 200))
    else:
        print({"markdown": to_markdown, "csv": to_csv}[options.format](frame), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
