"""Commands as they are typed, in this process or in one of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from gpusched import cli
from tests.end_to_end.support import Command
from tests.waiting import PATIENCE_S

DATES = ("--start", "2022-01-01", "--end", "2022-12-31")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs commands in this process, in a directory of their own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        try:
            code = cli.run(arguments)
        except SystemExit as exit:  # --help and --version
            code = int(exit.code or 0)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Ended(code, out, err)

    def refused(self, *arguments: str, code: int) -> str:
        """The message for a mistake: a problem and a remedy, on stderr alone."""
        ended = self(*arguments)
        assert (ended.code, ended.out) == (code, ""), ended
        assert re.fullmatch(r"error: .+\n(usage: gpusched .+\n)?hint: .+\n", ended.err), ended.err
        return ended.err

    def file(self, name: str, content: str | bytes) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name


def ended(command: Command, *arguments: str, stdin: str | None = None) -> Ended:
    if stdin is None:
        return Ended(*command.ended(*arguments))
    with command.start(*arguments, reads=True) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
    return Ended(process.returncode, out, err)
