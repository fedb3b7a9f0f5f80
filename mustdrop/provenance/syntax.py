"""Python modules as syntax trees: which other modules one imports, and a hash of its code.

Comments, docstrings, blank lines and line breaks are no part of a syntax tree, so they change no
hash.
"""

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

DIGITS = 12


def module_file(module: str) -> Path | None:
    """Source file of a module; None if there is none. Imports nothing."""
    package, *names = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    if not names:
        return Path(spec.origin)
    if not spec.submodule_search_locations:
        return None
    path = Path(spec.origin).parent.joinpath(*names)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def imported_modules(roots: Iterable[str], aside: Collection[str] = ()) -> dict[str, Path]:
    """The roots and all modules of their packages that they import, directly or not.

    Imports inside functions count, too. Modules of other packages are not followed.

    Args:
        roots: Dotted names of modules. A root without a source file is left out.
        aside: Modules and packages that are left out, with all that only they import.

    Returns:
        Source file of each module, by its dotted name.
    """
    files: dict[str, Path] = {}
    waiting = [*roots]
    packages = {root.split(".")[0] for root in waiting}
    while waiting:
        module = waiting.pop()
        if module in files or module.split(".")[0] not in packages:
            continue
        if any(module == name or module.startswith(f"{name}.") for name in aside):
            continue
        file = module_file(module)
        if file is not None:
            files[module] = file
            waiting += _imports(file, module, *_state(file))
    return files


def syntax_hash(file: Path) -> str:
    """Twelve digits that stand for the code of a Python file, whatever its comments say.

    One process reads an unchanged file once.
    """
    return _hash(file, *_state(file))


def _state(file: Path) -> tuple[int, int, int]:
    """Times and size of a file; another state means that it may have other content."""
    state = file.stat()
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size


@lru_cache(maxsize=4096)
def _hash(file: Path, *state: int) -> str:
    digest = hashlib.sha256()
    for part in _parts(_without_docstrings(ast.parse(file.read_bytes()))):
        digest.update(part.encode(errors="surrogatepass"))
    return digest.hexdigest()[:DIGITS]


@lru_cache(maxsize=4096)
def _imports(file: Path, module: str, *state: int) -> tuple[str, ...]:
    """Dotted names that a module may import; some are functions or classes, not modules."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    parents, names = package.split("."), []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*start, node.module] if node.module else start)
            names += [source, *(f"{source}.{name.name}" for name in node.names)]
    return tuple(names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return tree


def _parts(node: object) -> Iterator[str]:
    """A syntax tree as text: names of nodes and their fields; empty fields are left out.

    Newer Pythons add fields, such as ``type_params``, which are empty in code that older ones read.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f" {name}="
                yield from _parts(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _parts(item)
            yield ","
        yield "]"
    else:
        yield repr(node)
