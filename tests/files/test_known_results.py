"""The index of results is written by fingerprint, and believed only as far as it is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusched import known_results

ONE, TWO = "1" * 64, "2" * 64


def write(cache: Path, directory: Path, *results: tuple[str, str], owner: int | None = None) -> Path:
    """Append results to the file of a directory, which is made; return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    with known_results.opened_for(cache, directory, owner) as file:
        file.writelines(known_results.line(*result) for result in results)
    return max((cache / known_results.DIRECTORY).iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_results_are_found_by_fingerprint_the_latest_first(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    os.utime(write(tmp_path, a, (ONE, "A")), (1, 1))
    file = write(tmp_path, b, (ONE, "A"), (TWO, "B"))
    assert known_results.paths(tmp_path, None) == {ONE: b / "A", TWO: b / "B"}
    assert file.stat().st_mode & 0o777 == 0o600
    b.rename(tmp_path / "moved")
    assert known_results.paths(tmp_path, None) == {ONE: a / "A"}
    write(tmp_path, a, (TWO, "B"))
    assert known_results.paths(tmp_path, None) == {ONE: a / "A", TWO: a / "B"}
    with known_results.opened_for(tmp_path, a, None) as file_of_a:
        assert known_results.lines(file_of_a) >= {known_results.line(ONE, "A"), known_results.line(TWO, "B")}


def test_a_client_finds_its_own_results_only(tmp_path: Path) -> None:
    write(tmp_path, tmp_path / "hers", (ONE, "A"), owner=1001)
    write(tmp_path, tmp_path / "his", (TWO, "A"), owner=1002)
    assert known_results.paths(tmp_path, 1001) == {ONE: tmp_path / "hers" / "A"}
    assert known_results.paths(tmp_path, None) == {}


@pytest.mark.parametrize("label", ["../x", ".hidden", "a/b", "", "a b"])
def test_a_label_leads_nowhere_else(tmp_path: Path, label: str) -> None:
    assert known_results.line(ONE, label) == b""
    file = write(tmp_path, tmp_path / "a", (TWO, "B"))
    with file.open("a") as more:
        more.write(f"{ONE} {label}\n")
    assert ONE not in known_results.paths(tmp_path, None)


def test_files_that_are_not_ours_are_not_read(tmp_path: Path) -> None:
    file = write(tmp_path, tmp_path / "a", (ONE, "A"))
    index = tmp_path / known_results.DIRECTORY
    (index / "link").symlink_to(write(tmp_path / "other", tmp_path / "b", (TWO, "B")))
    os.mkfifo(index / "pipe")
    (index / "garbage").write_bytes(b"\xff\n" + known_results.line(TWO, "B"))
    (index / "relative").write_bytes(b'{"directory": "b", "owner": null}\n' + known_results.line(TWO, "B"))
    (index / "nothing").touch()
    assert known_results.paths(tmp_path, None) == {ONE: tmp_path / "a" / "A"}
    os.link(file, tmp_path / "second-name")
    assert known_results.paths(tmp_path, None) == {}
    with pytest.raises(FileExistsError):
        known_results.opened_for(tmp_path, tmp_path / "a", None)
    assert known_results.paths(tmp_path / "no", None) == {}
