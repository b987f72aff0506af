"""Files that are no results of ours are never deleted, wherever it stands; and links are not followed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gpusched import artifacts, directories, outputs
from gpusched.artifacts import Partial
from tests.worker.test_artifacts import LABEL, NEW, OLD, commit, metadata, write


def moved_to_a_bigger_disk(output: Path) -> None:
    """The result, a note beside it, and a link back."""
    path = commit(output, OLD)
    bigger = output.parent / "bigger"
    bigger.mkdir()
    path.rename(bigger / LABEL)
    path.symlink_to(bigger / LABEL)


def a_note_in_a_result(output: Path) -> None:
    (commit(output, OLD) / "NOTES.md").write_text("mine")


def a_link_in_a_result(output: Path) -> None:
    path = commit(output, OLD)
    (output.parent / "notes").mkdir()
    (path / "model.txt").rename(output.parent / "notes" / "model.txt")
    (path / "model.txt").symlink_to(output.parent / "notes" / "model.txt")


def a_directory_of_that_name(output: Path) -> None:
    (output / LABEL / "thesis").mkdir(parents=True)
    (output / LABEL / "thesis" / "chapter.txt").write_text("mine")


def an_empty_directory(output: Path) -> None:
    (output / LABEL).mkdir(parents=True)


def a_file(output: Path) -> None:
    output.mkdir()
    (output / LABEL).write_text("mine")


def a_broken_link(output: Path) -> None:
    output.mkdir()
    (output / LABEL).symlink_to("nowhere")


def a_result_of_another_window(output: Path) -> None:
    commit(output, OLD).rename(output / "copy")
    (output / "copy").rename(output / LABEL)
    path = output / LABEL / "metadata.json"
    path.write_text(path.read_text().replace(LABEL, "OTHER"))


def a_broken_result(output: Path) -> None:
    (commit(output, OLD) / "metadata.json").write_text("{")


STRANGERS = [
    *(moved_to_a_bigger_disk, a_note_in_a_result, a_link_in_a_result, a_directory_of_that_name, an_empty_directory),
    *(a_file, a_broken_link, a_result_of_another_window, a_broken_result),
]


def tree(path: Path) -> dict[str, str]:
    """Everything below, as it is, without gpusched's own files."""
    found = {}
    for one in sorted(path.rglob("*")):
        if ".partial" in one.parts:
            continue
        what = f"→ {one.readlink()}" if one.is_symlink() else one.read_text() if one.is_file() else "directory"
        found[str(one.relative_to(path))] = what
    return found


def renamed(found: dict[str, str]) -> dict[str, str]:
    """As `tree` finds it once the occupant of the label was moved aside."""
    old, new = f"output/{LABEL}", f"output/{LABEL}.not-a-result"
    return {new + name.removeprefix(old) if name.startswith(old) else name: what for name, what in found.items()}


