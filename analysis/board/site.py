"""Writes the board as HTML files that open from the disk and load nothing from a network.

The same packs give the same bytes. Knows nothing about run folders.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from analysis.board.leaderboards import Leaderboard, leaderboards
from analysis.board.rows import REFERENCE, Row, hardware_text
from analysis.packs.archive import Pack
from analysis.packs.shared_runs import SharedRun
from analysis.report.naming import spelled
from analysis.report.page import asset, page, templates
from analysis.report.page_data import gather_runs

HERE = Path(__file__).parent
INDEX, MARK = "index.html", "board.json"
METHODS, SAMPLES = "methods", "samples"  # folders of pages
PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class MethodPicture:
    """Picture of the tokens that a method keeps.

    Attributes:
        png: Content of a PNG file.
        caption: Text below it.
    """

    png: bytes
    caption: str

    @property
    def address(self) -> str:
        """Picture as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def site_files(
    packs: Sequence[Pack], runs: Sequence[SharedRun], pictures: Mapping[str, MethodPicture]
) -> dict[str, str]:
    """Content of each file of the site, by its name.

    Args:
        packs: Packs whose runs agree.
        runs: Runs of the packs.
        pictures: Picture of each method that has one.
    """
    boards = leaderboards(runs)
    environment = templates(HERE)
    environment.globals["assets"] = {
        "style": asset("page.css") + _text("board.css"), "script": _text("board.js"),
        "hints": asset("hints.js"),
    }  # fmt: skip
    environment.filters["spelled"] = spelled
    environment.filters["linked"] = linked
    methods = sorted({run.cell["method"] for run in runs})
    index = environment.get_template(INDEX).render(
        introduction=_introduction(packs, boards, methods),
        boards=boards,
        choices=_choices(boards),
        packs=[_pack_facts(pack) for pack in packs],
    )
    files = {INDEX: index}
    for name in methods:
        files[f"{METHODS}/{name}.html"] = environment.get_template("method.html").render(
            name=name,
            picture=pictures.get(name),
            results=_results(boards, name),
            **_method_texts(packs, name),
        )
    for board in boards:
        if board.samples:
            gathered = gather_runs(board.cells)
            files[f"{SAMPLES}/{board.file}.html"] = page(gathered, home=f"../{INDEX}")
    facts = {"packs": {pack.name: pack.digest for pack in packs}}
    files[MARK] = json.dumps(facts, indent=1) + "\n"
    return files


def write_site(folder: Path, files: Mapping[str, str]) -> None:
    """Write the site; pages of an earlier board that this one lacks are removed.

    Raises:
        ValueError: If the folder holds something else than a board.
    """
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not free and not (folder / MARK).is_file():
        raise ValueError(
            f"{folder} exists and is no board: give a new or empty folder with --output"
        )
    for part in (METHODS, SAMPLES):
        for old in (folder / part).glob("*.html"):
            if f"{part}/{old.name}" not in files:
                old.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def linked(text: str) -> Markup:
    """Text in which each arXiv number is a link to its paper."""
    link = r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>'
    return Markup(PAPER.sub(link, str(escape(text))))


def _introduction(
    packs: Sequence[Pack], boards: Sequence[Leaderboard], methods: Sequence[str]
) -> str:
    count = sum(len(board.cells) for board in boards)
    names = list(dict.fromkeys(board.title for board in boards))
    return (
        f"{_number(count, 'run')} of {_number(len(methods), 'method')} from "
        f"{_number(len(packs), 'pack')}: {', '.join(names)}."
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _choices(boards: Sequence[Leaderboard]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Filters, each with its choices as value and text."""
    tables = [table for board in boards for table in board.tables]
    rows = [row for table in tables for _, part in table.parts for row in part]
    budgets = {table.budget: table.label for table in tables}
    stages = sorted({stage for row in rows for stage in row.stages})
    return [
        ("model", [(name, spelled(name)) for name in sorted({board.model for board in boards})]),
        (
            "benchmark",
            [(name, spelled(name)) for name in sorted({board.benchmark for board in boards})],
        ),
        ("budget", list(budgets.items())),
        ("stage", [(stage, stage.replace("_", " ")) for stage in stages]),
    ]


def _pack_facts(pack: Pack) -> dict[str, Any]:
    """What the board shows of a pack."""
    runs = list(pack.manifest["runs"].values())
    days = {
        min(run["started"] for run in runs)[:10], max(run["finished"] for run in runs)[:10],
    }  # fmt: skip
    versions = {name: value for run in runs for name, value in run["versions"].items()}
    return {
        "name": pack.name,
        "digest": pack.digest[:12],
        "runs": len(runs),
        "mustdrop": str(pack.manifest.get("mustdrop")),
        "hardware": "; ".join(
            dict.fromkeys(hardware_text(run["hardware"]) for run in runs if run["hardware"])
        ),
        "dates": " to ".join(sorted(days)),
        "versions": ", ".join(f"{name} {versions[name]}" for name in sorted(versions)),
    }


def _results(
    boards: Sequence[Leaderboard], method: str
) -> list[tuple[Leaderboard, list[tuple[str, Row]]]]:
    """Rows of one method: for each leaderboard, the label of the budget and the row."""
    results = []
    for board in boards:
        rows: list[tuple[str, Row]] = []
        for table in board.tables:
            for _, part in table.parts:
                for row in part:
                    entry = ("no budget" if row.kind == REFERENCE else table.label), row
                    if row.method == method and entry not in rows:
                        rows.append(entry)
        if rows:
            results.append((board, rows))
    return results


def _method_texts(packs: Sequence[Pack], method: str) -> dict[str, str]:
    """Description and source of a method from the first pack that has them."""
    for pack in packs:
        texts = pack.manifest["methods"].get(method)
        if isinstance(texts, dict) and texts.get("description"):
            return {name: str(texts.get(name, "")) for name in ("description", "source")}
    return {"description": "", "source": ""}


def _text(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))
