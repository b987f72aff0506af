"""The identity of a command's result: a digest of everything that determines the result and that gpusched can see.

That is the command, the program, the files that its words name, the modules that Python scripts among them import from
their own directories, and, below a given data root, the names, sizes and times of the symbol's files. Other files that
the program reads are not seen.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gpusched.command import placeholders
from gpusched.command.lookup import python_runs
from gpusched.command.schema import Settings
from gpusched.core.entry_point import EntryPoint
from gpusched.worker.code import read_code, script_digest
from gpusched.worker.identity import digest, listing
from gpusched.workload import BadParameters, DateRange

VERSION = 1
#: larger files count by their size and time
MOST_BYTES = 16 << 20
#: placeholders whose values a survey knows
_DATES = frozenset(("start", "end"))
_OF_WINDOW = _DATES | {"symbol", "data_root"}
#: characters between the words of a line for a shell; of the files that these name only programs and scripts count,
#: since the program itself changes others, as in `>> calls.log`
_BETWEEN = re.compile(r"[\s;&|<>()'\"`]+")
_SCRIPTS = (".py", ".sh", ".bash", ".r", ".jl", ".pl", ".rb", ".js", ".lua")


class _Unknown:
    """The value of a placeholder that is not known: no file has it in its name."""

    def __format__(self, spec: str) -> str:
        return "\0"


class _Known(dict[str, Any]):
    """The values of placeholders that are known; any other is unknown."""

    def __missing__(self, name: str) -> _Unknown:
        return _Unknown()


def code(settings: Settings) -> dict[str, str]:
    """The program, every file that the command names whatever the window, and the modules that it runs, by name.

    Raises BadParameters if the program cannot be found any more.
    """
    try:
        return dict(sorted(_code(settings).items()))
    except (FileNotFoundError, PermissionError) as error:
        raise BadParameters(f"{error.filename} cannot be read: {error.strerror}") from None


def fingerprints(
    settings: Settings, code: dict[str, str], symbol: str, windows: Iterable[DateRange], data_root: str
) -> list[str]:
    """The fingerprint of each window."""
    data = list(listing(data_root, symbol)) if data_root else []
    values = _of_point(settings) | {"symbol": symbol, "data_root": data_root}
    words = [word for word in settings.argv[1:] if "{" in word and placeholders.used((word,)) & _OF_WINDOW]
    dated = [word for word in words if placeholders.used((word,)) & _DATES]
    common = [VERSION, msgspec.to_builtins(settings), code, symbol, data]
    of_symbol = [*_files_of_window(settings, [word for word in words if word not in dated], values)]
    return [
        digest([*common, window.start, window.end, *of_symbol, *_files_of_window(settings, dated, values, window)])
        for window in windows
    ]


def _code(settings: Settings) -> dict[str, str]:
    program = Path(settings.argv[0])
    words = [_filled(word, _of_point(settings)) for word in settings.argv[1:]]
    files, scripts = {str(program): _program_stamp(program)}, {program} if _is_python(program) else set()
    lines = ([settings.argv[0], *words], *(_BETWEEN.split(word) for word in words if _BETWEEN.search(word)))
    for module, script in (run for line in lines for run in python_runs(line)):
        if module is not None:
            source = read_code(EntryPoint(module=f"{module}.__main__", function="", directory=settings.directory))
            if source.digest is not None:
                files[f"-m {module}"] = source.digest
        elif script is not None and (found := _source(Path(settings.directory, script))) is not None:
            scripts.add(found)
    for path in scripts.union(_named(settings, words)):
        is_script = path in scripts or _is_python(path)
        files[str(path)] = script_digest(path.resolve()) if is_script else _stamp(path)
    return files


def _files_of_window(
    settings: Settings, words: Iterable[str], values: dict[str, Any], window: DateRange | None = None
) -> Iterator[tuple[str, str]]:
    """The files that words name for this window alone, such as `conf/{symbol}.json`: like data, by size and time."""
    if window is not None:
        values = values | {"start": window.start, "end": window.end}
    for word in words:
        for path in _named(settings, [_filled(word, values)]):
            yield word, _size_and_time(path)


def _of_point(settings: Settings) -> dict[str, Any]:
    return {f"{placeholders.PARAMETER}{name}": value for name, value in settings.param.items()}


def _filled(word: str, values: Mapping[str, Any]) -> str:
    """A word with the values that are known."""
    return placeholders.fill((word,), _Known(values))[0]


def _named(settings: Settings, words: Iterable[str]) -> Iterator[Path]:
    """The files that words name; of a line for a shell, the programs and scripts."""
    for word in words:
        for text in (word, word.partition("=")[2]):
            if text and _is_file(path := f"{settings.directory}/{text}" if text[0] != "/" else text):
                yield Path(path)
        if len(pieces := _BETWEEN.split(word)) > 1:
            yield from filter(_is_program, (Path(settings.directory, text) for text in dict.fromkeys(pieces) if text))


def _is_program(path: Path) -> bool:
    return _is_file(path) and (path.suffix.lower() in _SCRIPTS or os.access(path, os.X_OK))


def _source(path: Path) -> Path | None:
    """The file that Python runs for a path: of a directory, its `__main__.py`."""
    return next(filter(_is_file, (path, path / "__main__.py")), None)


def _is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # a word may be anything: too long, or of a place that is closed to us


def _is_python(path: Path) -> bool:
    if path.suffix == ".py":
        return True
    with path.open("rb") as file:
        line = file.readline(256)
    return line.startswith(b"#!") and b"python" in line


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
