"""Which files of this package a script stands on, told from its text: a cheap step is made anew when one changes.

Standard library only: the workflow asks while it plans.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Files beside the modules that these read.
DATA = (".css", ".jinja", ".js", ".json", ".txt")
# Conditions that are true for a checker of types alone.
FOR_TYPES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@functools.cache
def closure(script: Path, root: Path) -> tuple[Path, ...]:
    """The script, every module of the packages in `root` that importing runs or may run, and the data beside these.

    Imports inside functions count, and so does a package's own `__init__.py`, which runs before its modules. What is
    not in `root`, such as another package, is left out, and so is what is imported by a name made while running or for
    a checker of types alone.

    Args:
        script: a Python file, anywhere.
        root: the folder that holds the packages.
    """
    found = modules(script, root)
    data = {file for folder in {path.parent for path in found - {script}} for file in _data(folder)}
    return tuple(sorted(found | data))


def modules(script: Path, root: Path, counts: Callable[[Path], bool] = lambda path: True) -> set[Path]:
    """The Python files alone, of those that count; what is imported by one that does not is not looked for."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += filter(counts, _imported(path, root))
    return found


def binds(path: Path, name: str) -> bool:
    """Whether a module gives a value to a name, or imports it, anywhere but in a function or class.

    Raises:
        SyntaxError, ValueError: if it is no Python.
    """
    body = ast.parse(path.read_bytes(), str(path)).body
    bound: set[str] = set()
    for node in _statements([one for one in body if not isinstance(one, DEFINITIONS)]):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    return name in bound


@functools.cache
def _imported(path: Path, root: Path) -> frozenset[Path]:
    """The files of the modules that a file names in its import statements, with those of the packages around them."""
    found: set[Path] = set()
    for name in _names(_statements(ast.parse(path.read_bytes()).body), path, root):
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:length])
            # a name that is no module is what is taken from one
            found |= {file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()}
    return frozenset(found)


def _names(statements: Iterable[ast.AST], path: Path, root: Path) -> Iterator[str]:
    """Dotted names of all that may be a module."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = path.relative_to(root).parts[: -node.level] if node.level else ()
            module = ".".join([*around, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Every statement that may run, at whatever depth; expressions, which are most of a file, hold no import."""
    for node in body:
        yield node
        never = isinstance(node, ast.If) and ast.unparse(node.test) in FOR_TYPES
        for inside in ("orelse",) if never else ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, inside, ()))


def _data(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.suffix in DATA and file.is_file())
