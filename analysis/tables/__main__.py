"""Print or write the tables of the paper and of any folder of runs.

mustdrop tables summary --runs outputs/demo          # one row per run, with controls
mustdrop tables types --runs outputs/demo            # accuracy per question type
mustdrop tables table1 --runs outputs/table1      # table1 to table6, as in the paper
mustdrop tables efficiency --runs outputs/run     # time, memory and FLOPs of mustdrop profile
mustdrop tables ablations --runs outputs/table4 outputs/ablate_positions
mustdrop tables judging --runs outputs/run        # verdicts of mustdrop judge, next to exact match
mustdrop tables agreement --runs outputs/run      # how far two judges agree
mustdrop tables confidence --runs outputs/run     # calibration, and probability of the right answer
mustdrop tables difficult --runs outputs/run      # samples that a shrunk picture gets wrong
mustdrop tables pope --runs outputs/run           # POPE's numbers for each of its splits
mustdrop tables chair --runs outputs/run          # objects named that are not in the picture
mustdrop tables summary --runs outputs/run --metric judge_accuracy
mustdrop tables table1 --runs outputs/table1 --format latex --out table1.tex
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.records.cells import RunResult
from analysis.records.left_out import in_words
from analysis.records.profiles import load_profiles, profile_frame
from analysis.records.roots import load_folders
from analysis.tables.ablations import ablation_sheets, ablations
from analysis.tables.chair import chair_frame, chair_sheet
from analysis.tables.confidence import confidence_frame, confidence_sheet
from analysis.tables.costs import COST_COLUMNS, costs
from analysis.tables.difficult import difficult_frame, difficult_sheet
from analysis.tables.efficiency import efficiency_sheets
from analysis.tables.grid import fill
from analysis.tables.judging import agreement_frame, agreement_sheet, judging_frame, judging_sheet
from analysis.tables.latex import to_latex
from analysis.tables.layouts import layouts
from analysis.tables.paper import cost_sheet, score_sheet
from analysis.tables.pope import pope_frame, pope_sheet
from analysis.tables.rendering import sheet_markdown, show, show_sheet, to_csv
from analysis.tables.sheets import Sheet, sheet
from analysis.tables.summary import by_type_of_cells, summary_of_cells

WIDTH = 200  # if the output is not a terminal
PLAIN = ("summary", "types")
EFFICIENCY = "efficiency"
# Tables of one frame and one sheet.
FRAMED: dict[str, tuple[Callable[..., pd.DataFrame], Callable[[pd.DataFrame], Sheet]]] = {
    "judging": (judging_frame, judging_sheet),
    "agreement": (agreement_frame, agreement_sheet),
    "confidence": (confidence_frame, confidence_sheet),
    "difficult": (difficult_frame, difficult_sheet),
    "pope": (pope_frame, pope_sheet),
    "chair": (chair_frame, chair_sheet),
}


def runs(roots: Sequence[Path], metric: str | None, empty: bool) -> list[RunResult]:
    """Read the finished runs under these folders, each run once.

    Args:
        roots: Folders of runs; one may contain another.
        metric: Name of the score to read; by default the metric of each benchmark.
        empty: Whether a folder without a finished run is allowed.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: See :func:`analysis.records.cells.load`.
    """
    with_runs = []
    for root in roots:
        if empty and root.is_dir() and next(root.rglob("record.json"), None) is None:
            print(f"no finished run (record.json) under {root}", file=sys.stderr)
            continue
        with_runs.append(root)
    return load_folders(with_runs, metric)


def make_sheets(
    table: str, cells: Sequence[RunResult], console: Console | None
) -> tuple[list[Sheet], list]:
    """Sheets of a table and the frames behind them; a plain table is also printed if possible."""
    if table in PLAIN:
        frame = summary_of_cells(cells) if table == "summary" else by_type_of_cells(cells)
        if frame.empty:
            raise ValueError("no sample of these runs has a question type")
        if console is not None:
            show(frame, console)
        return [sheet(frame)], [frame]
    if table in FRAMED:
        frame_of, sheet_of = FRAMED[table]
        frame = frame_of(cells)
        return [sheet_of(frame)], [frame]
    if table == "ablations":
        frame = ablations(cells)
        return ablation_sheets(frame), [frame]
    layout, sheets, frames = layouts()[table], [], []
    for filled in fill(table, cells):
        sheets.append(score_sheet(layout, filled))
        frames.append(filled.cells)
        cost_table = costs(filled) if layout.costs else None
        if cost_table is not None and cost_table[list(COST_COLUMNS)].notna().to_numpy().any():
            sheets.append(cost_sheet(layout, filled, cost_table))
            frames[-1] = filled.cells.merge(
                cost_table, on=["method", "budget", "benchmark"], how="left"
            )
    return sheets, frames


@in_words()
def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of runs or write it to a file."""
    parser = argparse.ArgumentParser(
        prog="mustdrop tables",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("table", choices=(*PLAIN, *layouts(), "ablations", EFFICIENCY, *FRAMED))
    parser.add_argument(
        "--runs", type=Path, nargs="+", action="extend", required=True, help="results folders"
    )
    parser.add_argument(
        "--metric", help="name of the score (default: the metric of each benchmark)"
    )
    parser.add_argument("--format", choices=("text", "md", "latex", "csv"), default="text")
    parser.add_argument("--out", type=Path, help="file to write instead of printing")
    options = parser.parse_args(arguments)
    written = io.StringIO()
    plain = options.out is not None or not sys.stdout.isatty()
    console = Console(file=written if options.out else None, width=WIDTH if plain else None)
    text = options.format == "text"
    try:
        printed = options.table in PLAIN and text
        if options.table == EFFICIENCY:
            frame = profile_frame(load_profiles(options.runs))
            sheets, frames = efficiency_sheets(frame), [frame]
        else:
            empty = options.table not in (*PLAIN, *FRAMED)
            cells = runs(options.runs, options.metric, empty)
            sheets, frames = make_sheets(options.table, cells, console if printed else None)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if text:
        for part in () if printed else sheets:
            show_sheet(part, console)
        output = written.getvalue()
    elif options.format == "csv":
        output = to_csv(pd.concat(frames, ignore_index=True))
    else:
        renderers: dict[str, Callable[[Sheet], str]] = {"md": sheet_markdown, "latex": to_latex}
        output = "\n".join(map(renderers[options.format], sheets))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(output)
    elif not text:
        print(output, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
