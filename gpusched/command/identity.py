"""The identity of a command's result: a digest of all that gpusched can see of what determines it.

That is the command, the program, the files that its arguments name, the modules beside a Python script that it imports,
and, below a given data root, the names, sizes and times of the symbol's files. What a program reads elsewhere is not
seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gpusched.command.lookup import script_path
from gpusched.command.schema import Settings
from gpusched.core.entry import Entry
from gpusched.worker.code import read_code
from gpusched.worker.identity import digest, listing
from gpusched.workload import BadParameters, DateRange

VERSION = 1
#: larger files count by their size and time
MOST_BYTES = 16 << 20


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
        real = script.resolve()
        neighbours = read_code(Entry(module=real.stem, function="", directory=str(real.parent)))
        files[str(script)] = neighbours.digest or _stamp(script)
    return files


def fingerprints(
    settings: Settings, code: dict[str, str], symbol: str, windows: Iterable[DateRange], data_root: str
) -> list[str]:
    """The fingerprint of each window."""
    data = list(listing(data_root, symbol)) if data_root else []
    common = [VERSION, msgspec.to_builtins(settings), code, symbol, data]
    return [digest([*common, window.start, window.end]) for window in windows]


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
