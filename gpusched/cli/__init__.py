"""The command line: the arguments select one function, and every error becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TextIO

from gpusched.cli.parser import parse
from gpusched.cli.telling import tell
from gpusched.cli.usage import WrongUsage
from gpusched.errors import INTERRUPTED, GpuschedError, InputError
from gpusched.streams import expendable, is_gone


class DiskFull(InputError):
    problem = "{why}"
    remedy = "make room where it writes (`df -h`, `quota`), then run the command again"


class NotPermitted(InputError):
    problem = "{why}"
    remedy = "name a place that this user may use, or have its owner open it: `ls -ld` shows who may"


class NoWorkingDirectory(InputError):
    problem = "the working directory of this shell was removed"
    remedy = "go to another one (`cd`), then run the command again"


class ModuleHidden(InputError):
    problem = "{path} hides Python's own module {name}: {why}"
    remedy = "rename it, or leave its directory out of PYTHONPATH"


#: exit code of a bug in gpusched (EX_SOFTWARE of sysexits.h)
INTERNAL_ERROR = 70
BUG = "this is a bug: run the command again with --debug and report its output"


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line and return its exit code. No traceback reaches the user without --debug."""
    _spell_out(sys.stdout)
    try:
        # A lost stderr must not end a command: its answer goes to stdout.
        with expendable("stderr"):
            return _run(arguments)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _settle(stream)


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    try:
        try:
            options = parse(arguments)
        except SystemExit:
            sys.stdout.flush()  # argparse prints the help and drops the error if that fails
            raise
        module, _, name = options.handler.partition(":")
        code = getattr(import_module(f"gpusched.cli.{module}"), name)(options)
        sys.stdout.flush()
    except GpuschedError as error:
        if debug:
            raise
        return _fail(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 0  # the reader of our output has closed the pipe, as `head` does
    except Exception as error:
        if debug:
            raise
        if isinstance(error, FileNotFoundError) and _working_directory_is_gone():
            return _fail(NoWorkingDirectory())
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(DiskFull(place=error.filename, why=error.strerror))
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS) and error.filename:
            return _fail(NotPermitted(place=error.filename, why=error.strerror))
        if isinstance(error, OSError) and error.errno == errno.EIO and is_gone(sys.stdout):
            return 0  # its terminal has hung up, which is told like this where SIGHUP is ignored
        if (hiding := _hiding_module(str(error))) is not None:
            return _fail(ModuleHidden(name=hiding[0], path=hiding[1], why=error))
        tell("error", f"internal error: {type(error).__name__}: {error}", BUG)
        return INTERNAL_ERROR
    return int(code)


def _hiding_module(said: str) -> tuple[str, str] | None:
    """The name and the file of a module that an error names, if it is in the place of one of Python's."""
    library = f"{Path(os.__file__).parent}/"
    for name in sys.stdlib_module_names & sys.modules.keys():
        file = getattr(sys.modules[name], "__file__", None)
        if f"'{name}'" in said and isinstance(file, str) and not file.startswith((library, f"{sys.base_prefix}/")):
            return name, file
    return None


def _working_directory_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _spell_out(stream: TextIO) -> None:
    """Have letters that the encoding of `stream` lacks written as `\\u2013`, as stderr does, in place of an error."""
    if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
        stream.reconfigure(errors="backslashreplace")


def _settle(stream: TextIO | None) -> None:
    """Flush `stream`, or discard the text that it could not write.

    The interpreter flushes once more while it exits, and a failure there replaces the exit code by 120.
    """
    if stream is None:  # it was closed when the process began
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(error: GpuschedError) -> int:
    """Tell an error, and return its exit code."""
    tell("error", error.sentence, error.hint, usage=error.usage if isinstance(error, WrongUsage) else "")
    return error.exit_code
