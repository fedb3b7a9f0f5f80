"""Build the page as one file with compressed data, style and scripts; it fetches nothing.

The same runs give the same bytes. Knows nothing about records.
"""

import base64
import json
import zlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.page_data import PageData

HERE = Path(__file__).parent
# The order matters: a script uses only the scripts before it.
SCRIPTS = (
    "data.js", "views.js", "words.js", "hints.js", "summary.js", "samples.js", "picture.js",
    "sample.js", "page.js",
)  # fmt: skip


def page(gathered: PageData, home: str | None = None) -> str:
    """Render the HTML of the page.

    Args:
        gathered: Content of the page.
        home: Address of a page that this page belongs to; None: it stands alone.
    """
    return (
        templates(HERE)
        .get_template("page.html")
        .render(
            home=home,
            title=gathered.title,
            introduction=gathered.introduction,
            plots=gathered.plots,
            about=gathered.content["about"],
            data=compressed(
                json.dumps(gathered.content, allow_nan=False, separators=(",", ":")).encode()
            ),
            fates=compressed(bytes(gathered.traces.fates)),
            # Base64 and commas contain nothing that could close the element.
            pictures=Markup(",".join(gathered.traces.pictures)),
            style=asset("page.css"),
            script=Markup("\n").join(asset(name) for name in SCRIPTS),
        )
    )


def templates(folder: Path) -> Environment:
    """Templates of a folder; a missing value is an error, and texts are escaped."""
    return Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def compressed(content: bytes) -> Markup:
    """Content as a zlib stream (called deflate in browsers), in Base64."""
    return Markup(base64.b64encode(zlib.compress(content, 9)).decode())


def asset(name: str) -> Markup:
    """Content of a style or script file of this package."""
    return Markup((HERE / name).read_text(encoding="utf-8"))
