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


@pytest.mark.parametrize("number", [0, 1, 2, 7, 200])
def test_every_file_is_flushed_once_and_closed(tmp_path: Path, flushed: list[str], number: int) -> None:
    before = descriptors()
    flush(opened(tmp_path, number))
    assert sorted(flushed, key=int) == [str(n) for n in range(number)]
    assert descriptors() == before


def test_four_are_flushed_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them waits for the three others."""
    together = threading.Barrier(4, timeout=PATIENCE_S)
    monkeypatch.setattr(os, "fsync", lambda descriptor: together.wait())
    flush(opened(tmp_path, 4))
    assert not together.broken


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

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    flush(opened(tmp_path, 7))
    assert sorted(flushed, key=int) == [str(n) for n in range(7)]


def test_only_so_many_files_wait_that_few_descriptors_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
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
