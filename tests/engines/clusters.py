"""Clusters on this machine: a Ray head, for the slow tests, and nodes without Ray, for all others.

The latter have a bridge of their own (`loopback`), which is called in the place of the cluster's interpreter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched.config import Engine
from tests.waiting import until

#: seconds in which a head must be there: it takes 10 on a machine that does nothing else
START_S = 120.0
#: words of `ray start` once it has
STARTED = "Ray runtime started"


needs_ray = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


@contextlib.contextmanager
def head(directory: Path) -> Iterator[str]:
    """Start a head; yield the address of its cluster."""
    command = ["start", "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={directory}", "--block"]
    # Its actors have the low priority that Ray gives them by default: agents undo that.
    environment = {**os.environ, "RAY_memory_monitor_refresh_ms": "0"}
    log = directory / "head.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    try:
        until(lambda: process.poll() is not None or STARTED in log.read_text(), patience_s=START_S, said=log.read_text)
        assert process.poll() is None, log.read_text()
        yield (directory / "ray_current_cluster").read_text().strip()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def loopback(directory: Path, *hosts: str, driver: Path | None = None) -> Engine:
    """The settings of an engine whose nodes are processes of this machine, without Ray and without shared files.

    `driver`: they are as those of an actor whose driver was started in this directory.
    """
    interpreter = directory / "interpreter"
    words = f'exec {sys.executable} -m tests.engines.loopback "$4" "$5" "$6" {driver or ""}'
    interpreter.write_text(f"#!/bin/sh\n{words}\n")
    interpreter.chmod(0o755)
    return Engine(kind="ray", address=",".join(hosts), python=str(interpreter), scratch=str(directory / "scratch"))
