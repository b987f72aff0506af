"""Removing only named files, and finding the way to a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusched import directories


@pytest.mark.parametrize("foreign", ["notes.txt", "plots/mine.png", "plots/deep/mine.png"])
def test_a_directory_that_holds_something_else_loses_only_what_is_named(tmp_path: Path, foreign: str) -> None:
    for name in ("model.txt", "plots/ours.png", foreign):
        (tmp_path / "result" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "result" / name).write_text(name)
    with directories.opened(tmp_path) as parent:
        assert not directories.remove_only("result", parent, {"model.txt", "plots/ours.png"})
    left = [path for path in (tmp_path / "result").rglob("*") if not path.is_dir()]
    assert left == [tmp_path / "result" / foreign]


def test_a_directory_that_holds_only_what_is_named_goes_with_its_own(tmp_path: Path) -> None:
    for name in ("model.txt", "plots/ours.png"):
        (tmp_path / "result" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "result" / name).write_text(name)
    (tmp_path / "result" / "empty").mkdir()
    with directories.opened(tmp_path) as parent:
        assert directories.remove_only("result", parent, {"model.txt", "plots/ours.png", "never written"})
    assert not (tmp_path / "result").exists()


def test_every_directory_on_the_way_is_looked_at_and_every_new_one_adapted(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "new" / "newer"
    looked: list[int] = []
    adapted: list[int] = []

    def inode(descriptor: int) -> int:
        return os.fstat(descriptor).st_ino

    with directories.descended(path, lambda directory: looked.append(inode(directory))) as (deepest, missing):
        assert missing == ["new", "newer"]
        with directories.made(deepest, missing, lambda directory: adapted.append(inode(directory))) as last:
            assert inode(last) == path.stat().st_ino
    assert looked == [parent.stat().st_ino for parent in (*reversed((tmp_path / "there").parents), tmp_path / "there")]
    assert adapted == [path.parent.stat().st_ino, path.stat().st_ino]


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with (
        pytest.raises(directories.NotOurs, match="reached by a link"),
        directories.opened_output(tmp_path / "link" / "out", guarded=True),
    ):
        pass
    assert [*(tmp_path / "elsewhere").iterdir()] == []
