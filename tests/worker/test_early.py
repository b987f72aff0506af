"""A launcher process that was started before its supervisor."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from gpusched.core.model import WindowResult
from gpusched.engines.engine import LauncherLost
from gpusched.engines.local import early, leftovers, proc
from gpusched.engines.local.early import Early
from gpusched.engines.local.launcher import Launcher
from gpusched.worker.mark import MARK
from tests.waiting import PATIENCE_S
from tests.worker.support import REPOSITORY, WORKLOADS, Bench, exists, exited


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Early]:
    monkeypatch.chdir(REPOSITORY)
    early.start_early(f"{WORKLOADS}:nothing")
    yield early._waiting[0]
    early.dismiss()


async def test_it_is_as_one_that_was_started_later(
    started: Early, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, environment = tmp_path / "launcher.log", {**os.environ, "TOLD_LATER": "yes"}
    with anyio.fail_after(PATIENCE_S):
        async with Launcher(log_path=log, mark="a-store", environment=environment) as launcher:
            b = Bench(launcher, tmp_path)
            names = ["TOLD_LATER", "OMP_NUM_THREADS", MARK]
            assert (await b.run("shows_itself", names=json.dumps(names))).exit_code == 0
            assert (b.launcher_pid, launcher.starts) == (started.started.program.pid, 1)
            assert isinstance(b.last, WindowResult)
            variables = b.last.metrics["environment"]
            assert (variables["TOLD_LATER"], variables["OMP_NUM_THREADS"]) == ("yes", "3")
            assert variables[MARK].startswith(f"a-store/{os.getpid()}-")
            assert leftovers.find(variables[MARK]) == leftovers.find("a-store") == [b.launcher_pid]
            os.kill(started.started.program.pid, signal.SIGSEGV)
            with pytest.raises(LauncherLost, match="Segmentation fault"):
                await launcher.preload(f"{WORKLOADS}:nothing", "window")
    assert "Segmentation fault" in log.read_text()


async def test_its_last_words_are_kept_if_it_dies_before_it_is_claimed(started: Early, tmp_path: Path) -> None:
    os.write(started.log, b"cannot go on\n")
    started.started.program.kill()
    await exited(os.pidfd_open(started.started.program.pid))
    log = tmp_path / "launcher.log"
    with anyio.fail_after(PATIENCE_S):
        async with Launcher(log_path=log) as launcher:
            with pytest.raises(LauncherLost, match="cannot go on"):
                await launcher.preload(f"{WORKLOADS}:nothing")


async def test_it_is_dismissed_where_another_module_needs_one(started: Early, tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with Launcher() as launcher:
            await launcher.preload("gpusched.command:run_command", "survey")
            assert not exists(started.started.program.pid)


async def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """Neither a directory nor a process."""
    refused = await anyio.run_process(
        [sys.executable, "-m", "gpusched", "run", "missing.txt", "-o", "out"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "XDG_CONFIG_HOME": str(tmp_path / "none"), "ONLY": str(tmp_path)},
        check=False,
    )
    assert refused.returncode == 4
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
    assert not [pid for pid, _ in proc.living() if f"ONLY={tmp_path}".encode() in proc.environment(pid)]
