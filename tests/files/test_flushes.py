"""Files that are made durable beside each other."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpusched import files
from gpusched.files import Flushes
from tests.waiting import PATIENCE_S

Sync = Callable[[int], None]


@pytest.fixture(params=[0.0, 1e9], ids=["slow disk", "fast disk"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk whose flushes are slow, or not."""
    monkeypatch.setattr(files, "_SLOW_S", request.param)


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been flushed."""
    names: list[str] = []
    fsync: Sync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    return names


def opened(directory: Path, number: int) -> list[int]:
    return [os.open(directory / str(n), os.O_WRONLY | os.O_CREAT, 0o600) for n in range(number)]


def flush(some: list[int]) -> None:
    with Flushes() as flushes:
        for descriptor in some:
            flushes.add(descriptor)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("number", [0, 1, 2, 7, 200])
def test_every_file_is_flushed_once_and_closed(tmp_path: Path, flushed: list[str], number: int) -> None:
    before = descriptors()
    flush(opened(tmp_path, number))
    assert sorted(flushed, key=int) == [str(n) for n in range(number)]
    assert descriptors() == before


def test_after_a_slow_one_four_are_flushed_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the four waits for the three others."""
    monkeypatch.setattr(files, "_SLOW_S", 0.0)
    together = threading.Barrier(4, timeout=PATIENCE_S)
    first, *others = opened(tmp_path, 5)
    monkeypatch.setattr(os, "fsync", lambda descriptor: descriptor == first or together.wait())
    flush([first, *others])
    assert not together.broken


def test_while_none_is_slow_no_thread_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
    """A thread takes more processor time than it saves."""
    monkeypatch.setattr(files, "_SLOW_S", 1e9)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: pytest.fail("a thread"))
    flush(opened(tmp_path, 7))
    assert flushed == [str(n) for n in range(7)], "each as it comes"


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("failing", [0, 3, 6])
def test_one_that_cannot_be_flushed_is_told_of_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    done: list[int] = []
    own = opened(tmp_path, 7)

    def fsync(descriptor: int) -> None:
        done.append(descriptor)
        if descriptor == own[failing]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        flush(own)
    assert sorted(done) == own


def test_an_error_of_whoever_adds_files_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.suppress(LookupError), Flushes() as flushes:
        flushes.add(opened(tmp_path, 1)[0])
        raise LookupError


def test_without_room_for_threads_the_caller_flushes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(files, "_SLOW_S", 0.0)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    flush(opened(tmp_path, 7))
    assert sorted(flushed, key=int) == [str(n) for n in range(7)]


def test_only_so_many_files_wait_that_few_descriptors_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
    monkeypatch.setattr(files, "_SLOW_S", 0.0)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: (_ for _ in ()).throw(RuntimeError))
    before = len(descriptors())
    with Flushes() as flushes:
        for number in range(500):
            flushes.add(os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT, 0o600))
            assert len(descriptors()) <= before + files._MOST_WAITING
    assert len(flushed) == 500


def test_those_that_need_not_be_durable_are_closed(tmp_path: Path, flushed: list[str]) -> None:
    before = descriptors()
    with Flushes(durable=False) as flushes:
        for descriptor in opened(tmp_path, 7):
            flushes.add(descriptor)
    assert flushed == []
    assert descriptors() == before


@pytest.mark.parametrize(("code", "kept"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_flush_a_directory_flushes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool
) -> None:
    """A drive of Windows in WSL answers EINVAL, and every result on it was a failure."""

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error") if kept else contextlib.nullcontext(), Flushes() as flushes:
        flushes.add(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(OSError, match=os.strerror(code)):
        flush(opened(tmp_path, 1))
