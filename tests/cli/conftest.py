"""A shell of this process, a command in a process of its own, and one that has a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.clients import Client
from tests.cli.shells import Shell
from tests.end_to_end.support import Command
from tests.server.support import Daemon


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """With a data root that holds no bars, and a symbols file."""
    for name in [name for name in os.environ if name.startswith("GPUSCHED_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "symbols.txt").write_text("ABC\nDEF\n")
    return Shell(tmp_path, capsys)


@pytest.fixture
def gpusched(tmp_path: Path) -> Command:
    """The command in a process of its own, with the bars of one symbol out of two."""
    rows = (
        f"2022-{month:02}-{day:02},{10 + (day * 7 + month) % 5},16,9,{10 + (day * 5 + month) % 6},1000\n"
        for month in range(1, 13)
        for day in range(1, 29)
    )
    bars = tmp_path / "data" / "ABC.csv"
    bars.parent.mkdir()
    bars.write_text("timestamp,open,high,low,close,volume\n" + "".join(rows))
    (tmp_path / "symbols.txt").write_text("ABC\nNONE # is not there\nABC\n")
    return Command(tmp_path)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(daemon: Daemon, tmp_path: Path) -> Client:
    return Client(daemon, tmp_path)