@pytest.mark.parametrize("exchange", ["with exchange", "without exchange"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_moved_aside_as_it_is(
    tmp_path: Path, stranger: Callable[[Path], None], exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exchange == "without exchange":
        monkeypatch.setattr(directories, "_renamed", lambda *arguments: False)
    output = tmp_path / "output"
    stranger(output)
    before = tree(tmp_path)
    assert artifacts.standing(output, LABEL) == "stranger"
    partial = write(output, NEW)
    path = partial.commit(metadata(NEW))
    assert partial.moved_aside == f"{LABEL}.not-a-result"
    assert artifacts.verify(path, {NEW}) is not None
    assert not path.is_symlink()
    after = tree(tmp_path)
    result = {name: what for name, what in after.items() if (name + "/").startswith(f"output/{LABEL}/")}
    assert {name: what for name, what in after.items() if name not in result} == renamed(before)
    assert list((output / ".partial").iterdir()) == []


def test_one_after_the_other_gets_a_number(tmp_path: Path) -> None:
    for _ in range(3):
        (commit(tmp_path, OLD) / "NOTES.md").write_text("mine")
    commit(tmp_path, NEW)
    aside = [f"{LABEL}.not-a-result", f"{LABEL}.not-a-result.2", f"{LABEL}.not-a-result.3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial", LABEL, *aside]


def test_a_result_of_ours_is_replaced_and_nothing_is_moved_aside(tmp_path: Path) -> None:
    assert artifacts.standing(tmp_path, LABEL) == "nothing"
    commit(tmp_path, OLD)
    assert artifacts.standing(tmp_path, LABEL) == "result"
    partial = write(tmp_path, NEW)
    partial.commit(metadata(NEW))
    assert partial.moved_aside is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial", LABEL]


def test_a_linked_result_is_read_and_reused(tmp_path: Path) -> None:
    moved_to_a_bigger_disk(tmp_path / "output")
    assert artifacts.verify(tmp_path / "output" / LABEL, {OLD}) is not None


def test_a_linked_output_directory_is_fine(tmp_path: Path) -> None:
    (tmp_path / "bigger").mkdir()
    (tmp_path / "output").symlink_to(tmp_path / "bigger")
    path = commit(tmp_path / "output", NEW)
    assert path == tmp_path / "output" / LABEL
    assert artifacts.verify(tmp_path / "bigger" / LABEL, {NEW}) is not None


def test_a_stranger_that_comes_between_the_look_and_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, OLD)
    real = directories.exchange

    def exchange(*names: str | int) -> bool:
        (tmp_path / LABEL / "NOTES.md").write_text("written a moment ago")
        return real(*names)  # type: ignore[arg-type]

    monkeypatch.setattr(directories, "exchange", exchange)
    path = commit(tmp_path, NEW)
    assert artifacts.verify(path, {NEW}) is not None
    assert (tmp_path / f"{LABEL}.not-a-result" / "NOTES.md").read_text() == "written a moment ago"


# -- .partial ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    (path / f"{LABEL}.4242" / "below").mkdir(parents=True)
    (path / f"{LABEL}.4242" / "below" / "state.db").write_text("mine")
    return path


def test_a_partial_directory_that_is_a_link_is_refused(tmp_path: Path, precious: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / ".partial").symlink_to(precious)
    before = tree(precious)
    with pytest.raises(directories.NotOurs, match=r"output/\.partial is a link"):
        outputs.sweep_partial(output)
    with pytest.raises(directories.NotOurs, match=r"output/\.partial is a link"):
        Partial(output, LABEL)
    assert tree(precious) == before


def test_links_in_the_partial_directory_are_not_followed(tmp_path: Path, precious: Path) -> None:
    partial = tmp_path / "output" / ".partial"
    (partial / f"{LABEL}.4242").mkdir(parents=True)
    (partial / f"{LABEL}.4242" / "below").symlink_to(precious)
    (partial / f"{LABEL}.4243").symlink_to(precious)
    before = tree(precious)
    assert outputs.sweep_partial(tmp_path / "output") == 1
    assert sorted(path.name for path in partial.iterdir()) == [f"{LABEL}.4243"]
    assert tree(precious) == before


def test_only_directories_of_our_names_are_swept(tmp_path: Path) -> None:
    theirs = ["chapter.1", "chapter.1.old", "gpusched.1", "thesis", f"{LABEL}.backup"]
    ours = ["mine.gpusched.1", "mine.gpusched.2.1", "mine.gpusched.1.old", "mine.gpusched.1.old.2"]
    of_0_1 = [f"{LABEL}.1", f"{LABEL}.2.1", f"{LABEL}.1.old", f"{LABEL}_num_leaves=31.1"]
    for name in (*theirs, *ours, *of_0_1):
        (tmp_path / ".partial" / name).mkdir(parents=True)
    assert outputs.sweep_partial(tmp_path) == len(ours) + len(of_0_1)
    assert outputs.remove_results(tmp_path, {}) == (0, [])
    assert sorted(path.name for path in (tmp_path / ".partial").iterdir()) == sorted(theirs)


# -- obstacles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metadata.json", "model.txt"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = commit(tmp_path, NEW)
    (path / name).unlink()
    os.mkfifo(path / name)
    assert artifacts.verify(path, {NEW}) is None
    assert artifacts.standing(tmp_path, LABEL) == "stranger"


# -- all at once -------------------------------------------------------------------------------------------------------

#: things that are planted while results are committed
PLANTED = 300


@pytest.mark.filterwarnings("ignore:.* use of fork:DeprecationWarning")  # by Python 3.15: xdist has a thread
def test_nothing_that_is_planted_while_results_are_committed_is_lost(tmp_path: Path) -> None:
    """Two processes commit again and again, while files, links and directories come wherever they may."""
    output, precious = tmp_path / "output", tmp_path / "precious"
    (precious / "deep").mkdir(parents=True)
    (precious / "deep" / "file").write_text("mine")
    commit(output, OLD)
    committers = [_commit_until(tmp_path / "stop", output, f"W{number}") for number in range(2)]
    chance, planted = random.Random(7), set[str]()
    for number in range(PLANTED):
        token, label = f"token-{number}", f"W{number % 2}"
        # A result that is replaced in this very moment may be gone.
        with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError):
            place = output / label
            match chance.randrange(5):
                case 0:
                    place.symlink_to(precious / "deep" / ".." / token)
                case 1:
                    place.mkdir()
                    (place / "file").write_text(token)
                case 2:
                    with (place / f"NOTES-{number}.md").open("x") as notes:
                        notes.write(token)
                case 3:
                    (place / token).symlink_to(precious)
                case 4:
                    (output / ".partial" / f"{label}.{number}").symlink_to(precious / token)
            planted.add(token)
    (tmp_path / "stop").touch()
    assert [os.waitpid(child, 0)[1] for child in committers] == [0, 0]
    assert tree(precious) == {"deep": "directory", "deep/file": "mine"}
    found = {what for one in output.rglob("*") if one.is_symlink() for what in (one.readlink().name, one.name)}
    found |= {one.read_text() for one in output.rglob("*") if one.is_file() and not one.is_symlink()}
    assert len(planted) > PLANTED / 4
    assert planted - found == set()


def _commit_until(stop: Path, output: Path, label: str) -> int:
    """The pid of a process that commits old and new results of a window by turns, until there is a file `stop`."""
    child = os.fork()
    if child:
        return child
    failed = 1
    try:
        for fingerprint in itertools.cycle((OLD, NEW)):
            partial = Partial(output, label)
            (partial.path / "model.txt").write_text("model")
            partial.commit(msgspec.structs.replace(metadata(fingerprint), label=label))
            if stop.exists():
                break
        failed = 0
    finally:
        os._exit(failed)
