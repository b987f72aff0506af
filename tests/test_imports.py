"""Who may import whom: the contracts of `pyproject.toml`, and rules that they cannot express."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter import cli

import gpusched
from tests.waiting import PATIENCE_S

PACKAGE = Path(gpusched.__file__).parent
REPOSITORY = PACKAGE.parent
HEAVY = ("lightgbm", "numpy", "pandas", "talib", "scipy", "sklearn")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, also within functions; `from a import b` is `a`."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield node.module or ""


def importers(module: str) -> set[str]:
    """The files of the package that import a module."""
    named = [path for path in PACKAGE.rglob("*.py") if module in path.read_text()]  # most need not be parsed
    return {
        str(path.relative_to(PACKAGE))
        for path in named
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_the_contracts_are_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(REPOSITORY)
    code = cli.lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), no_cache=True)
    said = capsys.readouterr().out
    assert code == cli.EXIT_STATUS_SUCCESS, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("module", "owners"),
    [
        ("pynvml", {"devices/nvidia/binding.py"}),
        ("sqlite3", {"store/database.py", "store/opening.py", "store/sqlite_errors.py"}),
        ("subprocess", {"programs.py"}),
        ("ray", {"engines/ray/bridge.py"}),
        (
            "gpusched.core.books",
            {"core/scheduler.py", "core/attempts.py", "core/devices.py", "core/requests.py"},
        ),
    ],
)
def test_what_has_one_owner(module: str, owners: set[str]) -> None:
    """Not only that nobody else imports it, which the contracts say, but that the owner still does."""
    assert importers(module) == owners


#: functions that start a process, or replace this one by another program
_STARTERS = re.compile(
    r"(os|pty)\.(fork|forkpty|system|popen|posix_spawnp?|spawn[lv]?p?e?|exec[lv]p?e?)"
    r"|subprocess\..*|multiprocessing\..*|(anyio|asyncio)\.(open_process|run_process|create_subprocess_(exec|shell))"
)


def used(path: Path) -> Iterator[str]:
    """The functions of modules that a file uses, as `module.function`, also if it imports them by their names."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_one_module_starts_programs_and_windows_fork() -> None:
    """By what is called, not by what is imported: os and anyio can start processes, too.

    The other two run beyond the daemon: a launcher forks windows, and a window may start the program that it is for.
    """
    starting = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(_STARTERS.fullmatch(name) for name in used(path))
    }
    assert starting == {"programs.py", "worker/launcher.py", "command/process.py"}


def test_one_room_calls_nvml() -> None:
    """By what is called: whoever got hold of the library by another way would show."""
    calling = {
        path.relative_to(PACKAGE).parent.as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(name.partition(".")[2].startswith(("nvml", "_nvml", "NVML")) for name in used(path))
    }
    assert calling == {"devices/nvidia"}


def test_client_and_service_never_meet() -> None:
    for one, other in (("client", "service"), ("service", "client")):
        assert {name for name in importers(f"gpusched.{other}") if name.startswith(f"{one}/")} == set()


def test_the_core_needs_nothing() -> None:
    """The standard library and msgspec; the contracts say which parts of the former are too much."""
    allowed = (*sys.stdlib_module_names, "msgspec", "gpusched.core", "gpusched.errors")
    for path in [*(PACKAGE / "core").rglob("*.py"), PACKAGE / "errors.py"]:
        foreign = [name for name in imports(path) if not name.startswith(tuple(f"{root}." for root in allowed))]
        assert [name for name in foreign if name not in allowed] == [], path


def test_the_core_opens_no_file_and_asks_no_clock() -> None:
    """Builtins and methods are imported by nobody."""
    for path in (PACKAGE / "core").rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                assert name not in {"open", "input", "now", "today", "utcnow", "__import__"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "module",
    [
        "gpusched",
        "gpusched.service.main",
        "gpusched.client.connection",
        "gpusched.cli.commands.queries",
        "gpusched.runs.run",
        "gpusched.cli.commands.doctor",
    ],
)
def test_what_starts_often_is_light(module: str) -> None:
    done = run("-c", f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert module in done.stdout.split()
    assert sorted(set(HEAVY) & set(done.stdout.split())) == []


def test_a_client_is_lighter_than_a_daemon() -> None:
    """A command of a quarter of a second has no time for an event loop, a database or a user interface."""
    done = run("-c", "import sys, gpusched.client.connection; print(*sys.modules)")
    assert sorted({"anyio", "asyncio", "sqlite3", "pynvml", "rich"} & set(done.stdout.split())) == []


def test_a_run_for_a_program_draws_nothing() -> None:
    """`run --json` submits its batch a seventh sooner without rich."""
    done = run("-c", "import sys, gpusched.cli.commands.batches, gpusched.cli.onlooker; print(*sys.modules)")
    assert "gpusched.runs.run" in done.stdout.split(), done.stderr
    assert sorted({"pynvml", "rich", "textual"} & set(done.stdout.split())) == []


@pytest.mark.parametrize("module", ["gpusched.teacher.trial", "gpusched.cli.commands.trial"])
def test_a_trial_is_lighter_than_a_window(module: str) -> None:
    """It hides pandas from LightGBM; TA-Lib, which a trial does not need, would have imported it before."""
    done = run("-c", f"import sys, {module}; print(*sys.modules)")
    assert module in done.stdout.split(), done.stderr
    assert sorted(set(HEAVY) & set(done.stdout.split())) == []


@pytest.mark.thorough
def test_every_module_can_be_imported_first() -> None:
    """No module needs another to have been imported before it."""
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for folder, files in (("core", "*.py"), ("client", "**/*.py"), ("cli/commands", "*.py"), ("", "*.py"))
        for path in (PACKAGE / folder).glob(files)
        if path.stem not in ("__init__", "__main__")
    ]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [one for one in sys.modules if one.split('.')[0] == 'gpusched']: del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    done = run("-c", program, *modules)
    assert done.returncode == 0, done.stderr
