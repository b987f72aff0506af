"""Many windows at a time have several launcher processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio

from gpusched.engines.attendance import Awaited
from gpusched.engines.local import proc
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.process import Process
from gpusched.worker.messages import ProcessEnd
from tests.waiting import PATIENCE_S
from tests.worker.support import REPOSITORY, WORKLOADS, Bench, Fifo

MakeFifo = Callable[[str], Fifo]
Window = Awaited[Process, ProcessEnd]


class Few(Bench):
    """A launcher whose processes have two windows each; a window waits until it is answered."""

    def __init__(self, launcher: Launcher, directory: Path, workload: str, fifo: MakeFifo) -> None:
        super().__init__(launcher, directory)
        self.workload = workload
        self._fifo = fifo
        self._said = fifo("said")
        self._backs: dict[Window, Fifo] = {}

    async def start(self, symbols: str) -> list[Window]:
        windows = []
        for symbol in symbols:
            back = self._fifo(symbol)
            windows.append(await self.fork(self.workload, symbol, fifo=self._said.path, back=back.path))
            self._backs[windows[-1]] = back
            await self._said.number()
        return windows

    async def grown(self) -> list[int]:
        """The launcher processes, once the one that is being started has joined them, or has failed."""
        if growing := list(self.launcher._growing.values()):
            await asyncio.wait(growing)
        return self.launcher.pids(self.workload)

    async def end(self, windows: list[Window]) -> None:
        for window in windows:
            self._backs[window].answer()
            assert (await window.wait(self.messages.append)).exit_code == 0


@contextlib.asynccontextmanager
async def few(
    directory: Path, fifo: MakeFifo, *, workload: str = f"{WORKLOADS}:waits", search_path: Path = REPOSITORY
) -> AsyncIterator[Few]:
    log = directory / "launcher.log"
    with anyio.fail_after(PATIENCE_S):
        async with Launcher(search_path=search_path, log_path=log, windows_each=2) as launcher:
            yield Few(launcher, directory, workload, fifo)


def launchers_of(windows: list[Window]) -> list[int]:
    return [seen.parent for window in windows if (seen := proc.look(window.pid)) is not None]


async def test_others_are_started_as_more_windows_run(tmp_path: Path, fifo: MakeFifo) -> None:
    async with few(tmp_path, fifo) as b:
        windows = await b.start("AB")
        assert b.launcher.starts == 1, "two have room"
        windows += await b.start("C")
        first, second = await b.grown()
        assert launchers_of(windows) == [first] * 3, "the third one has not waited for it"
        more = await b.start("DEF")
        assert launchers_of(more) == [second] * 3, "it has fewer"
        *_, third = await b.grown()
        last = await b.start("G")
        assert launchers_of(last) == [third]
        await b.end(windows + more + last)
        assert b.launcher.starts == 3


async def test_one_that_dies_takes_its_own_windows_with_it(tmp_path: Path, fifo: MakeFifo) -> None:
    async with few(tmp_path, fifo) as b:
        lost = await b.start("ABC")
        first, second = await b.grown()
        kept = await b.start("DE")
        os.kill(first, signal.SIGKILL)
        for window in lost:
            assert await window.wait(b.messages.append) == ProcessEnd(launcher_lost=True)
        assert await b.grown() == [second]
        assert launchers_of(kept) == [second] * 2
        await b.end(kept)


async def test_all_are_replaced_when_the_code_has_changed(tmp_path: Path, fifo: MakeFifo) -> None:
    module = tmp_path / "mine.py"
    module.write_text("from tests.worker.workloads import waits\n")
    async with few(tmp_path, fifo, workload=f"{tmp_path}:mine:waits") as b:
        windows = await b.start("ABC")
        before = await b.grown()
        windows += await b.start("D")
        module.write_text("from tests.worker.workloads import nothing, waits\n")
        new = await b.start("E")
        assert set(launchers_of(new)).isdisjoint(before)
        await b.end(windows + new)
        assert launchers_of(new) == []


async def test_one_that_cannot_be_started_is_done_without(tmp_path: Path, fifo: MakeFifo) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from tests.worker.workloads import waits\n"
        "def preload():\n"
        f"    Path({str(tmp_path / 'loaded')!r}).mkdir()\n"
    )
    async with few(tmp_path, fifo, workload=f"{tmp_path}:mine:waits") as b:
        windows = await b.start("ABC")
        await b.grown()
        windows += await b.start("DE")
        assert launchers_of(windows) == await b.grown() * 5
        await b.end(windows)
        assert b.launcher.starts == 2, "it is not tried for each window"
