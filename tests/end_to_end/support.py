"""`gpusched` as a user runs it: a command in its own directory, with its own cache."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpusched import artifacts

REPOSITORY = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
#: the files of a window that must be the same, byte for byte, however it was trained
REPRODUCIBLE = ("model.txt", "model.pkl", "labels.csv.gz", "predictions.csv.gz", "feature_importance.csv")
TIMEOUT_S = 100


class Command:
    """Runs `gpusched` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: a command that starts gpusched as its last arguments; empty: nothing but gpusched
        self.prefix: tuple[str, ...] = ()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GPUSCHED_")}
        self.environment = kept | {"XDG_CACHE_HOME": str(directory / "cache"), "PYTHONPATH": str(REPOSITORY)}

    def start(self, *arguments: object, reads: bool = False) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "gpusched", *map(str, arguments)],
            stdin=subprocess.PIPE if reads else None,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run gpusched to its end and return its stdout."""
        out, _ = self.said(*arguments, code=code)
        return out

    def said(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        """Run gpusched to its end and return its stdout and its stderr."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in err, err
        assert process.returncode == code, (process.returncode, out, err)
        return out, err

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Run gpusched to its end and return its stdout, which is one JSON object and nothing else."""
        found = json.loads(self(*arguments, "--json", code=code))
        assert isinstance(found, dict)
        return found


def index(output: Path) -> list[dict[str, Any]]:
    """The lines of an output directory's `teacher_runs.json`."""
    return [json.loads(line) for line in (output / "teacher_runs.json").read_text().splitlines()]


def hashes(output: Path) -> dict[str, str]:
    """The SHA-256, by path, of every file below an output directory that must be reproducible."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.glob("*/*"))
        if path.name in REPRODUCIBLE
    }


def check_sound(output: Path, trained: int) -> None:
    """Check that there are `trained` window directories, that each is sound, and that nothing half-written is left."""
    directories = [path for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert len(directories) == trained
    for directory in directories:
        metadata = artifacts.read_metadata(directory)
        assert metadata is not None, directory
        assert artifacts.verify(directory, {str(metadata.fingerprint)}) is not None, directory
        assert {path.name for path in directory.iterdir()} == {*REPRODUCIBLE, "metadata.json"}
    assert not list(output.glob(".partial/*"))


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def wait_for_descendants() -> int:
    """Wait until this process has no descendant left; return the number that ended. Needs `adopt_orphans`."""
    count = 0
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return count
        count += 1
