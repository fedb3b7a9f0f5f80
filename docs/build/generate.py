"""Fill the markers of the documentation pages (method cards, tables, figures), add the notebooks.

mkdocs runs this script at the start of a build (mkdocs-gen-files). A marker is a line such as
``<!-- generate: table demo -->``; a value inside a sentence is ``{{ demo fastv t64 }}``. The pages
under docs/ keep their markers; only the built site has the result. The same checkout gives the same
pages. Knows nothing about the layout of the site.
"""

import re
import sys
from pathlib import Path

import mkdocs_gen_files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import benchmarks  # noqa: E402
import cards  # noqa: E402
import notebook_pages  # noqa: E402
import orders  # noqa: E402
import records  # noqa: E402
import study  # noqa: E402

MARKER = re.compile(r"^<!-- generate: (\S+)(.*?) -->$", re.MULTILINE)
VALUE = re.compile(r"\{\{ (.*?) \}\}")
IMAGE = re.compile(r"^!\[(.*?)\]\(records/(.*?)\)$", re.MULTILINE)
COMMANDS = {
    "benchmarks": benchmarks.page,
    "cards": cards.page,
    "orders": orders.orders,
    "study": study.study,
    "table": records.table,
}


def filled(text: str) -> str:
    """Text of a page with each marker replaced.

    Raises:
        KeyError: If no function has the name of a marker.
    """
    text = MARKER.sub(lambda match: COMMANDS[match[1]](*match[2].split()), text)
    return VALUE.sub(lambda match: records.value(*match[1].split()), text)


def copied(text: str) -> None:
    """Copy the committed figures that a page shows into the site."""
    for _, name in IMAGE.findall(text):
        with mkdocs_gen_files.open(f"records/{name}", "wb") as file:
            file.write((ROOT / "experiments/records" / name).read_bytes())


def main() -> None:
    """Add the notebooks, and fill all pages that have markers."""
    notebook_pages.write()
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        copied(text)
        if MARKER.search(text) or VALUE.search(text):
            with mkdocs_gen_files.open(page.name, "w") as file:
                file.write(filled(text))


main()
