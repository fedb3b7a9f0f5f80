"""Write a page about a folder of runs: sort, filter, open a sample, follow every token.

mustdrop report outputs/demo
mustdrop report outputs/demo --samples 200 --out demo.html
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.records.left_out import in_words
from analysis.report.page import page
from analysis.report.page_data import gather


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Write one self-contained HTML file about a results folder."""
    parser = argparse.ArgumentParser(prog="mustdrop report", description=main.__doc__)
    parser.add_argument("root", type=Path, help="results folder, such as outputs/demo")
    parser.add_argument(
        "--out", type=Path, help="file to write (default: report.html in the results folder)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        help="number of samples of each benchmark, from the first (default: all)",
    )
    options = parser.parse_args(arguments)
    out = options.out or options.root / "report.html"
    try:
        gathered = gather(options.root, options.samples)
        out.write_text(page(gathered), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    content = gathered.content
    traced = sum(len(arm["traces"]) for arm in content["arms"])
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(content['samples']['id'])} samples, "
        f"{len(content['arms'])} arms, {traced} traces, {len(gathered.traces.pictures)} pictures"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
