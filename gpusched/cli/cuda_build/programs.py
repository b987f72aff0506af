"""Programs that the command line runs: compilers, pip. Their output goes to a log."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpusched import programs

#: seconds from SIGTERM to SIGKILL
GRACE_S = 5.0


class ProgramFailed(Exception):
    """A program ended with an error; `output` is its stdout and stderr."""

    def __init__(self, how: str, output: str) -> None:
        self.output = output
        super().__init__(how)


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] = os.environ,
    on_line: Callable[[str], None] | None = None,
    kept_open: tuple[int, ...] = (),
) -> None:
    """Run a program to its end, at low priority; append its output to `log` and pass each line to `on_line`.

    Any exception here ends the program and its children. The program has its own session, so a Ctrl-C meant for us does
    not reach it directly. If we are killed, a program without `on_line` continues, and one with it dies when it writes
    to the broken pipe. `kept_open`: descriptors that the program inherits. Raises ProgramFailed, OSError.
    """
    polite = [nice, "-n", "10"] if (nice := shutil.which("nice")) else []
    with log.open("ab") as file:
        before = file.tell()
        with programs.start(
            [*polite, *command],
            stdout=file if on_line is None else programs.PIPE,
            stderr=programs.STDOUT,
            environment=environment,
            kept_open=kept_open,
        ) as process:
            try:
                for line in process.stdout or ():
                    file.write(line)
                    file.flush()
                    if on_line is not None:
                        on_line(line.decode(errors="replace").rstrip())
                code = process.wait()
            except BaseException:
                _end(process)
                raise
    if code:
        how = f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        raise ProgramFailed(how, log.read_bytes()[before:].decode(errors="replace"))


def _end(program: programs.Program) -> None:
    """End the process group of a program, which includes all processes of a compiler."""
    programs.signal_group(program, signal.SIGTERM)
    programs.ended(program, GRACE_S)
    programs.signal_group(program, signal.SIGKILL)
