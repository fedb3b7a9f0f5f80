"""The page as one file: the data compressed, style and scripts set in, nothing fetched.

The same runs give the same bytes. Knows nothing about records.
"""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.page_data import PageData

HERE = Path(__file__).parent
# In this order: each reads only those before it.
SCRIPTS = ("data.js", "words.js", "summary.js", "samples.js", "picture.js", "sample.js", "page.js")


def page(gathered: PageData) -> str:
    """The HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("page.html").render(
        title=gathered.title,
        lede=gathered.lede,
        plots=gathered.plots,
        about=gathered.told["about"],
        told=compressed(json.dumps(gathered.told, allow_nan=False, separators=(",", ":")).encode()),
        fates=compressed(bytes(gathered.traces.fates)),
        # base64 and commas alone: nothing in it can end the element
        pictures=Markup(",".join(gathered.traces.pictures)),
        style=_own("page.css"),
        script=Markup("\n").join(_own(name) for name in SCRIPTS),
    )


def compressed(content: bytes) -> Markup:
    """Base64 of the content as a zlib stream, which browsers call deflate."""
    return Markup(base64.b64encode(zlib.compress(content, 9)).decode())


def _own(name: str) -> Any:
    return Markup((HERE / name).read_text(encoding="utf-8"))
