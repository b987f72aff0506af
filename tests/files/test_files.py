"""Names within directories: nothing that others put there leads a deletion or a write astray."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched import directories, files


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "ours").mkdir()
    with directories.opened(tmp_path / "ours") as descriptor:
        yield descriptor


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of somebody else's, somewhere else."""
    path = tmp_path / "precious"
    (path / "below").mkdir(parents=True)
    (path / "NOTES.md").write_text("mine")
    (path / "below" / "data").write_text("mine, too")
    return path


def contents(path: Path) -> dict[str, str]:
    return {str(one.relative_to(path)): one.read_text() for one in sorted(path.rglob("*")) if one.is_file()}


def test_removing_unlinks_links_and_never_follows_them(tmp_path: Path, directory: int, precious: Path) -> None:
    before = contents(precious)
    tree = tmp_path / "ours" / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "deep" / "deeper" / "file").write_text("x")
    (tree / "link").symlink_to(precious)
    (tree / "deep" / "deeper" / "link").symlink_to(precious / "below")
    (tree / "deep" / "file link").symlink_to(precious / "NOTES.md")
    (tmp_path / "ours" / "itself a link").symlink_to(precious)
    directories.remove("tree", directory)
    directories.remove("itself a link", directory)
    directories.remove("nothing", directory)
    assert directories.names(directory) == []
    assert contents(precious) == before


def test_a_link_that_takes_the_place_of_a_directory_while_it_is_removed(
    tmp_path: Path, directory: int, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(precious)
    tree = tmp_path / "ours" / "tree"
    (tree / "sub").mkdir(parents=True)
    real, swapped = os.unlink, list[str]()

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        """Between the look at `sub`, which says that it is a directory, and its opening."""
        try:
            real(path, dir_fd=dir_fd)
        except IsADirectoryError:
            if path == "sub" and not swapped:
                swapped.append(path)
                (tree / "sub").rename(tmp_path / "elsewhere")
                (tree / "sub").symlink_to(precious)
            raise

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OSError, match="sub"):
        directories.remove("tree", directory)
    directories.remove("tree", directory)
    assert swapped
    assert contents(precious) == before


def test_neither_depth_nor_modes_keep_a_tree(tmp_path: Path, directory: int) -> None:
    path = tmp_path / "ours" / "tree"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(2000):  # more than a stack of calls, or the descriptors of a process, would allow
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    (path / "sealed").mkdir()
    (path / "sealed" / "file").write_text("x")
    (path / "sealed").chmod(0o500)
    directories.remove("tree", directory)
    assert directories.names(directory) == []


# -- own directories ---------------------------------------------------------------------------------------------------


def test_an_own_directory_is_private(tmp_path: Path, directory: int) -> None:
    path = tmp_path / "ours" / "state"
    os.close(directories.own_directory("state", directory, shown=path))
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o777)
    os.close(directories.own_directory("state", directory, shown=path))
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_link_or_a_file_is_refused_as_an_own_directory(tmp_path: Path, directory: int, precious: Path) -> None:
    path = tmp_path / "ours" / "state"
    path.symlink_to(precious)
    with pytest.raises(directories.NotOurs, match=rf"{path} is a link\n  move it away"):
        directories.own_directory("state", directory, shown=path)
    path.unlink()
    path.write_text("x")
    with pytest.raises(directories.NotOurs, match="is not a directory"):
        directories.own_directory("state", directory, shown=path)
    assert precious.stat().st_mode & 0o077


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path, directory: int) -> None:
    path = tmp_path / "ours" / "state"
    path.mkdir()
    os.chown(path, 4242, 4242)
    with pytest.raises(directories.NotOurs, match=r"is a directory of another user \(uid 4242\)"):
        directories.own_directory("state", directory, shown=path)
    assert list(path.iterdir()) == []


def test_a_file_system_that_gives_all_to_one_user(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS server that squashes its users, a mounted share: even our own files are somebody else's there."""
    (tmp_path / "ours" / "state").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    os.close(directories.own_directory("state", directory, shown=tmp_path / "ours" / "state"))


# -- renaming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["with flags", "without flags"])
def test_placing_never_replaces(tmp_path: Path, directory: int, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if flags == "without flags":
        monkeypatch.setattr(directories, "_renamed", lambda *arguments: False)
    ours = tmp_path / "ours"
    for taken in ("file", "directory", "link"):
        (ours / "new").mkdir()
        path = ours / taken
        match taken:
            case "file":
                path.touch()
            case "directory":
                path.mkdir()
            case "link":
                path.symlink_to("gone")
        assert not directories.place("new", directory, taken, directory)
        assert (ours / "new").is_dir()
        assert directories.place("new", directory, f"{taken} free", directory)
    assert directories.move_aside("link", directory, "odd") == "link.odd"
    (ours / "link").touch()
    assert directories.move_aside("link", directory, "odd") == "link.odd.2"
    assert (ours / "link.odd").readlink() == Path("gone")


# -- whole files -------------------------------------------------------------------------------------------------------


def test_a_whole_file_replaces_a_link_and_not_its_target(tmp_path: Path, precious: Path) -> None:
    path = tmp_path / "ours.txt"
    path.symlink_to(precious / "NOTES.md")
    (tmp_path / ".ours.txt.tmp").symlink_to(precious / "below" / "data")
    before = contents(precious)
    files.write_whole(path, (b"new ", b"text"))
    assert path.read_text() == "new text"
    assert not path.is_symlink()
    assert contents(precious) == before
    assert (tmp_path / ".ours.txt.tmp").is_symlink(), "not ours to remove"


def test_a_pipe_and_a_link_that_a_user_names_stay_what_they_are(tmp_path: Path) -> None:
    pipe, target, link = tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_named(pipe, b"text")
        assert (os.read(reader, 9), pipe.is_fifo()) == (b"text", True)
    finally:
        os.close(reader)
    link.symlink_to(target)
    for content in (b"new", b"newer"):
        files.write_named(link, content)
        assert (target.read_bytes(), link.is_symlink()) == (content, True)
    with pytest.raises(IsADirectoryError):
        files.write_named(tmp_path, b"text")


def test_what_a_dead_writer_left_is_taken_away_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    left, path = tmp_path / ".file.tmp", tmp_path / "file"
    left.write_text("half")
    files.write_whole(path, (b"whole",))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]
    with left.open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        files.write_whole(path, (b"another",))
        assert left.exists()
    assert path.read_text() == "another"


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_whole(path, chunks())
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


# -- locks -------------------------------------------------------------------------------------------------------------


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    program = "import sys, pathlib; from gpusched import files; files.lock(pathlib.Path(sys.argv[1])); print(); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(files.Locked) as locked:
            files.lock(tmp_path / "lock")
        assert locked.value.holder == f"the process {holder.pid}"
        assert not files.is_free(tmp_path / "lock")
        holder.communicate(b"\n")
    assert files.is_free(tmp_path / "lock")
    assert not files.is_free(tmp_path / "none"), "not certain"
    os.close(files.lock(tmp_path / "lock"))


@pytest.mark.parametrize("planted", ["a link", "a second name", "a directory", "a pipe"])
def test_a_lock_is_ours_or_refused(tmp_path: Path, precious: Path, planted: str) -> None:
    path, notes = tmp_path / "lock", precious / "NOTES.md"
    match planted:
        case "a link":
            path.symlink_to(notes)
        case "a second name":
            path.hardlink_to(notes)
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
    with pytest.raises((directories.NotOurs, IsADirectoryError)):
        files.lock(path)
    assert notes.read_text() == "mine"
