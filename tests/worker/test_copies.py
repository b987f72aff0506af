"""A result of another directory is copied whole, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched import artifacts, outputs
from tests.worker.test_artifacts import LABEL, NEW, OLD, commit


def test_a_result_is_copied_so_that_neither_changes_with_the_other(tmp_path: Path) -> None:
    source = commit(tmp_path / "source", NEW)
    path = outputs.take_over(source, tmp_path / "output", NEW)
    assert path == tmp_path / "output" / LABEL
    assert (path / "metadata.json").read_bytes() == (source / "metadata.json").read_bytes()
    for copy in path.rglob("*"):
        assert copy.is_dir() or copy.stat().st_nlink == 1
    with (path / "model.txt").open("r+") as file:
        file.write("edited")
    assert artifacts.verify(source, {NEW}) is not None
    assert artifacts.verify(path, {NEW}) is None


def test_a_copy_replaces_a_result_and_moves_a_stranger_aside(tmp_path: Path) -> None:
    source, output = commit(tmp_path / "source", NEW), tmp_path / "output"
    commit(output, OLD)
    assert outputs.take_over(source, output, NEW) == output / LABEL
    assert artifacts.verify(output / LABEL, {NEW}) is not None
    (output / LABEL / "mine.txt").touch()
    assert outputs.take_over(source, output, NEW) == output / LABEL
    assert (output / f"{LABEL}.not-a-result" / "mine.txt").exists()
    assert not list((output / ".partial").iterdir())


def test_a_result_of_a_later_schema_is_not_copied(tmp_path: Path) -> None:
    source = commit(tmp_path / "source", NEW)
    told = source / "metadata.json"
    told.write_text(told.read_text().replace('"schema": 1,', '"schema": 2,'))
    assert artifacts.verify(source, {NEW}) is None
    assert outputs.take_over(source, tmp_path / "output", NEW) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize("part", ["", "model.txt", "more"])
def test_a_result_of_another_user_is_no_result_of_ones_own(tmp_path: Path, part: str) -> None:
    source, output = commit(tmp_path / "source", NEW), tmp_path / "output"
    os.chown(source / part, 4242, 4242)
    assert outputs.take_over(source, output, NEW, own=True) is None
    assert outputs.take_over(source, output, NEW) is not None


def to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_a_link(path: Path) -> None:
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: (result / "model.txt").write_text(f"MODEL {NEW}\n"),
        lambda result: (result / "more" / "labels.csv").unlink(),
        lambda result: (result / "another").touch(),
        lambda result: to_a_link(result / "model.txt"),
        lambda result: to_a_link(result / "more"),
        lambda result: to_a_link(result / "metadata.json"),
        lambda result: to_a_pipe(result / "model.txt"),
        lambda result: (result / "metadata.json").write_text("{"),
        lambda result: result.rename(result.with_name("other")),
    ],
)
def test_only_an_intact_result_without_links_is_copied(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    source, output = commit(tmp_path / "source", NEW), tmp_path / "output"
    assert outputs.take_over(source, output, OLD) is None
    commit(output, OLD)
    spoil(source)
    try:
        assert outputs.take_over(source, output, NEW) is None
    except OSError:
        assert not source.exists()
    assert artifacts.verify(output / LABEL, {OLD}) is not None
    assert not list((output / ".partial").iterdir())


def test_a_copy_where_the_kernel_cannot_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    source = commit(tmp_path / "source", NEW)
    assert outputs.take_over(source, tmp_path / "output", NEW) is not None
    monkeypatch.setattr(os, "copy_file_range", _full)
    with pytest.raises(OSError, match="No space left"):
        outputs.take_over(source, tmp_path / "full", NEW)
    assert not list((tmp_path / "full" / ".partial").iterdir())


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")
