"""Content that windows of a sweep share: a window takes it whole, unchanged, and only by its own name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched import shared
from gpusched.core.model import WindowResult
from gpusched.engines.attendance import Awaited
from gpusched.engines.local.launcher import Confines
from gpusched.engines.local.process import Process
from gpusched.shared import LARGEST_BYTES, LINGER_S, SharedFile, SharedFiles
from gpusched.worker.messages import ProcessEnd
from tests.worker.support import Bench, Fifo, bench, descriptors
from tests.worker.workloads import open_descriptors

MakeFifo = Callable[[str], Fifo]
SHARES = "tests.worker.sharing:shares"


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    yield descriptor
    os.close(descriptor)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(clock: Clock) -> Iterator[SharedFiles]:
    before = open_descriptors()
    yield SharedFiles(clock)
    for descriptor in {*open_descriptors()} - {*before}:
        os.close(descriptor)


# -- a window's side ---------------------------------------------------------------------------------------------------


def test_content_is_taken_as_it_was_given_and_stays(memory: int) -> None:
    file = SharedFile(memory)
    assert file.take(b"digest") is None
    file.give(b"digest", b"content")
    assert file.take(b"digest") == b"content"
    file.give(b"digest", b"another")
    assert file.take(b"digest") == b"content"
    assert file.take(b"stranger") is None
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)
    for size in (0, 99):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, size)


def test_content_may_be_empty(memory: int) -> None:
    SharedFile(memory).give(b"digest", b"")
    assert SharedFile(memory).take(b"digest") == b""


def test_what_is_too_large_is_not_kept(memory: int) -> None:
    SharedFile(memory).give(b"digest", bytes(LARGEST_BYTES + 1))
    assert os.fstat(memory).st_size == 0


def test_what_was_not_written_to_the_end_is_not_kept(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwritev
    with monkeypatch.context() as full:
        full.setattr(os, "pwritev", lambda descriptor, buffers, offset: write(descriptor, buffers[:1], offset))
        SharedFile(memory).give(b"digest", b"content")
    assert os.fstat(memory).st_size == 0
    SharedFile(memory).give(b"digest", b"content")
    assert SharedFile(memory).take(b"digest") == b"content"


def test_a_descriptor_of_something_else_shares_nothing(memory: int) -> None:
    pipe = os.pipe()
    SharedFile(pipe[1]).give(b"digest", b"content")
    assert SharedFile(pipe[0]).take(b"digest") is None
    for descriptor in pipe:
        os.close(descriptor)


# -- the launcher's side -----------------------------------------------------------------------------------------------


def test_a_name_has_one_file_and_no_name_has_none(files: SharedFiles) -> None:
    before = open_descriptors()
    assert files.descriptor("") is None
    assert files.drop_idle() is None
    assert open_descriptors() == before
    assert files.descriptor("a") == files.descriptor("a") != files.descriptor("b")


def test_without_memory_files_there_is_none(files: SharedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert files.descriptor("a") is None
    files.entered("a", 1)
    files.left(1)
    assert files.drop_idle() is None


def test_the_one_asked_for_the_longest_time_ago_goes_first(files: SharedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_FILES", 2)
    before = open_descriptors()
    for name in ("first", "second"):
        SharedFile(known(files, name)).give(b"digest", b"content")
    assert SharedFile(known(files, "first")).take(b"digest") == b"content"
    known(files, "third")
    assert len(open_descriptors()) == len(before) + 2
    assert SharedFile(known(files, "first")).take(b"digest") == b"content"
    assert SharedFile(known(files, "second")).take(b"digest") is None


def test_bytes_are_bounded_as_soon_as_a_window_has_ended(files: SharedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_BYTES", 2500)
    before = open_descriptors()
    for pid, name in enumerate("abc"):
        SharedFile(known(files, name)).give(b"digest", bytes(1000))
        files.entered(name, pid)
    assert len(open_descriptors()) == len(before) + 3
    files.left(0)
    files.left(1)
    assert len(open_descriptors()) == len(before) + 3
    files.left(2)
    assert len(open_descriptors()) == len(before) + 2
    assert SharedFile(known(files, "c")).take(b"digest") == bytes(1000)


def test_files_are_closed_once_no_window_has_had_them_for_a_while(files: SharedFiles, clock: Clock) -> None:
    before = open_descriptors()
    for name in "ab":
        files.descriptor(name)
        files.entered(name, ord(name))
    clock.now = 1000.0
    assert files.drop_idle() is None
    files.left(ord("a"))
    clock.now += 1.0
    files.left(ord("b"))
    assert files.drop_idle() == 1000 * (LINGER_S - 1.0)
    clock.now += LINGER_S - 1.0
    assert files.drop_idle() == 1000
    assert len(open_descriptors()) == len(before) + 1
    files.descriptor("b")
    files.entered("b", 3)  # the next window of the sweep
    clock.now += LINGER_S
    assert files.drop_idle() is None
    files.left(3)
    clock.now += LINGER_S
    assert files.drop_idle() is None
    assert open_descriptors() == before


def known(files: SharedFiles, name: str) -> int:
    descriptor = files.descriptor(name)
    assert descriptor is not None
    return descriptor


# -- windows of a launcher ---------------------------------------------------------------------------------------------


async def fork(b: Bench, workload: str, shares: str, **settings: str) -> Awaited[Process, ProcessEnd]:
    job = msgspec.structs.replace(b.job(workload, **settings), shares=shares)
    return await b.launcher.fork(job, Confines(log_path=b.log, env={}))


async def metrics(b: Bench, process: Awaited[Process, ProcessEnd]) -> dict[str, Any]:
    end = await process.wait(b.messages.append)
    assert end.exit_code == 0
    assert isinstance(b.last, WindowResult)
    return b.last.metrics


async def told(b: Bench, name: str, content: str, workload: str = SHARES) -> dict[str, Any]:
    return await metrics(b, await fork(b, workload, name, content=content))


async def test_windows_of_a_name_have_its_content_and_no_others(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await told(b, "batch 1", "one"))["taken"] is None
        assert (await told(b, "batch 2", "two"))["taken"] is None
        assert (await told(b, "batch 1", "three"))["taken"] == "one"
        assert (await told(b, "batch 2", "four"))["taken"] == "two"
        stranger = await told(b, "", "five")
        assert not stranger["inherits"]
        assert stranger["descriptors"] == [0, 1, 2, 3, 4, 5, 6]


async def test_a_window_inherits_one_memory_file_and_its_programs_none(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        plain = await told(b, "", "")
        for name in ("a", "b", "c"):
            seen = await told(b, name, name)
            assert seen["inherits"]
            assert len(seen["descriptors"]) == len(plain["descriptors"]) + 1
            assert seen["of_a_program"] == plain["of_a_program"]


async def test_a_window_that_is_killed_while_it_writes_leaves_nothing(tmp_path: Path, fifo: MakeFifo) -> None:
    said = fifo("said")
    async with bench(tmp_path) as b:
        killed = await fork(b, "tests.worker.sharing:stops_in_the_middle", "name", content="half", fifo=said.path)
        await said.number()
        # While it writes, another one makes its own content, and gives none.
        assert (await told(b, "name", "beside"))["taken"] is None
        assert (await told(b, "name", "beside"))["taken"] is None
        killed.signal(signal.SIGKILL)
        assert (await killed.wait(b.messages.append)).signal == signal.SIGKILL
        assert (await told(b, "name", "whole"))["taken"] is None
        assert (await told(b, "name", "late"))["taken"] == "whole"


async def test_of_two_windows_at_once_the_first_that_has_content_gives_it(tmp_path: Path, fifo: MakeFifo) -> None:
    said, back = fifo("said"), fifo("back")
    async with bench(tmp_path) as b:
        first = await fork(b, SHARES, "name", content="first", fifo=said.path, back=back.path)
        await said.number()
        # The first one lives, and has the lock; what it gave is there.
        assert (await told(b, "name", "second"))["taken"] == "first"
        back.answer()
        assert (await metrics(b, first))["taken"] is None


async def test_memory_files_are_closed_when_a_batch_is_over(tmp_path: Path) -> None:
    workload = "tests.worker.forgetful:shares"
    async with bench(tmp_path) as b:
        await told(b, "", "", workload)
        (launcher,) = b.launcher.pids(workload)
        descriptors(launcher)  # its rehearsals are over,
        await told(b, "", "", workload)  # and so are the steps after them
        before = descriptors(launcher)
        await told(b, "name", "content", workload)
        assert (await told(b, "", "", workload))["taken"] is None  # the launcher has been through its loop
        assert descriptors(launcher) == before
