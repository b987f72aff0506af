"""An output directory in which others put things: `gpusched run` deletes nothing that is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.support import Command, check_sound

LABEL = "IBM_2006-01-01_to_2006-05-02"
#: one symbol, three windows
ASKED = ("one.txt", "-o", "out", "--end", "2006-12-31")
OTHER = (*ASKED, "--horizon", "5", "--replace")


@pytest.mark.thorough
def test_results_moved_to_a_bigger_disk_and_linked_back(gpusched: Command) -> None:
    """As somebody did it: the next run with another horizon emptied the disk that they had been moved to."""
    out, bigger = gpusched.directory / "out", gpusched.directory / "bigger"
    (gpusched.directory / "one.txt").write_text("IBM\n")
    gpusched("run", *ASKED)
    bigger.mkdir()
    for path in sorted(out.glob("IBM_*")):
        path.rename(bigger / path.name)
        (bigger / path.name / "NOTES.md").write_text("mine")
        path.symlink_to(bigger / path.name)
    before = {path: path.read_bytes() for path in bigger.rglob("*") if path.is_file()}
    assert gpusched.json("run", *ASKED)["windows"]["reused"] == 3, "results are read through links"

    said = "3 to train, 0 to reuse, 0 to skip; 3 things that are not results will be moved aside"
    _, planned = gpusched.said("plan", *OTHER)
    assert said in planned
    assert gpusched.json("plan", *OTHER)["totals"] == {"total": 3, "train": 3, "reuse": 0, "skip": 0, "move_aside": 3}
    told = gpusched("run", *OTHER)
    assert f"Plan: {said}\n" in told
    assert f"{LABEL} was no result of gpusched: moved aside to {LABEL}.not-a-result\n" in told
    assert {path: path.read_bytes() for path in bigger.rglob("*") if path.is_file()} == before
    assert (out / f"{LABEL}.not-a-result").readlink() == bigger / LABEL
    for path in out.glob("*.not-a-result"):
        path.unlink()
    check_sound(out, 3)


@pytest.mark.thorough
def test_results_of_other_parameters_are_replaced_and_that_is_said_before(gpusched: Command) -> None:
    (gpusched.directory / "one.txt").write_text("IBM\n")
    gpusched("run", *ASKED)
    _, planned = gpusched.said("plan", *OTHER)
    assert (
        "3 to train, 0 to reuse, 0 to skip; 3 results of other parameters, data or versions will be replaced" in planned
    )
    assert gpusched.json("plan", *OTHER)["totals"]["replace"] == 3
    told = gpusched("run", *OTHER)
    assert told.index("3 results of other parameters, data or versions will be replaced") < told.index("[1/3]")
    check_sound(gpusched.directory / "out", 3)
    assert "replaced" not in gpusched.said("plan", *OTHER)[1]


def test_what_is_ours_in_an_output_directory_is_ours_or_refused(gpusched: Command) -> None:
    out, precious = gpusched.directory / "out", gpusched.directory / "precious"
    (gpusched.directory / "one.txt").write_text("IBM\n")
    (precious / "IBM.1234" / "deep").mkdir(parents=True)
    (precious / "IBM.1234" / "deep" / "state.db").write_text("mine")
    (precious / "index").write_text("mine, too")
    before = {path: path.read_bytes() for path in precious.rglob("*") if path.is_file()}
    out.mkdir()
    for name in (".gpusched", ".partial"):
        (out / name).symlink_to(precious)
        _, said = gpusched.said("run", *ASKED, code=4)
        assert f"{out / name} is a link\nhint: move it away, or choose another directory" in said
        if name == ".partial":
            _, said = gpusched.said("train", "IBM", "2006-01-01", "2006-05-02", "-o", "out", code=4)
            assert f"{out / name} is a link" in said
        (out / name).unlink()
    (out / ".teacher_runs.json.tmp").symlink_to(precious / "index")
    (out / "teacher_runs.json").symlink_to(precious / "index")
    assert gpusched.json("run", *ASKED)["windows"]["succeeded"] == 3
    assert {path: path.read_bytes() for path in precious.rglob("*") if path.is_file()} == before
    assert len((out / "teacher_runs.json").read_text().splitlines()) == 3
    assert (out / "teacher_runs.json.not-an-index").readlink() == precious / "index"


def test_a_directory_that_only_has_the_name_of_a_window(gpusched: Command) -> None:
    (gpusched.directory / "one.txt").write_text("IBM\n")
    thesis = gpusched.directory / "out" / LABEL
    thesis.mkdir(parents=True)
    (thesis / "chapter.txt").write_text("mine")
    Path(f"{thesis}.not-a-result").mkdir()
    gpusched("run", *ASKED)
    assert (thesis.with_name(f"{LABEL}.not-a-result.2") / "chapter.txt").read_text() == "mine"
    assert json.loads((thesis / "metadata.json").read_text())["label"] == LABEL


def test_what_gpusched_keeps_for_itself_is_no_output(gpusched: Command) -> None:
    _, said = gpusched.said("run", "symbols.txt", "-o", "cache/gpusched/bars", code=4)
    kept = gpusched.directory / "cache" / "gpusched"
    assert f"the output directory {kept / 'bars'} lies in {kept}, where gpusched keeps its own files" in said
    assert not (kept / "bars" / ".gpusched").exists()
