"""Signals reach the whole group, and `wait` returns when nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpusched.core.model import WindowResult
from gpusched.worker.messages import PipeMessage, Started
from tests.worker.support import Fifo, bench, children, descriptors, exists

MakeFifo = Callable[[str], Fifo]


async def test_a_window_that_hangs_ends_by_its_signal(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        process = await b.fork("hangs", fifo=said.path)
        assert await said.number() == process.pid
        process.signal(signal.SIGTERM)
        end = await process.wait(b.messages.append)

        assert (end.exit_code, end.signal) == (None, signal.SIGTERM)
        assert not exists(process.pid)
        process.signal(signal.SIGKILL)  # too late, and harmless
        assert (await b.run("nothing")).exit_code == 0


async def test_a_signal_right_after_the_fork_is_not_lost(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        for _ in range(10):
            process = await b.fork("hangs", fifo=said.path)
            process.signal(signal.SIGTERM)
            assert (await process.wait(b.messages.append)).signal == signal.SIGTERM


async def test_one_that_ignores_term_ends_by_kill(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        process = await b.fork("ignores_term", fifo=said.path)
        await said.number()
        process.signal(signal.SIGTERM)
        assert (await b.run("nothing", symbol="NEIGHBOUR")).exit_code == 0
        assert exists(process.pid)
        process.signal(signal.SIGKILL)
        assert (await process.wait(b.messages.append)).signal == signal.SIGKILL


async def test_a_child_in_the_group_dies_with_its_window(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        process = await b.fork("has_child", fifo=said.path)
        child = await said.number()
        await said.number()
        process.signal(signal.SIGTERM)  # which the child ignores
        end = await process.wait(b.messages.append)

    assert end.signal == signal.SIGTERM
    assert not exists(process.pid)
    assert not exists(child)


async def test_a_child_left_behind_with_the_pipe_does_not_keep_its_window(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        process = await b.fork("leaves_child", fifo=said.path)
        child = await said.number()
        end = await process.wait(b.messages.append)

        assert end.exit_code == 0
        assert isinstance(b.last, WindowResult)
        assert not exists(child)


@pytest.mark.parametrize("name", ["leaves_daemon", "executes"])
async def test_a_daemon_in_its_own_session_dies_too(tmp_path: Path, fifo: MakeFifo, name: str) -> None:
    said, back = fifo("said"), fifo("back")
    async with bench(tmp_path) as b:
        hanging = await b.fork("hangs", symbol="NEIGHBOUR", fifo=said.path)
        await said.number()
        process = await b.fork(name, fifo=said.path, back=back.path)
        daemon = await said.number()
        back.answer()
        end = await process.wait(b.messages.append)

        assert end.exit_code == 0
        assert not exists(daemon)
        assert exists(hanging.pid)
        hanging.signal(signal.SIGKILL)
        await hanging.wait(b.messages.append)


async def test_cancelling_wait_kills_the_window(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        process = await b.fork("ignores_term", fifo=said.path)
        await said.number()
        with anyio.move_on_after(0) as scope:
            await process.wait(b.messages.append)
        assert scope.cancelled_caught
        assert not exists(process.pid)


async def test_cancelling_fork_leaves_no_process(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        forking = asyncio.ensure_future(b.fork("hangs", fifo=said.path))
        await anyio.lowlevel.checkpoint()
        forking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forking
        launcher = b.launcher_pid
        assert (await b.run("nothing")).exit_code == 0
        while children(launcher):  # it is killed as soon as it is known, and may take a moment to die
            assert (await b.run("nothing")).exit_code == 0


async def test_an_error_of_the_callback_kills_the_window_and_is_raised(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")

    def refuse(message: PipeMessage) -> None:
        raise RuntimeError(f"unexpected {type(message).__name__}")

    async with bench(tmp_path) as b:
        process = await b.fork("hangs", fifo=said.path)
        await said.number()
        with pytest.raises(RuntimeError, match="unexpected Started"):
            await process.wait(refuse)
        assert not exists(process.pid)


async def test_closing_kills_what_runs(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with anyio.create_task_group() as tasks:
        async with bench(tmp_path) as b:
            process = await b.fork("has_child", fifo=said.path)
            child, leader = await said.number(), await said.number()
            ends = []

            async def wait() -> None:
                ends.append(await process.wait(b.messages.append))

            tasks.start_soon(wait)
            launcher = b.launcher_pid
            await anyio.lowlevel.checkpoint()
        assert launcher is not None
        assert not any(exists(pid) for pid in (launcher, leader, child))
    assert ends[0].signal == signal.SIGKILL
    assert [type(message) for message in b.messages] == [Started]


async def test_no_zombies_and_no_descriptors_are_left(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.run("nothing")
        launcher = b.launcher_pid
        descriptors(launcher)  # its rehearsals are over,
        await b.run("nothing")  # and so are the steps after them
        before = descriptors(os.getpid()), descriptors(launcher)
        for _ in range(50):
            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    tasks.start_soon(b.run, "nothing", f"S{number}")
        assert (descriptors(os.getpid()), descriptors(launcher)) == before
        assert children(launcher) == []
