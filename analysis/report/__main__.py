"""A page to look into a folder of runs: sort, filter, open a sample, follow every token.

python -m analysis.report outputs/demo
python -m analysis.report outputs/demo --samples 200 --out demo.html
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
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=main.__doc__)
    parser.add_argument("root", type=Path, help="a results folder, such as outputs/demo")
    parser.add_argument("--out", type=Path, help="the file (default: report.html in the folder)")
    parser.add_argument("--samples", type=int, help="the first so many samples alone")
    options = parser.parse_args(arguments)
    out = options.out or options.root / "report.html"
    try:
        gathered = gather(options.root, options.samples)
        out.write_text(page(gathered), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    told = gathered.told
    traced = sum(len(arm["traces"]) for arm in told["arms"])
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(told['samples']['id'])} samples, "
        f"{len(told['arms'])} arms, {traced} traces, {len(gathered.traces.pictures)} pictures"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
