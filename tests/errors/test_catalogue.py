"""Everything that gpusched says instead of a traceback, as templates: `catalogue.txt`. A missing file is written."""

from __future__ import annotations

import ast
import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import gpusched
from gpusched import errors
from gpusched.errors import GpuschedError

GOLDEN = Path(__file__).with_name("catalogue.txt")
PACKAGE = Path(gpusched.__file__).parent
#: exit codes that an error may have
CONTRACT = {errors.TOO_MANY_FAILURES, errors.USAGE, errors.NO_DAEMON, errors.BAD_INPUT, errors.NOTHING_TO_TRAIN}


def catalogue() -> dict[str, type[GpuschedError]]:
    """Every class of the package by its name, in the order of the alphabet."""
    for module in pkgutil.walk_packages(gpusched.__path__, "gpusched."):
        if module.name != "gpusched.__main__":
            importlib.import_module(module.name)
    found: dict[str, type[GpuschedError]] = {}
    waiting: list[type[GpuschedError]] = [GpuschedError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.split(".")[0] == "gpusched":
            assert found.setdefault(kind.__name__, kind) is kind, f"two errors are called {kind.__name__}"
    return dict(sorted(found.items()))


ERRORS = catalogue()
#: errors without words of their own: groups, and a daemon's errors in a client's process
GROUPS = {name for name, kind in ERRORS.items() if kind.problem == GpuschedError.problem}
every_error = pytest.mark.parametrize("name", sorted(set(ERRORS) - GROUPS))


def fields(template: str) -> set[str]:
    """The fields of a template."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_the_catalogue_is_as_it_was_read() -> None:
    shown = "".join(
        f"{name}: {ERRORS[name].__base__.__name__}, exit code {ERRORS[name].exit_code}\n"  # type: ignore[union-attr]
        f"  {ERRORS[name].problem}\n  {ERRORS[name].remedy}\n\n"
        for name in sorted(set(ERRORS) - GROUPS)
    )
    if not GOLDEN.exists():
        GOLDEN.write_text(shown)
        pytest.fail(f"{GOLDEN} was not there; read what has been written to it")
    assert shown == GOLDEN.read_text(), f"read the new texts, then remove {GOLDEN.name} to have it written anew"


def test_groups_are_those_of_the_catalogue_itself() -> None:
    assert {ERRORS[name].__module__ for name in GROUPS} == {"gpusched.errors"}
    assert all(ERRORS[name].remedy == GpuschedError.remedy for name in GROUPS)


@every_error
def test_each_says_what_is_wrong_what_to_do_and_how_it_ends(name: str) -> None:
    kind = ERRORS[name]
    assert kind.problem.strip()
    assert kind.remedy.strip()
    assert kind.remedy != GpuschedError.remedy
    assert "\n" not in kind.remedy
    assert not kind.problem.endswith(".")
    assert not kind.remedy.endswith(".")
    assert kind.exit_code in CONTRACT


@every_error
def test_each_can_be_said(name: str) -> None:
    """Whatever is filled in, braces too."""
    kind = ERRORS[name]
    details = {field: f"<{field} {{x}}>" for field in fields(kind.problem) | fields(kind.remedy)}
    # Some have arguments of their own, which are not said.
    error = kind.__new__(kind)
    GpuschedError.__init__(error, place="here:3", **details)
    problem, _, remedy = str(error).partition("\n  ")
    assert problem.startswith("here:3: ")
    assert remedy
    assert all(value in str(error) for value in details.values())
    copied = pickle.loads(pickle.dumps(error))  # as from a process of a pool, which it broke
    assert (type(copied), str(copied), copied.hint, vars(copied)) == (kind, str(error), error.hint, vars(error))


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """`file:line`, class and keywords of every error that the package makes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords):
                    given = {keyword.arg for keyword in keywords}
                case ast.Raise(exc=ast.Name(id=name)):
                    given = set()
                case _:
                    continue
            if name in ERRORS and None not in given:
                yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}", name, {str(keyword) for keyword in given}


def test_each_gets_all_that_it_says() -> None:
    """A word that is missing would be a KeyError in the moment when a user needs the sentence."""
    calls = list(raised())
    missing = [
        f"{place}: {name} needs {', '.join(sorted(needed - given))}"
        for place, name, given in calls
        if (needed := fields(ERRORS[name].problem) | fields(ERRORS[name].remedy)) - given
    ]
    assert missing == []
    made = {name for _, name, _ in calls}
    assert set(ERRORS) - GROUPS - made == set(), "in the catalogue, but never raised"


def test_a_group_fills_in_the_words_of_the_other_side() -> None:
    error = errors.DaemonError(problem="it is {full}", remedy="wait")
    assert str(error) == "it is {full}\n  wait"
    assert error.exit_code == errors.NO_DAEMON
