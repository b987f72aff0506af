"""`gpusched` as a user runs it: a command in its own directory, with its own cache."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gpusched import artifacts, cli
from gpusched.metadata import read_metadata
from tests.waiting import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
#: the files of a window that must be the same, byte for byte, however it was trained
REPRODUCIBLE = ("model.txt", "model.pkl", "labels.csv.gz", "predictions.csv.gz", "feature_importance.csv")
#: commands that show or need nothing of a process of their own
WITHIN = {
    "cancel", "compare", "config", "devices", "drain", "explain", "forget", "hold", "logs", "nodes", "plan",
    "priority", "release", "report", "results", "resume", "retry", "run", "show", "status", "submit", "wait", "windows",
}  # fmt: skip


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
        ended, out, err = self.ended(*arguments)
        assert "Traceback" not in err, err
        assert ended == code, (ended, out, err)
        return out, err

    def ended(self, *arguments: object) -> tuple[int, str, str]:
        """Run gpusched to its end and return its exit code, its stdout and its stderr.

        It runs in this process where it can: most of its time as a process of its own were imports.
        """
        # A process looks for NVML, CUDA and OpenMP once, where its environment says that libraries are.
        elsewhere = self.environment.get("LD_LIBRARY_PATH") != os.environ.get("LD_LIBRARY_PATH")
        if arguments[0] in WITHIN and not self.prefix and not elsewhere:
            return self._within(*map(str, arguments))
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def _within(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command that has this process, its streams and its environment."""
        with contextlib.ExitStack() as stack:
            nobody = stack.enter_context(Path(os.devnull).open())
            # files, as a command may write to the descriptor itself
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
            with pytest.MonkeyPatch.context() as patch:
                for name, stream in (("stdin", nobody), ("stdout", out), ("stderr", err)):
                    patch.setattr(sys, name, stream)
                patch.chdir(self.directory)
                for name in os.environ.keys() - self.environment.keys():
                    patch.delenv(name)
                for name, text in self.environment.items():
                    patch.setenv(name, text)
                try:
                    code = cli.run(arguments)
                except SystemExit as exit:  # wrong usage
                    code = int(exit.code or 0)
            for stream in (out, err):
                stream.seek(0)
            return code, out.read(), err.read()

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
        metadata = read_metadata(directory)
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
