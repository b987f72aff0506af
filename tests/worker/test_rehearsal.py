"""Windows that a launcher runs itself before it forks any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.worker.rehearsal import PAYING, TIMES

_PROGRAM = """
import sys
from gpusched.worker.loading import load_function
from gpusched.worker.rehearsal import Rehearsals

workload, most = sys.argv[1], int(sys.argv[2])
load_function(workload)
rehearsals = Rehearsals()
rehearsals.begin(workload)
print(rehearsals.are_left, rehearsals.shared_bytes)
while rehearsals.are_left and most:
    rehearsals.go_on()
    most -= 1
rehearsals.drop()
print(rehearsals.are_left, rehearsals.shared_bytes > 0)
"""

_WORKLOAD = """
import datetime as dt
from pathlib import Path
from gpusched.workload import Result, Task

place = Path({place!r})

def trains(task, directory, report):
    with (place / "trained").open("a") as file:
        file.write(f"{{task.label}} {{task.data_root}} {{directory.parent.parent.parent}}\\n")
    report("training")
    return Result(metrics={{}}, sample_counts={{}}, metadata={{}}, phases={{}})

def fails(task, directory, report):
    trains(task, directory, report)
    raise MemoryError

def __rehearsal__(directory):
    day = dt.date(2022, 1, 1)
    return Task(symbol="ONE", start=day, end=day, data_root=str(directory), cache_dir=str(directory), settings={{}})
"""


def rehearsed(tmp_path: Path, function: str, most: int = 100, text: str = _PROGRAM) -> tuple[list[str], list[str]]:
    """The program's lines, and those of the windows that it ran."""
    (tmp_path / "mine.py").write_text(_WORKLOAD.format(place=str(tmp_path)))
    program = [sys.executable, "-W", "error", "-c", text, f"{tmp_path}:mine:{function}", str(most)]
    output = subprocess.run(program, capture_output=True, text=True, check=True)
    assert output.stderr == ""
    windows = tmp_path / "trained"
    return output.stdout.splitlines(), windows.read_text().splitlines() if windows.exists() else []


@pytest.mark.parametrize(
    ("function", "most", "times", "last"),
    [
        ("trains", TIMES + 1, TIMES, "False True"),
        ("trains", 2, 2, "True False"),
        ("fails", 1, 1, "False True"),
    ],
    ids=["all", "dropped", "failing"],
)
def test_a_workload_rehearses_its_own_window(tmp_path: Path, function: str, most: int, times: int, last: str) -> None:
    said, windows = rehearsed(tmp_path, function, most)
    assert said == ["True 0", last]
    assert len(windows) == times
    label, data, output = windows[0].split()
    assert label.startswith("ONE")
    assert data == output, "the data, the results and nothing else lie in one directory"
    assert not Path(data).exists()


@pytest.mark.parametrize(
    ("forks", "times", "left"),
    [(1, 1, True), (PAYING, 1, True), (PAYING + 1, 2, True), (PAYING + TIMES, TIMES, False)],
)
def test_the_first_comes_before_any_fork_and_the_others_before_later_ones(
    tmp_path: Path, forks: int, times: int, left: bool
) -> None:
    program = _PROGRAM.replace("rehearsals.go_on()", "rehearsals.before_fork()").replace("rehearsals.drop()", "")
    said, windows = rehearsed(tmp_path, "trains", forks, program)
    assert (said, len(windows)) == (["True 0", f"{left} True"], times)


def test_a_workload_without_one_rehearses_a_window_that_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def trains(task, directory, report):\n    raise AssertionError\n")
    program = [sys.executable, "-W", "error", "-c", _PROGRAM, f"{tmp_path}:plain:trains", str(TIMES + 1)]
    output = subprocess.run(program, capture_output=True, text=True, check=True)
    assert (output.stdout, output.stderr) == ("True 0\nFalse True\n", "")


_FLUSHED = """
import os

def refuse(descriptor):
    raise SystemExit("a rehearsal waits for the disk")

os.fsync = refuse
"""


def test_a_rehearsal_flushes_nothing(tmp_path: Path) -> None:
    """A flush may start threads, which a fork must not meet."""
    _, windows = rehearsed(tmp_path, "trains", text=_FLUSHED + _PROGRAM)
    assert len(windows) == TIMES
