"""A run on a head and two nodes of a Ray cluster, each in namespaces of its own, in which something is killed or cut.

However it goes, the run ends by itself, its results are byte for byte those of one machine, none is lost or doubled,
and no window loses an attempt (`run.max_attempts=1`).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpusched.config import Engine
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.end_to_end.test_nodes import daemon, on, until_finished
from tests.engines.namespaces import Namespaces, Node, namespaces, needs_namespaces

pytestmark = needs_namespaces
#: windows: four symbols, 13 years, 76 days; one of the symbols has no data in the first years
WINDOWS, TRAINED = 252, 218


@pytest.fixture(scope="module")
def cluster() -> Iterator[Namespaces]:
    """Its directory has a short name: Ray makes sockets below it."""
    with (
        tempfile.TemporaryDirectory(prefix="gs-", ignore_cleanup_errors=True) as directory,
        namespaces(Path(directory), 2) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def supervisor(cluster: Namespaces, sample: Path) -> Command:
    """The command on the head, with results of this machine in `here`."""
    shutil.copytree(sample, cluster.hidden, dirs_exist_ok=True)
    config = '[data]\nroot = "data"\n[devices]\ncpu_slots = 1\n'
    config += "[windows]\nstart = 2000-01-03\nend = 2013-02-08\ndays = 76\n"
    (cluster.hidden / "config.toml").write_text(config)
    command = Command(cluster.hidden)
    command.environment |= cluster.environment | {"PYTHONPATH": command.environment["PYTHONPATH"]}
    assert command.json("run", "symbols.txt", "-o", "here")["windows"]["succeeded"] == TRAINED
    command.prefix = ("ip", "netns", "exec", cluster.head.name)
    return command


def actor_is_killed(node: Node) -> None:
    assert node.kill("ray::Node") == 1


def agent_is_killed(node: Node) -> None:
    assert node.kill("gpusched.engines.ray.agent") == 1


def launcher_is_killed(node: Node) -> None:
    assert node.kill("gpusched.worker.launcher") >= 1


def raylet_is_killed(node: Node) -> None:
    assert node.kill("raylet/raylet") == 1


def node_loses_its_power(node: Node) -> None:
    assert node.kill() > 3


def link_is_cut_for_5_s(node: Node) -> None:
    node.cut()
    time.sleep(5)  # the length of the cut is tested: shorter than it takes to count as lost
    node.mend()


def link_is_cut(node: Node) -> None:
    node.cut()


def disk_is_full(node: Node) -> None:
    node.fill()


def bridge_is_killed(node: Node) -> None:
    assert node.cluster.head.kill("gpusched.engines.ray.bridge") == 1


def head_is_lost(node: Node) -> None:
    """All of Ray ends; the supervisor waits for a cluster at its address, which somebody starts again."""
    for each in node.cluster.nodes:
        each.lose_ray()
    node.cluster.revive()


@pytest.mark.parametrize(
    "happens",
    [
        actor_is_killed,
        agent_is_killed,
        launcher_is_killed,
        raylet_is_killed,
        node_loses_its_power,
        link_is_cut_for_5_s,
        link_is_cut,
        disk_is_full,
        bridge_is_killed,
        head_is_lost,
    ],
    ids=lambda happens: happens.__name__,
)
def test_results_are_those_of_one_machine(
    cluster: Namespaces, supervisor: Command, happens: Callable[[Node], None]
) -> None:
    cluster.revive()
    out, began = happens.__name__, time.monotonic()
    options = on(Engine(address=f"{cluster.head.address}:6379", scratch=str(cluster.scratch)))
    with supervisor.start("run", "symbols.txt", "-o", out, *options, "--set", "run.max_attempts=1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[40/"):
                happens(cluster.nodes[1])
                break
        rest = process.stdout.read()
        code = process.wait()
    there = cluster.hidden / out
    assert code == 0, rest[-3000:]
    check_sound(there, TRAINED)
    assert hashes(there) == hashes(cluster.hidden / "here")
    lines = index(there)
    assert Counter(line["status"] for line in lines) == {"success": TRAINED, "skipped": WINDOWS - TRAINED}
    again = sum(line["attempts"] > 1 for line in lines)
    print(f"{out}: {TRAINED} windows in {time.monotonic() - began:.1f} s, {again} with a second attempt")


def test_a_supervisor_that_is_killed_goes_on_when_it_is_started_again(cluster: Namespaces, supervisor: Command) -> None:
    cluster.revive()
    out = "killed"
    options = on(Engine(address=f"{cluster.head.address}:6379", scratch=str(cluster.scratch)))
    with supervisor.start("run", "symbols.txt", "-o", out, *options, "--set", "run.max_attempts=1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[40/"):
                process.kill()
                break
    supervisor("run", "symbols.txt", "-o", out, *options, "--set", "run.max_attempts=1")
    there = cluster.hidden / out
    check_sound(there, TRAINED)
    assert hashes(there) == hashes(cluster.hidden / "here")
    assert Counter(line["status"] for line in index(there)) == {"success": TRAINED, "skipped": WINDOWS - TRAINED}


def test_a_daemon_that_is_killed_goes_on(cluster: Namespaces, supervisor: Command) -> None:
    """Its nodes are listed, drained and opened while a batch runs; after a SIGKILL nothing is lost, or done twice."""
    cluster.revive()
    service, client = Command(cluster.hidden), Command(cluster.hidden)
    service.prefix, service.environment = supervisor.prefix, dict(supervisor.environment)
    client.environment |= {"GPUSCHED_SOCKET": str(cluster.hidden / "s")}
    service.environment |= {"GPUSCHED_SOCKET": str(cluster.hidden / "s")}
    names = [node.name for node in cluster.nodes]
    options = on(Engine(address=f"{cluster.head.address}:6379", scratch=str(cluster.scratch)))
    options += ["--set", f"daemon.state_dir={cluster.hidden}/state", "--set", "run.max_attempts=1"]

    def nodes() -> dict[str, str]:
        return {node["node"]: node["health"] for node in client.json("nodes")["nodes"]}

    with daemon(service, *options) as process:
        assert nodes() == dict.fromkeys(names, "open")
        client("submit", "symbols.txt", "--name", "b", "-o", "served", "--set", "run.max_attempts=1")
        until_finished(cluster.hidden / "s", 20)
        client("drain", names[2])
        assert nodes() == dict.fromkeys(names, "open") | {names[2]: "draining"}
        assert f"cpu@{names[2]}" in client("top", "--once")
        client("resume", names[2])
        assert client.json("status", "b")["windows"]["failed"] == 0
        until_finished(cluster.hidden / "s", 20)
        process.kill()
    with daemon(service, *options):
        client("wait", "b")
        assert nodes() == dict.fromkeys(names, "open")
        assert client.json("status", "b")["windows"] | {"reused": 0} == {
            "total": WINDOWS, "succeeded": TRAINED, "reused": 0, "skipped": WINDOWS - TRAINED,
            "failed": 0, "cancelled": 0,
        }  # fmt: skip
    there = cluster.hidden / "served"
    check_sound(there, TRAINED)
    assert hashes(there) == hashes(cluster.hidden / "here")
    assert Counter(line["status"] for line in index(there)) == {"success": TRAINED, "skipped": WINDOWS - TRAINED}


def test_a_supervisor_without_the_token_is_refused(cluster: Namespaces, supervisor: Command, tmp_path: Path) -> None:
    stranger = Command(cluster.hidden)
    stranger.prefix = supervisor.prefix
    stranger.environment |= supervisor.environment | {"HOME": str(tmp_path)}
    options = on(Engine(address=f"{cluster.head.address}:6379", scratch=str(cluster.scratch)))
    _, said = stranger.said("run", "symbols.txt", "-o", "refused", *options, code=4)
    assert "cannot be used: Token authentication is enabled but no authentication token was found" in said
