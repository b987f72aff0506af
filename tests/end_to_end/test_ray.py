"""`gpusched run --engine ray`: the same results as on one machine, also if a node is lost on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.engines.clusters import needs_ray
from tests.engines.conftest import cluster as cluster

pytestmark = needs_ray
WINDOWS = 24


def agents(directory: Path) -> list[int]:
    """The agents of nodes that work for a run in this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"gpusched.engines.ray.agent" in (process / "cmdline").read_bytes()
                and (process / "cwd").resolve() == directory.resolve()
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_run_on_a_cluster_equals_one_on_this_machine(gpusched: Command, cluster: str) -> None:
    gpusched("run", "symbols.txt", "-o", "here")
    found = gpusched.json("run", "symbols.txt", "-o", "there", "--engine", "ray", "--set", f"engine.address={cluster}")
    assert found["windows"]["succeeded"] == WINDOWS
    here, there = gpusched.directory / "here", gpusched.directory / "there"
    check_sound(there, WINDOWS)
    assert hashes(there) == hashes(here)
    assert all(line["device"].startswith("cpu@") for line in index(there))
    assert agents(gpusched.directory) == []


def test_a_node_that_is_lost_costs_no_attempt(gpusched: Command, cluster: str) -> None:
    """Its agent is killed, and all windows with it; it is held again, and the run goes on."""
    arguments = ("run", "symbols.txt", "-o", "out", "--engine", "ray", "--set", f"engine.address={cluster}")
    with gpusched.start(*arguments, "--set", "run.max_attempts=1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[3/"):
                (agent,) = agents(gpusched.directory)
                os.kill(agent, signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait() == 0, rest
    assert [line["status"] for line in index(gpusched.directory / "out")] == ["success"] * WINDOWS
    again = gpusched.json("run", "symbols.txt", "-o", "out")  # here, which also sweeps up what killed windows left
    assert again["windows"]["reused"] == WINDOWS
    check_sound(gpusched.directory / "out", WINDOWS)
