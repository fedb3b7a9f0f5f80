"""One word for one thing: class names are unique, and names say what they hold."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("mustdrop", "experiments", "analysis", "hydra_plugins", "notebooks", "docs")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# Words that say nothing about the value that they name.
EMPTY = {
    "told", "asked", "said", "came", "beside", "found", "own", "each", "place", "whoever",
    "meanwhile", "what", "one",
}  # fmt: skip
# Names with these words that other packages define, or that are the words of an interface.
ALLOWED = {"one_of", "one_hot", "Place", "places"}


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """All names that a file defines: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_name_is_made_of_an_empty_word(path):
    empty = [
        f"line {line}: {name}"
        for name, line in names(ast.parse(path.read_text(encoding="utf-8")))
        if name not in ALLOWED and EMPTY & {*name.lower().strip("_").split("_")}
    ]
    assert not empty, empty


def test_a_class_name_stands_for_one_class():
    homes = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_the_words_are_looked_for():
    """Negative control: a file with such names has them."""
    tree = ast.parse("def told(place):\n    asked_for = place\n    found, good_name = 1, 2\n")
    empty = {name for name, _ in names(tree) if EMPTY & {*name.split("_")}}
    assert empty == {"told", "place", "asked_for", "found"}
