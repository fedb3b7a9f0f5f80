"""Print the first docstring line of every module, class and function, or of COUNT random ones.

Usage: python tests/helpers/first_lines.py [COUNT]. A reader who has never seen the project should
understand each of them.
"""

import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("mustdrop", "experiments", "analysis", "hydra_plugins")


def first_lines() -> Iterator[str]:
    """One line per docstring: file, name and the first line."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(
                    node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                ) and (text := ast.get_docstring(node)):
                    name = getattr(node, "name", "")
                    yield f"{path.relative_to(ROOT)} {name}: {text.splitlines()[0]}"


if __name__ == "__main__":
    lines = list(first_lines())
    if len(sys.argv) > 1:
        lines = random.Random(0).sample(lines, int(sys.argv[1]))
    print("\n".join(lines))
