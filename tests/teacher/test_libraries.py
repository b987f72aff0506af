"""What preloading leaves in a process: few modules, one thread, and the same results."""

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

_PROGRAM = """
import sys
from pathlib import Path
import msgspec
from gpusched import teacher
from gpusched.workload import Task

task, directory, preload = sys.argv[1:]
if preload == "preload":
    teacher.preload()
    before = set(sys.modules)
    print(Path("/proc/self/status").read_text().split("Threads:")[1].split()[0], "thread")
    print("hidden:", sorted(name for name, module in sys.modules.items() if module is None))
    print("heavy:", sorted({"pandas", "sklearn", "polars", "pyarrow"} & set(sys.modules)))
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
    assert output.splitlines() == ["1 thread", "hidden: []", "heavy: []", "later: []"]
    assert artifacts == expected


def test_plain(root: Path, expected: dict[str, str]) -> None:
    output, artifacts = run(root, "plain", OMP_NUM_THREADS="2", PYTHONHASHSEED="1")
    assert output == ""
    assert artifacts == expected
