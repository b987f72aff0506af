"""The identity of a command's result: a digest of all that gpusched can see of what determines it.

That is the command, the program, the files that its arguments name, the modules beside a Python script that it imports,
and, below a given data root, the names, sizes and times of the symbol's files. What a program reads elsewhere is not
seen.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gpusched.command.lookup import script_path
from gpusched.command.schema import Settings
from gpusched.workload import BadParameters, DateRange

VERSION = 1
#: larger files count by their size and time
MOST_BYTES = 16 << 20

_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+(.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")


def code(settings: Settings) -> dict[str, str]:
    """The program, and every file that the command names or its Python script imports from beside it, by path.

    Raises BadParameters if the program cannot be found any more.
    """
    try:
        return dict(sorted(_code(settings).items()))
    except (FileNotFoundError, PermissionError) as error:
        raise BadParameters(f"{error.filename} cannot be read: {error.strerror}") from None


def _code(settings: Settings) -> dict[str, str]:
    program = Path(settings.argv[0])
    files = {str(program): _program_stamp(program)}
    for word in settings.argv[1:]:
        if "{" not in word:
            for text in {word, word.partition("=")[2]} - {""}:
                path = Path(settings.directory, text)
                if path.is_file():
                    files[str(path)] = _stamp(path)
    script = script_path(settings) or program
    if script.suffix == ".py":
        _add_imports(script.resolve(), files)
    return files


def fingerprints(
    settings: Settings, code: dict[str, str], symbol: str, windows: Iterable[DateRange], data_root: str
) -> list[str]:
    """The fingerprint of each window."""
    common = [VERSION, msgspec.to_builtins(settings), code, symbol, list(_listing(data_root, symbol))]
    return [_digest([*common, window.start, window.end]) for window in windows]


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _program_stamp(path: Path) -> str:
    """Of a script the content; an interpreter is too large to be read for every window."""
    with path.open("rb") as file:
        is_script = file.read(2) == b"#!"
    return _stamp(path) if is_script else _size_and_time(path)


def _stamp(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        return _size_and_time(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


def _add_imports(script: Path, files: dict[str, str]) -> None:
    """Add the modules that a script imports from its own directory, and those that they import."""
    waiting, seen = [script], {script}
    while waiting:
        text = waiting.pop().read_text(errors="replace")
        names = {name for line in _IMPORT.findall(text) for name in _NAME.findall(line)}
        for name in sorted(names):
            module, package = script.parent / f"{name}.py", script.parent / name
            for path in [module] if module.is_file() else sorted(package.rglob("*.py")) if package.is_dir() else []:
                if path not in seen:
                    seen.add(path)
                    waiting.append(path)
                    files[str(path)] = _stamp(path)


def _listing(data_root: str, symbol: str) -> Iterator[tuple[str, int, int]]:
    """The files of a symbol below a data root: `<SYMBOL>/**` and `<SYMBOL>.*`. Nothing without a data root."""
    if not data_root:
        return
    yield from _entries(data_root, [name for name in _names(data_root) if name.startswith(f"{symbol}.")])
    for directory, below, inside in os.walk(f"{data_root}/{symbol}"):
        below.sort()
        yield from _entries(directory, inside)


def _entries(directory: str, names: list[str]) -> Iterator[tuple[str, int, int]]:
    for name in sorted(names):
        path = f"{directory}/{name}"
        with contextlib.suppress(OSError):  # a broken link
            status = os.stat(path)  # noqa: PTH116  # hundreds of files for each window
            yield path, status.st_size, status.st_mtime_ns


@functools.cache
def _names(directory: str) -> list[str]:
    """The entries of a data root; read once in a process, which looks at many symbols and lives for a moment."""
    return [path.name for path in Path(directory).iterdir()]
