"""The end of a process is that of the interpreter, but for the objects that nobody needs any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.leaving import exit_code

PROGRAM = """
import atexit, sys, threading
from gpusched.leaving import leave

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
go_on = threading.Event()
threading.Thread(target=lambda: (go_on.wait(), print("the thread is through"))).start()
atexit.register(print, "atexit")
print("printed")
go_on.set()
leave(3)
"""


def test_threads_are_awaited_and_exit_handlers_called_but_nothing_is_taken_apart() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert sorted(done.stdout.splitlines()) == ["atexit", "printed", "the thread is through"]
    assert not done.stderr


def test_a_stream_that_is_lost_does_not_change_the_exit_code() -> None:
    program = "import sys\nfrom gpusched.leaving import leave\nsys.stdout.write('late')\nleave(4)"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-E", "-c", program], check=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (4, b"")


def test_a_command_whose_package_is_removed_meanwhile_has_its_own_exit_code() -> None:
    """The package has no place any more from which anything could be imported, as after an uninstallation."""
    program = "import gpusched, gpusched.__main__ as it\nit._run = lambda: gpusched.__path__.clear() or 7\nit.main()"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="ctypes imports it")
def test_a_launcher_does_without_threading_whose_hooks_would_run_in_each_fork() -> None:
    program = "import sys, gpusched.worker.launcher; print('threading' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("code", [None, 3, -1, 256, 2**64, "a text"])
def test_the_exit_code_is_the_interpreters(code: object, capsys: pytest.CaptureFixture[str]) -> None:
    by_python = subprocess.run(
        [sys.executable, "-c", f"raise SystemExit({code!r})"], check=False, capture_output=True, text=True
    )
    assert exit_code(SystemExit(code)) == by_python.returncode
    said = by_python.stderr if isinstance(code, str) else ""  # of 2**64 some versions say that it is too large
    assert capsys.readouterr().err == said
