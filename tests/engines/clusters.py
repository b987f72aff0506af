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
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched.config import Engine

#: seconds in which a head must be there: it takes 10 on a machine that does nothing else
START_S = 120.0


needs_ray = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


@contextlib.contextmanager
def head(directory: Path) -> Iterator[str]:
    """Start a head; yield the address of its cluster."""
    command = ["start", "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={directory}", "--block"]
    environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_memory_monitor_refresh_ms": "0"}
    with (directory / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        said, deadline = directory / "head.log", time.monotonic() + START_S
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield (directory / "ray_current_cluster").read_text().strip()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def loopback(directory: Path, *hosts: str) -> Engine:
    """The settings of an engine whose nodes are processes of this machine, without Ray and without shared files."""
    interpreter = directory / "interpreter"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.engines.loopback "$4" "$5" "$6"\n')
    interpreter.chmod(0o755)
    return Engine(kind="ray", address=",".join(hosts), python=str(interpreter), scratch=str(directory / "scratch"))
