"""The notebooks as pages: run from top to bottom, then converted to markdown with their figures.

Knows nothing about the content of the notebooks.
"""

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import mkdocs_gen_files
from nbconvert import MarkdownExporter

FOLDER = Path(__file__).parents[2] / "notebooks"
PARALLEL = 2  # notebooks that run at a time, one thread each
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)
TABLE = '<table border="1" class="dataframe">'  # of pandas; the site has its own style


def write() -> None:
    """Run all notebooks and add their pages and figures to the site.

    Raises:
        CellExecutionError: If a cell fails.
    """
    runner = _runner()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(PARALLEL) as pool:
        paths = pool.map(lambda name: runner.build(name, Path(folder)), runner.names())
        for path in paths:
            text, figures = page(path)
            with mkdocs_gen_files.open(f"notebooks/{path.stem}.md", "w") as file:
                file.write(text)
            for name, content in figures.items():
                with mkdocs_gen_files.open(f"notebooks/{name}", "wb") as file:
                    file.write(content)


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of a notebook with outputs, and its figures by name."""
    resources = {
        "unique_key": path.stem,
        "output_files_dir": f"{path.stem}_files",
    }
    text, resources = MarkdownExporter().from_filename(str(path), resources)
    text = STYLE.sub("", text).replace(TABLE, "<table>").replace("![png]", "![Output of the cell]")
    title, _, rest = text.lstrip().partition("\n")
    source = f"*Made from `notebooks/{path.stem}.py`; `make notebooks` writes it as .ipynb.*"
    return f"{title}\n\n{source}\n{rest}", resources["outputs"]


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_runner", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
