"""Windows of commands: run in a launcher's fork, as a slot runs them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gpusched.command import WORKLOAD
from gpusched.core.model import WindowResult
from gpusched.engines.attendance import Awaited
from gpusched.engines.local.launcher import Confines
from gpusched.engines.local.process import Process
from gpusched.worker.messages import Error, ProcessEnd, WindowJob
from tests.worker.support import Bench, bench


class Commands:
    """Runs commands in windows; the scripts are in `directory`."""

    def __init__(self, workers: Bench) -> None:
        self.workers = workers
        self.directory = workers.directory

    def script(self, text: str, name: str = "train.py") -> Path:
        """Write an executable script."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def shell(self, text: str) -> list[str]:
        """The words of a command that runs a shell script with the placeholder of its output as $1."""
        return [str(self.script(f"#!/bin/sh\n{text}\n", "train.sh")), "{output_dir}"]

    def python(self, text: str, *arguments: str) -> list[str]:
        return [sys.executable, str(self.script(text)), "{output_dir}", *arguments]

    async def start(
        self, argv: list[str], preload: tuple[str, ...] = (), **settings: Any
    ) -> Awaited[Process, ProcessEnd]:
        given: Any = {"argv": argv, "directory": str(self.directory), "preload": list(preload), **settings}
        job = self.workers.job(WORKLOAD, **given)
        job = WindowJob(workload=job.workload, task=job.task, output_dir=job.output_dir, imports=preload)
        return await self.workers.launcher.fork(
            job, Confines(log_path=self.workers.log, env={"CUDA_VISIBLE_DEVICES": "GPU-1"})
        )

    async def run(self, argv: list[str], preload: tuple[str, ...] = (), **settings: Any) -> ProcessEnd:
        process = await self.start(argv, preload, **settings)
        return await process.wait(self.workers.messages.append)

    async def result(self, argv: list[str], preload: tuple[str, ...] = (), **settings: Any) -> WindowResult:
        await self.run(argv, preload, **settings)
        found = self.workers.last
        assert isinstance(found, WindowResult), (found, self.log)
        return found

    async def error(self, argv: list[str], preload: tuple[str, ...] = (), **settings: Any) -> Error:
        await self.run(argv, preload, **settings)
        found = self.workers.last
        assert isinstance(found, Error), (found, self.log)
        return found

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    @property
    def log(self) -> str:
        return self.workers.log.read_text() if self.workers.log.exists() else ""


@contextlib.asynccontextmanager
async def commands(directory: Path) -> AsyncIterator[Commands]:
    async with bench(directory) as workers:
        yield Commands(workers)


def committed(directory: Path) -> list[str]:
    """The results, whole or partial, below the output directory."""
    return [path.name for pattern in ("*_to_*", ".partial/*") for path in (directory / "output").glob(pattern)]


def names(directory: str | Path) -> set[str]:
    """The names of the files of a result."""
    return {path.name for path in Path(directory).iterdir()}
