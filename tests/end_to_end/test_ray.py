"""`gpusched run --engine ray`: the same results as on one machine, also if a node is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from gpusched.config import Engine
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.end_to_end.test_nodes import agents, on
from tests.engines.clusters import needs_ray
from tests.engines.conftest import cluster as cluster

pytestmark = needs_ray
WINDOWS = 24
#: another job, which holds all processors of a cluster until its stdin ends
HOLDER = """
import os, sys
from pathlib import Path
if (Path.home() / ".ray" / "auth_token").exists():
    os.environ["RAY_AUTH_MODE"] = "token"  # a head demands it then
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=ray.cluster_resources()["CPU"])
class Holder:
    def here(self): return True
holder = Holder.remote()
assert ray.get(holder.here.remote())
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_on_a_cluster_equals_one_on_this_machine(gpusched: Command, cluster: str) -> None:
    gpusched("run", "symbols.txt", "-o", "here")
    found = gpusched.json(
        "run", "symbols.txt", "-o", "there", *on(Engine(address=cluster, scratch=f"{gpusched.directory}/scratch"))
    )
    assert found["windows"]["succeeded"] == WINDOWS
    here, there = gpusched.directory / "here", gpusched.directory / "there"
    check_sound(there, WINDOWS)
    assert hashes(there) == hashes(here)
    assert all(line["device"].startswith("cpu@") for line in index(there))
    assert agents(gpusched.directory) == {}


def test_a_node_that_is_lost_costs_no_attempt(gpusched: Command, cluster: str) -> None:
    """Its agent is killed, and all windows with it; it is held again, and the run goes on."""
    options = [*on(Engine(address=cluster, scratch=f"{gpusched.directory}/scratch")), "--set", "run.max_attempts=1"]
    with gpusched.start("run", "symbols.txt", "-o", "out", *options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[3/"):
                (agent,) = agents(gpusched.directory).values()
                os.kill(agent, signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait() == 0, rest
    assert [line["status"] for line in index(gpusched.directory / "out")] == ["success"] * WINDOWS
    again = gpusched.json("run", "symbols.txt", "-o", "out")  # here, which also sweeps up what killed windows left
    assert again["windows"]["reused"] == WINDOWS
    check_sound(gpusched.directory / "out", WINDOWS)


def test_a_node_that_another_job_holds_is_told_of(gpusched: Command, cluster: str) -> None:
    """It said that no node had answered within 120 s, after 20."""
    command = [sys.executable, "-c", HOLDER, cluster]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert any("held" in line for line in other.stdout)
        options = on(Engine(address=cluster, scratch=f"{gpusched.directory}/scratch"))
        _, said = gpusched.said("run", "symbols.txt", "-o", "out", *options, code=4)
        other.stdin.close()
        other.wait()
    assert "is not in the pool: its processors or GPUs are reserved by others in Ray" in said
