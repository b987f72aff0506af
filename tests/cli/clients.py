"""The command, as somebody types it who has a daemon."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.end_to_end.support import Command
from tests.server.support import Daemon, finished

WORKLOAD = ("--set", "run.workload=tests.server.workloads:window", "--set", "run.backoff_s=0")
ASKED = (*WORKLOAD, "--data-root", "data", "--start", "2022-01-01", "--end", "2022-01-20", "--window-days", "10")
LABEL = "S0_2022-01-01_to_2022-01-10"


class Client(Command):
    """Commands that talk to one daemon, from a directory of their own."""

    def __init__(self, daemon: Daemon, directory: Path) -> None:
        super().__init__(directory)
        self.daemon = daemon
        self.environment["GPUSCHED_SOCKET"] = str(daemon.socket)
        (directory / "data").symlink_to(daemon.data)

    def symbols(self, *symbols: str) -> str:
        (self.directory / "symbols.txt").write_text("".join(f"{symbol}\n" for symbol in symbols))
        return "symbols.txt"

    def submit(self, name: str, *symbols: str, code: int = 0, more: tuple[str, ...] = ()) -> str:
        return self("submit", self.symbols(*symbols), "--name", name, *ASKED, *more, code=code)

    def done(self, name: str, *symbols: str) -> None:
        """Submit a batch and wait for its end."""
        self.submit(name, *symbols)
        finished(self.daemon, name)

    def table(self, *arguments: str) -> list[dict[str, str]]:
        """A listing as a pipe gets it."""
        return list(csv.DictReader(self(*arguments).splitlines(), delimiter="\t"))

    def error(self, *arguments: str, code: int) -> str:
        _, err = self.said(*arguments, code=code)
        return err
