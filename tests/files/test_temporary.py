"""Temporary directories: those that dead processes have left are removed, and nothing else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from gpusched import directories


def left(place: Path, name: str, age_s: float = 3600.0) -> Path:
    """A temporary directory of a process that has been killed."""
    path = place / f"gpusched-temporary-{name}"
    (path / "output").mkdir(parents=True)
    (path / "output" / "file").write_text("")
    instant = path.stat().st_mtime - age_s
    os.utime(path, (instant, instant))
    return path


def test_it_is_there_and_gone(tmp_path: Path) -> None:
    with directories.temporary(tmp_path) as directory:
        assert directory.parent == tmp_path
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "file").write_text("")
    assert [*tmp_path.iterdir()] == []


def test_those_of_the_dead_are_removed(tmp_path: Path) -> None:
    dead, new = left(tmp_path, "dead"), left(tmp_path, "new", age_s=0.0)
    locked, other = left(tmp_path, "locked"), tmp_path / "gpusched-other"
    other.mkdir()
    elsewhere = left(tmp_path / "elsewhere", "target")
    link = tmp_path / "gpusched-temporary-link"
    link.symlink_to(elsewhere)
    descriptor = os.open(locked, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with directories.temporary(tmp_path):
        pass
    os.close(descriptor)
    assert not dead.exists()
    assert all(path.exists() for path in (new, locked, other, link, elsewhere / "output" / "file"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_those_of_others_are_kept(tmp_path: Path) -> None:
    path = left(tmp_path, "theirs")
    os.chown(path, 12345, 12345)
    with directories.temporary(tmp_path):
        pass
    assert (path / "output" / "file").exists()
