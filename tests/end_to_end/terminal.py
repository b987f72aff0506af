"""A command in a terminal: keys go in, and its frames come out."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping

from tests.end_to_end.support import Command
from tests.waiting import PATIENCE_S

#: the sequence of a program that gives the whole screen back
LEFT = "\x1b[?1049l"


class Terminal:
    """`gpusched …` in a terminal of 100 × 30. `env` is added to the command's environment."""

    def __init__(self, command: Command, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpusched", *arguments],
            cwd=command.directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=command.environment | {"TERM": "xterm-256color"} | dict(env or {}),
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, word: str) -> str:
        """Read until it is written, from now on; return the text."""
        seen, ends = "", time.monotonic() + PATIENCE_S
        while word not in seen:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"no {word!r} in {seen[-3000:]!r}"
            try:
                seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended without {word!r}: {seen[-3000:]!r}") from None
        return seen

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal; the command is no leader of its session, so no signal tells of it."""
        os.close(self._ours)
        self._ours = os.open(os.devnull, os.O_RDWR)

    def rest(self) -> str:
        """Read until it has ended."""
        seen, ends = b"", time.monotonic() + PATIENCE_S
        while select.select([self._ours], [], [], max(0.0, ends - time.monotonic()))[0]:
            try:
                seen += os.read(self._ours, 65536)
            except OSError:
                break
        return seen.decode(errors="replace")

    def end(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        self.process.kill()
        self.process.wait()
