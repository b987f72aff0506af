"""Run a Python script in the window's own process, with modules that are already imported, as the interpreter would.

The exit code, `sys.argv`, `__main__`, `sys.path[0]`, the working directory, tracebacks, `atexit` and threads are as a
fresh interpreter has them. What differs: the modules that were preloaded, the environment variables that they read when
they were imported, and that `os._exit` ends the window without a result. A second fork would mend that, and double the
price of a window.
"""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import random
import runpy
import signal
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from gpusched.command.process import MAX_RESULT_BYTES, RESULT_VARIABLE, Ended, end_children
from gpusched.leaving import exit_code, wind_up
from gpusched.worker import linux

#: exit codes of the interpreter: after Ctrl-C, and if the last output could not be written
_INTERRUPTED, _UNWRITTEN = 130, 120
#: the files of a traceback's frames that a user did not write
_MACHINERY = (__file__, runpy.__file__, "<frozen runpy>")


def run(argv: list[str], directory: str, module: str | None, index: int) -> Ended:
    """Run the script `argv[index]`, or the module of that name, in `directory`. Only for a window's own process."""
    leader = os.getpid()
    linux.adopt_orphans()
    report = os.memfd_create("report", 0)  # inherited by its children, too
    os.environ[RESULT_VARIABLE] = str(report)
    signals = _watch_signals()
    os.chdir(directory)
    code = _exit_code(argv, module, index)
    if os.getpid() != leader:
        os._exit(code)  # a fork of the script that came to its end
    signal.setitimer(signal.ITIMER_REAL, 0)
    end_children()
    text = os.pread(report, MAX_RESULT_BYTES + 1, 0)
    return Ended(exit_code=code, signal=None, report=text, stopped=signal.SIGTERM in _arrived(signals))


def _exit_code(argv: list[str], module: str | None, index: int) -> int:
    launcher = sys.modules["__main__"]
    _renew()
    sys.argv = argv[index:]
    sys.path[:0] = [str(Path.cwd() if module else Path(argv[index]).resolve().parent)]
    try:
        if module is not None:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            _run_script(argv[index])
        code = 0
    except SystemExit as stop:
        code = exit_code(stop)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BaseException as error:
        own = _own_frames(error.__traceback__)
        try:
            sys.excepthook(type(error), error.with_traceback(own), own)
        except BaseException as fault:  # of a hook of the script's own
            for each in (fault.with_traceback(_own_frames(fault.__traceback__)), error):
                sys.__excepthook__(type(each), each, each.__traceback__)
        code = 1
    return _left(code, launcher)


def _run_script(script: str) -> None:
    """Run a file as `__main__`, which has its absolute path, whatever becomes of the working directory, and which stays
    there for threads and exit handlers; or what Python runs of a directory or an archive.
    """
    path = os.path.abspath(script)  # noqa: PTH100  # links are kept, and `..` is not
    if pkgutil.get_importer(path) is not None:
        runpy.run_path(script, run_name="__main__")
        return
    with io.open_code(path) as file:
        code = pkgutil.read_code(file)  # it is compiled already
    if code is None:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    main = ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(main).update(__file__=path, __cached__=None, __loader__=loader, __builtins__=builtins)
    sys.modules["__main__"] = main
    exec(code, vars(main))  # noqa: S102  # it is what the user asked for


def _watch_signals() -> int:
    """A descriptor that tells which signals have arrived, whatever handlers the script puts in the place of ours."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _arrived(signals: int) -> bytes:
    try:
        return os.read(signals, 4096)
    except BlockingIOError:
        return b""


def _renew() -> None:
    """Undo what a fork of a launcher inherits: the handling of SIGINT, and the states of random generators."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    if (numbers := sys.modules.get("numpy.random")) is not None:
        numbers.seed()


def _left(code: int, launcher: ModuleType) -> int:
    """End as the interpreter does: wait for threads, call `atexit`, clear `__main__`, write the last output.

    `launcher`: the `__main__` before the script's, which goes on.
    """
    try:
        wind_up()
    except BaseException:
        traceback.print_exc()
    if (main := sys.modules.get("__main__", launcher)) is not launcher:
        for name in vars(main).keys() - {"__builtins__"}:
            vars(main)[name] = None  # a file that the script has not closed is closed, and so written
    for file in (sys.stdout, sys.stderr):
        if file is None or file.closed:  # by the script
            continue
        try:
            file.flush()
        except (OSError, ValueError):
            code = code or _UNWRITTEN
    return code


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the script's first frame on; None if it has none, as that of a syntax error."""
    while trace is not None and trace.tb_frame.f_code.co_filename in _MACHINERY:
        trace = trace.tb_next
    return trace
