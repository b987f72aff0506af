"""A command of the operator's hears of each batch that ends or is held."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from gpusched import programs
from tests.end_to_end.support import Command
from tests.server.support import Daemon, finished
from tests.waiting import PATIENCE_S

#: copies its input to the FIFO, as one line
TELL = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"


@contextmanager
def calling(daemon: Daemon, *command: str, timeout_s: float = 30.0) -> Iterator[Daemon]:
    daemon.start(environment={"GPUSCHED_TEST_HOOKS": json.dumps({"command": command, "timeout_s": timeout_s})})
    try:
        yield daemon
    finally:
        daemon.__exit__(None, None, None)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "daemon")


def open_files() -> set[tuple[str, str]]:
    """Each descriptor of this process and its file."""
    return {(one.name, str(one.readlink())) for one in Path("/proc/self/fd").iterdir() if one.exists()}


def told(fifo: Path) -> dict[str, Any]:
    """The input of the next call; waits for it."""
    found = json.loads(fifo.read_text())
    assert isinstance(found, dict)
    return found


def test_is_told_of_batches_that_finish_and_are_held(daemon: Daemon, fifo: Path) -> None:
    with calling(daemon, sys.executable, "-c", TELL, str(fifo)), daemon.connect() as link:
        link.submit(daemon.spec("S0", "BAD"), source="s", name="ends")
        call = told(fifo)
        windows = {"total": 2, "succeeded": 1, "reused": 0, "skipped": 0, "failed": 1, "cancelled": 0}
        assert (call["event"], call["batch_id"], call["windows"], call["reason"]) == ("finished", "ends", windows, None)
        assert call["seconds"] > 0
        assert call["windows_per_second"] > 0
        assert Path(call["output_dir"]).is_dir()
        link.submit(daemon.spec("FIFO"), source="s", name="waits")
        link.change("hold", "waits")
        call = told(fifo)
        assert (call["event"], call["batch_id"], call["reason"]) == ("held", "waits", "by request")


def test_a_hook_that_fails_is_logged_and_harms_nothing(daemon: Daemon) -> None:
    fails = "import sys; sys.exit('no such address')"
    with calling(daemon, sys.executable, "-c", fails):
        with daemon.connect() as link:
            link.submit(daemon.spec("S0"), source="s", name="one")
        assert finished(daemon, "one").counts == {"succeeded": 1}
        assert daemon.stop() == 0, "and a planned end waits for it"
        assert "hook failed status=1" in daemon.log.read_text()
        assert "no such address" in daemon.log.read_text()


def test_a_program_that_is_not_there_is_logged(daemon: Daemon) -> None:
    with calling(daemon, "/no/such/program"):
        with daemon.connect() as link:
            link.submit(daemon.spec("S0"), source="s", name="one")
        finished(daemon, "one")
        assert daemon.stop() == 0
        assert "hook cannot be called command='/no/such/program'" in daemon.log.read_text()


def test_a_hook_that_hangs_is_stopped_with_all_that_it_started(daemon: Daemon, fifo: Path) -> None:
    """Its child holds the FIFO open: the end of file comes when that is gone, or at once if it came no further."""
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    hangs = 'exec > "$0"; sleep 1000 & wait'
    with calling(daemon, "sh", "-c", hangs, str(fifo), timeout_s=0.5), daemon.connect() as link:
        link.submit(daemon.spec("S0"), source="s", name="one")
        finished(daemon, "one")
        assert daemon.stop() == 0
        assert "hook stopped after 0.5 s" in daemon.log.read_text()
    assert os.read(reader, 1) == b""
    os.close(reader)


async def called_until_its_end(monkeypatch: pytest.MonkeyPatch, script: str) -> programs.Called:
    """Call a shell that leaves others with its stderr; its time is over when it has ended itself."""
    opened, called, within = [], [], anyio.CancelScope()
    open_process = anyio.open_process

    async def opening(*arguments: Any, **more: Any) -> anyio.abc.Process:
        opened.append(await open_process(*arguments, **more))
        return opened[0]

    async def call() -> None:
        called.append(await programs.call(["sh", "-c", script], b"unread" * 100_000, timeout_s=PATIENCE_S))

    monkeypatch.setattr(anyio, "open_process", opening)
    monkeypatch.setattr(anyio, "move_on_after", lambda _: within)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE_S):
            while not opened or opened[0].returncode is None:
                await anyio.lowlevel.checkpoint()
        within.cancel()
    return called[0]


async def test_a_hook_that_has_ended_did_not_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await called_until_its_end(monkeypatch, "sleep 1000 & exit 3")).status == 3


async def test_a_call_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has left the session is not stopped, and has the other end of the pipe for as long as it likes."""
    fifo, pid = tmp_path / "fifo", tmp_path / "pid"
    os.mkfifo(fifo)
    leaves = f"setsid sh -c 'echo $$ > {fifo}; exec sleep 1000' & read pid < {fifo}; echo $pid > {pid}; exit 3"
    before = open_files()
    called = await called_until_its_end(monkeypatch, leaves)
    try:
        assert open_files() == before
        assert called.status == 3
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_run_calls_it_too(tmp_path: Path) -> None:
    command = Command(tmp_path)
    (tmp_path / "S0.csv").write_text("timestamp,open,high,low,close,volume\n")
    (tmp_path / "symbols.txt").write_text("S0\n")
    (tmp_path / "config.toml").write_text(
        f"[hooks]\ncommand = {json.dumps([sys.executable, '-c', TELL, str(tmp_path / 'told')])}\n"
    )
    dates = ("--start", "2022-01-01", "--end", "2022-01-20", "--data-root", ".", "--name", "here")
    command("run", "symbols.txt", "-o", "out", *dates, code=5)
    call = json.loads((tmp_path / "told").read_text())
    assert (call["event"], call["batch_id"], call["windows"]["skipped"]) == ("finished", "here", 1)
