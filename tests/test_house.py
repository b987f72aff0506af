"""Rules of the house that no linter knows: sizes, no circle of files, each status named in one place, plain nouns,
and a source distribution that can be unpacked."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gpusched
from gpusched.core.statuses import STATUSES

PACKAGE = Path(gpusched.__file__).parent
REPOSITORY = PACKAGE.parent
#: lines that each may have
FILE_LINES, CLASS_LINES, FUNCTION_LINES = 400, 300, 60

#: files that may name several statuses in a row: the names themselves, the table of moves, the colours
NAMES_STATUSES = {"core/statuses.py", "core/lifecycle.py", "client/drawing/palette.py"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node. Expressions, ten times as many, are left out."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, name, ()):
            yield child
            yield from statements(child)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def too_long(path: Path) -> Iterator[str]:
    """The file, and its classes and functions, that have more lines than they may."""
    name = path.relative_to(REPOSITORY).as_posix()
    if path.read_text().count("\n") > FILE_LINES:
        yield name
    for node in statements(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            allowed = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            if node.end_lineno - node.lineno + 1 > allowed:
                yield f"{name} {node.name}"


@pytest.mark.parametrize(
    "folder",
    ["gpusched", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("benchmarks", "examples", "tests"))],
)
def test_nothing_is_too_long(folder: str) -> None:
    assert {name for path in sources(folder) for name in too_long(path)} == set()


# -- circles -----------------------------------------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sources("gpusched"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports anywhere, for types alone or within a function too."""
    found = set()
    for node in statements(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {
                name if (name := f"{node.module}.{alias.name}") in known else str(node.module) for alias in node.names
            }
    return found & known.keys()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other: strongly connected components of more than one (R. Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            groups.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return [group for group in groups if len(group) > 1]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_files() -> None:
    """Also not for types alone: two files that need each other's types are one, or miss a third."""
    known = modules()
    graph = {name: imported(path, known) - {name} for name, path in known.items()}
    # The front door names the public functions of inner modules, and imports none of them before it is used.
    graph["gpusched"] = set()
    assert circles(graph) == []


# -- names in one place ------------------------------------------------------------------------------------------------


def lists_of_statuses(path: Path) -> Iterator[str]:
    """The places where a file lists more than two statuses and nothing else: a group without a name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            if len(parts) > 2 and all(isinstance(part, ast.Constant) and part.value in STATUSES for part in parts):
                yield f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}"


def test_groups_of_statuses_are_named_once() -> None:
    files = [path for path in sources("gpusched") if path.relative_to(PACKAGE).as_posix() not in NAMES_STATUSES]
    assert [place for path in files for place in lists_of_statuses(path)] == []


# -- the source distribution -------------------------------------------------------------------------------------------


def test_the_source_distribution_can_be_unpacked_and_is_whole() -> None:
    """pip and `build` refuse an archive with a link to an absolute path, or out of it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    names = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    links = [path for name in names for path in (REPOSITORY / name).rglob("*") if path.is_symlink()]
    assert [path for path in links if not is_within(path.parent, path.readlink())] == []
    assert {"examples", "benchmarks", "docs", "tests"} <= set(names)


def is_within(directory: Path, target: Path) -> bool:
    """Whether a link in a directory of the repository leads to a place in it."""
    return not target.is_absolute() and REPOSITORY in (directory / target).resolve().parents


# -- language ----------------------------------------------------------------------------------------------------------


def prose(path: Path) -> Iterator[str]:
    """Comments and docstrings."""
    yield from re.findall(r"(?:^|\s)#:? (.*)$", path.read_text(), re.MULTILINE)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("folder", ["gpusched", pytest.param("tests", marks=pytest.mark.thorough), "benchmarks"])
def test_nouns_are_named(folder: str) -> None:
    """ "What is left of it" hides a noun: at most 3 in 1,000 words."""
    words = [
        word.lower() for path in sources(folder) for text in prose(path) for word in re.findall(r"[A-Za-z']+", text)
    ]
    assert words.count("what") <= 0.003 * len(words)
