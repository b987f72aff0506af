"""Helpers for the tests of this directory: a launcher, window jobs, and FIFOs to talk with window processes."""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from gpusched.engines.attendance import Awaited
from gpusched.engines.condition import Condition
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.engines.local.process import Process
from gpusched.worker import rehearsal
from gpusched.worker.messages import PipeMessage, ProcessEnd, WindowJob
from gpusched.workload import Task
from tests.waiting import PATIENCE_S, until

WORKLOADS = "tests.worker.workloads"
REPOSITORY = Path(__file__).parents[2]
START, END = dt.date(2022, 1, 1), dt.date(2022, 6, 30)


class Bench:
    """A launcher, an output directory, and every message that the windows sent."""

    def __init__(self, launcher: Launcher, directory: Path) -> None:
        self.launcher = launcher
        self.directory = directory
        self.output = directory / "output"
        self.log = directory / "logs" / "window.log"
        self.messages: list[PipeMessage] = []

    def job(self, name: str, symbol: str = "SYM", **settings: str) -> WindowJob:
        task = Task(
            symbol=symbol,
            start=START,
            end=END,
            data_root=str(self.directory),
            cache_dir=str(self.directory),
            settings=settings,
            threads=3,
        )
        workload = name if ":" in name else f"{WORKLOADS}:{name}"
        return WindowJob(workload=workload, task=task, output_dir=str(self.output))

    async def fork(self, name: str, symbol: str = "SYM", **settings: str) -> Awaited[Process, ProcessEnd]:
        return await self.launcher.fork(self.job(name, symbol, **settings), Confines(log_path=self.log, env={}))

    async def run(self, name: str, symbol: str = "SYM", **settings: str) -> ProcessEnd:
        process = await self.fork(name, symbol, **settings)
        return await process.wait(self.messages.append)

    @property
    def launcher_pid(self) -> int | None:
        """The pid of the launcher process that forks the windows of tests.worker.workloads."""
        return next(iter(self.launcher.pids(f"{WORKLOADS}:nothing")), None)

    @property
    def last(self) -> PipeMessage:
        return self.messages[-1]


@contextlib.asynccontextmanager
async def bench(
    directory: Path, idle_timeout_s: float | None = None, condition: Condition | None = None
) -> AsyncIterator[Bench]:
    with anyio.fail_after(PATIENCE_S):
        async with Launcher(
            search_path=REPOSITORY,
            log_path=directory / "launcher.log",
            idle_timeout_s=idle_timeout_s,
            condition=condition,
        ) as launcher:
            yield Bench(launcher, directory)


class Fifo:
    """A named pipe to a window process."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        # Open at both ends, so that no open waits for the other side and no read meets the end of the file.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def number(self) -> int:
        """Wait for the next number that the window writes."""
        text = b""
        while not text.endswith(b"\n"):
            await anyio.wait_readable(self._descriptor)
            text += os.read(self._descriptor, 1)
        return int(text)

    def answer(self) -> None:
        os.write(self._descriptor, b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def exists(pid: int) -> bool:
    """Whether a process with this pid exists, even as a zombie."""
    return Path(f"/proc/{pid}").exists()


def children(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def descriptors(pid: int | None) -> list[str]:
    """The descriptors of a process: of a launcher once its rehearsals are over, which have a directory open."""
    place = Path(f"/proc/{pid}/fd")

    def rests() -> bool:
        links = [os.path.realpath(path) for path in place.iterdir()]  # one is of this list, and gone
        # Where theirs is, its parent is open a little longer.
        return not any("gpusched-temporary-" in link or link == str(rehearsal.IN_MEMORY) for link in links)

    until(rests, patience_s=PATIENCE_S)
    return sorted(path.name for path in place.iterdir())


def runs(pid: int) -> bool:
    """Whether a process with this pid exists and is not just a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def exited(descriptor: int) -> None:
    """Wait until the process of a pidfd has exited; close the descriptor."""
    try:
        with anyio.fail_after(PATIENCE_S):
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


_PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_O_TRACEEXIT = 17, 0x4206, 0x40


@contextlib.contextmanager
def undying(pid: int) -> Iterator[None]:
    """Keep a SIGKILL of the process from taking effect until the end of the block, as if it hung in a kernel driver.

    A tracer may hold a process at its very exit. Enter and leave the block in one thread.
    """
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if ptrace(_PTRACE_SEIZE, pid, None, _PTRACE_O_TRACEEXIT) != 0:
        pytest.skip(f"this user may not trace a process: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        ptrace(_PTRACE_DETACH, pid, None, None)
