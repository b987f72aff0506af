"""Where a command's program and script are found, before anything starts: by the client, then by the daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpusched.command.schema import ExitCodes, Settings, check
from gpusched.errors import InputError, similar
from gpusched.files import exists, is_file, is_text

_PYTHON = re.compile(r"(python|pypy)[\d.]*t?")
_INTERPRETERS = re.compile(r"(ba|da|z|k)?sh|perl|ruby|Rscript|julia|node|php|lua")
#: options of Python that take the next word as their value
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_PEEK_BYTES = 256
#: first words that mean something to a shell alone
_OF_SHELL = re.compile(
    r"[A-Za-z_]\w*=.*|~.*|\$.*|\(.*|\.|cd|eval|exec|export|for|if|set|source|ulimit|umask|while", re.DOTALL
)


class NoProgram(InputError):
    problem = "there is no program {name!r}{near}"
    remedy = "give its path, or put its directory on PATH"


class NoShell(InputError):
    problem = "there is no program {name!r}, and no shell for a command"
    remedy = "`sh -c '…'` is one, and `env NAME=VALUE program …` sets a variable"


class NotExecutable(InputError):
    problem = "{path} cannot be executed: {why}"
    remedy = "{first}"


class NoScript(InputError):
    problem = "there is no script {path}"
    remedy = "give its path from {directory}, where the command runs, or an absolute one"


class NotPreloadable(InputError):
    problem = "command.preload runs a Python script in a fork of gpusched, and {why}"
    remedy = "leave command.preload out, or give the command as `python script.py …` or `python -m module …`"


class ProgramUnusable(InputError):
    problem = "the daemon cannot use {path}: {cause}"
    remedy = "it runs as user {user}: put the program where this user may reach it"


def found(argv: tuple[str, ...], codes: ExitCodes, preload: tuple[str, ...], directory: Path, path: str) -> Settings:
    """A command with its program looked up: by `path`, the value of PATH, or from `directory`, where it will run.

    Raises NoProgram, NoShell, NotExecutable, NoScript, NotPreloadable; BadParameters for words or codes that cannot be
    used.
    """
    check(argv, codes)
    if preload and argv[0].endswith(".py"):
        argv = ("python3", *argv)
    program = _program(argv[0], directory, path)
    for place in (program, directory):
        if not is_text(str(place)):
            raise NotExecutable(path=place, why="its path is not UTF-8 text", first="rename it, or use a link to it")
    settings = Settings(argv=(str(program), *argv[1:]), directory=str(directory), exit_codes=codes, preload=preload)
    script = script_path(settings)
    if script is not None and not _is_file(script) and not _is_file(script / "__main__.py"):
        raise NoScript(path=script, directory=directory)
    if preload:
        entry(settings)
    return settings


def check_here(settings: Settings, user: str) -> None:
    """Raise ProgramUnusable unless this process may use the program, the script and the directory of a command."""
    script = script_path(settings)
    for path, wanted in ((settings.directory, os.X_OK), (settings.argv[0], os.X_OK), (script, os.R_OK)):
        if path is not None and not os.access(path, wanted):
            code = errno.EACCES if os.path.lexists(path) else errno.ENOENT
            raise ProgramUnusable(path=path, cause=os.strerror(code), user=user)


def script_path(settings: Settings) -> Path | None:
    """The script that the program interprets; None if it interprets none, or which one depends on the window."""
    index = _script_index(settings.argv)
    return None if index is None else Path(settings.directory, settings.argv[index])


def name(settings: Settings) -> str:
    """A short name of the command: that of its script or program."""
    return (script_path(settings) or Path(settings.argv[0])).name


def is_python(settings: Settings) -> bool:
    """Whether the command runs Python code."""
    return name(settings).endswith(".py") or _PYTHON.fullmatch(Path(settings.argv[0]).name) is not None


def entry(settings: Settings) -> tuple[str | None, int]:
    """The module of `python -m module`, or None for a script; and the index of that word. Raises NotPreloadable."""
    argv = settings.argv
    if not _PYTHON.fullmatch(Path(argv[0]).name):
        raise NotPreloadable(why=f"{argv[0]} is not Python")
    index = 2 if argv[1:2] == ("-u",) else 1
    if argv[index : index + 1] == ("-m",) and len(argv) > index + 1:
        return argv[index + 1], index + 1
    if len(argv) <= index or argv[index].startswith("-") or "{" in argv[index]:
        raise NotPreloadable(why=f"there is no script right behind {Path(argv[0]).name}")
    return None, index


def python_runs(words: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """What the Pythons among the words of a command run: a module (`-m`) or a script, as `env python train.py` does."""
    for place, word in enumerate(words):
        if _PYTHON.fullmatch(Path(word).name):
            module, script = _run_by_python(words, place + 1)
            yield module, None if script is None else words[script]


def _run_by_python(words: Sequence[str], index: int) -> tuple[str | None, int | None]:
    """What a Python runs, whose arguments begin at `index`: a module, or the script at a place; neither for `-c`."""
    while index < len(words) and words[index].startswith("-"):
        option = words[index]
        if module := re.match(r"-[A-Za-z]*m(.*)", option):
            return module[1] or next(iter(words[index + 1 :]), None), None
        if option == "-" or re.match(r"-[A-Za-z]*c", option):
            return None, None
        index += 2 if option in _WITH_VALUE else 1
    return None, index if index < len(words) else None


def _program(word: str, directory: Path, path: str) -> Path:
    """The absolute path of a program. Links are kept: an interpreter finds its packages by the path that it has."""
    if "/" not in word:
        if (there := shutil.which(word, path=path)) is not None:
            return _executable(directory / there)
        if _OF_SHELL.fullmatch(word):
            raise NoShell(name=word)
        if is_file(directory / word):
            raise NoProgram(name=word, near=f" on PATH; did you mean ./{word}?")
        near = similar(word, _names_on(path))
        raise NoProgram(name=word, near=f" on PATH; did you mean {near[0]}?" if near else " on PATH")
    program = Path(os.path.normpath(directory / word))
    if not _is_file(program) and not exists(program):
        raise NoShell(name=word) if _OF_SHELL.fullmatch(word) else NoProgram(name=word, near="")
    return _executable(program)


def _is_file(path: Path) -> bool:
    """Raises NotExecutable where it may not be looked for."""
    try:
        return is_file(path)
    except PermissionError as error:
        raise NotExecutable(path=path, why=error.strerror, first="name one that this user may read") from None


def _executable(path: Path) -> Path:
    quoted = shlex.quote(str(path))
    before = f"put an interpreter before it, such as `python {quoted} …`"
    if not is_file(path):
        raise NotExecutable(path=path, why="it is not a file", first="name the program itself")
    if not os.access(path, os.X_OK):
        raise NotExecutable(path=path, why="it lacks the permission", first=f"`chmod +x {quoted}`, or {before}")
    try:
        with path.open("rb") as file:
            head = file.read(_PEEK_BYTES)
    except OSError:
        return path  # it may be executed, but not read
    if head.startswith(b"#!"):
        line = head[2:].partition(b"\n")[0].decode(errors="replace").strip(" ")
        interpreter = line.partition(" ")[0]
        if line.endswith("\r"):
            why = "its first line ends with a carriage return, as on Windows"
            raise NotExecutable(path=path, why=why, first=f"convert its line ends: `sed -i 's/\\r$//' {quoted}`")
        if not exists(Path(interpreter)):
            why = f"its first line names {interpreter!r}, which does not exist"
            raise NotExecutable(path=path, why=why, first=f"mend that line, or {before}")
    elif b"\0" not in head:
        why = "it is a text whose first line names no interpreter, as #!/bin/sh does"
        raise NotExecutable(path=path, why=why, first=f"add that line, or {before}")
    return path


def _script_index(argv: Sequence[str]) -> int | None:
    program = Path(argv[0]).name
    index: int | None = None
    if _PYTHON.fullmatch(program):
        _, index = _run_by_python(argv, 1)
    elif _INTERPRETERS.fullmatch(program) and len(argv) > 1:
        index = 1
    return None if index is None or argv[index].startswith("-") or "{" in argv[index] else index


def _names_on(path: str) -> set[str]:
    names: set[str] = set()
    for directory in path.split(os.pathsep):
        with contextlib.suppress(OSError):
            names.update(entry.name for entry in Path(directory or ".").iterdir())
    return names
