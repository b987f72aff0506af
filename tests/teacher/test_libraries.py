"""The traces of preloading in a process: few modules, one thread, and the same results."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gpusched.workload import Result
from tests.teacher.support import window_task
from tests.waiting import PATIENCE_S

_PROGRAM = """
import sys
from pathlib import Path
import msgspec
from gpusched import teacher
from gpusched.worker.rehearsal import make_ready
from gpusched.workload import Task

task, directory, preload = sys.argv[1:]
if preload == "preload":
    teacher.preload()
    make_ready("gpusched.teacher:train_window")
    before = set(sys.modules)
    print(Path("/proc/self/status").read_text().split("Threads:")[1].split()[0], "thread")
    print("hidden:", sorted(name for name, module in sys.modules.items() if module is None))
    from gpusched.teacher import booster
    print("trained:", "LGBM_BoosterUpdateOneIter" in vars(booster._lib))
    heavy = {"lightgbm", "scipy", "pandas", "sklearn", "polars", "pyarrow"}
    heavy |= {"importlib.metadata", "logging", "numpy.ma", "random", "tempfile"}
    heavy |= set() if sys.version_info >= (3, 14) else {"threading"}  # ctypes imports it
    print("heavy:", sorted(heavy & set(sys.modules)))
teacher.train_window(msgspec.json.decode(task, type=Task), Path(directory), lambda phase, round=0, rounds=0: None)
if preload == "preload":
    print("later:", sorted(set(sys.modules) - before))
    import pandas
"""


def run(root: Path, preload: str, **variables: str) -> tuple[str, dict[str, str]]:
    """The output of a process that trains the window, and the digests of its artifacts."""
    directory = root / f"{preload}-{len(variables)}"
    directory.mkdir()
    task = msgspec.json.encode(window_task(root)).decode()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, task, str(directory), preload],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture
def expected(trained: tuple[Path, Result]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (trained[0] / "artifacts").iterdir()}


def test_preloaded(root: Path, expected: dict[str, str]) -> None:
    output, artifacts = run(root, "preload")
    assert output.splitlines() == ["1 thread", "hidden: []", "trained: True", "heavy: []", "later: []"]
    assert artifacts == expected


def test_plain(root: Path, expected: dict[str, str]) -> None:
    output, artifacts = run(root, "plain", OMP_NUM_THREADS="2", PYTHONHASHSEED="1")
    assert output == ""
    assert artifacts == expected


_FORKS = """
import os, sys
from pathlib import Path
import msgspec
from gpusched import teacher
from gpusched.workload import Task

teacher.preload()
from gpusched.teacher import training

training.ROWS_PER_THREAD = 10
task, directory = sys.argv[1:]
threads = set()

def report(phase, round=0, rounds=0):
    threads.add(len(os.listdir("/proc/self/task")))

if os.fork() == 0:
    teacher.train_window(msgspec.json.decode(task, type=Task), Path(directory), report)
    print(max(threads), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_fork_of_a_process_that_has_trained_uses_threads(root: Path, expected: dict[str, str]) -> None:
    directory = root / "forked"
    directory.mkdir()
    task = msgspec.json.encode(window_task(root, threads=3)).decode()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORKS, task, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,  # a thread that did not survive the fork would be waited for for ever
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert done.stdout == "3\n"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()} == expected


def test_surveys_need_no_lightgbm_and_import_nothing_after_their_preload(tmp_path: Path) -> None:
    program = """
import sys
from gpusched import teacher
from gpusched.workload import DateRange, SurveyTask
import datetime as dt

teacher.preload_survey()
before = set(sys.modules)
day = dt.date(2022, 1, 1)
root = sys.argv[1]
windows = (DateRange(day, day),)
task = SurveyTask(symbol="SYM", windows=windows, data_root=root, cache_dir=root, settings={})
print(teacher.survey(task).windows[0].bars)
print(sorted({"lightgbm", "pandas", "scipy"} & set(sys.modules)), sorted(set(sys.modules) - before))
"""
    rows = (f"2022-01-01T09:{minute}:00,1,1,1,1,1" for minute in range(10, 60))
    (tmp_path / "SYM.csv").write_text("\n".join(("timestamp,open,high,low,close,volume", *rows)))
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.stdout == "50\n[] []\n", process.stderr
