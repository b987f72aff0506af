"""A Ray cluster of several machines on this one: each node has a network and a disk of its own. Needs root.

All of it is joined by a bridge in a network of its own, so nothing listens on this machine's addresses. Each node is a
process group below a shell that waits in its namespaces, and is ended by its number: never by `ray stop`, which ends
every cluster of a machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.clusters import START_S, STARTED, needs_ray
from tests.waiting import until

needs_namespaces = [
    *needs_ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
#: seconds in which Ray's head takes a host for dead that does not answer, instead of 64
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}
SETTINGS = HEALTH | {
    "RAY_AUTH_MODE": "token",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
#: parts of the commands of Ray's processes
RAY = ("ray.scripts.scripts", "gcs_server", "raylet/raylet", "ray::")
SCRATCH_MB = 400
#: how often the start of a node is tried
STARTS = 5
#: seconds in which killed processes are gone
DEATH_S = 60.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def comes_up(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until `ray start` says in its log that Ray runs, or ends; return whether it runs."""
    until(lambda: process.poll() is not None or STARTED in log.read_text(), patience_s=START_S, said=log.read_text)
    return process.poll() is None


class Node:
    """One machine: `number` 0 is the head, where the supervisor is, too."""

    def __init__(self, cluster: Namespaces, number: int) -> None:
        self.number = number
        self.name = f"{cluster.prefix}{number}"
        self.address = f"10.77.0.{number + 1}"
        self.cluster = cluster
        self.process: subprocess.Popen[bytes] | None = None
        self.is_cut = False
        ip("netns", "add", self.name)
        ip("link", "add", f"{self.name}a", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", f"{self.name}a", "netns", cluster.switch)
        self.switch("link", "set", f"{self.name}a", "master", "br0", "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", self.name, *words)
        ip("-n", self.name, "link", "set", "lo", "up")

    def switch(self, *words: str) -> None:
        ip("-n", self.cluster.switch, *words)

    def command(self, *words: str) -> list[str]:
        """A command on this machine, which has a scratch directory and does not see the supervisor's files."""
        scratch = f"mount -t tmpfs -o size={SCRATCH_MB}m scratch {self.cluster.scratch}"
        hidden = f"mount -t tmpfs hidden {self.cluster.hidden}"
        inner = f'{scratch} && {hidden} && hostname {self.name} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "sh", "-c", inner, "sh", *words]

    def start(self) -> None:
        """Start Ray here, and wait until it runs; on a busy machine it gives up at times."""
        log = self.cluster.directory / f"{self.name}.log"
        where = ["--address=10.77.0.1:6379"]
        if self.number == 0:
            where = ["--head", "--port=6379", "--include-dashboard=false"]
        words = [f"--node-ip-address={self.address}", f"--temp-dir=/tmp/{self.name}", "--num-cpus=2", "--block"]
        for _ in range(STARTS):
            with log.open("wb") as said:
                self.process = subprocess.Popen(
                    self.command(sys.executable, "-m", "ray.scripts.scripts", "start", *where, *words),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=self.cluster.environment,
                    start_new_session=True,
                )
            if comes_up(self.process, log):
                return
            self.end()
        raise AssertionError(log.read_text())

    def processes(self) -> dict[int, str]:
        """The processes in this machine's network, by their numbers, with their commands."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True).stdout
        found = {}
        for pid in map(int, pids.split()):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def kill(self, words: str = "") -> int:
        """Kill the processes whose command has these words; all: the machine has lost its power. Return how many."""
        chosen = [pid for pid, command in self.processes().items() if words in command]
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(chosen)

    def fill(self) -> None:
        """Leave no room in the scratch directory."""
        raylet = next(pid for pid, command in self.processes().items() if "raylet/raylet" in command)
        place = Path(f"/proc/{raylet}/root{self.cluster.scratch}")
        with (place / "filling").open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))

    def cut(self) -> None:
        self.is_cut = True
        self.switch("link", "set", f"{self.name}a", "down")

    def mend(self) -> None:
        self.is_cut = False
        self.switch("link", "set", f"{self.name}a", "up")

    def lose_ray(self) -> None:
        """Kill Ray here, and nothing else."""
        until(lambda: not sum(self.kill(words) for words in RAY), patience_s=DEATH_S)
        if self.process is not None:
            self.process.wait()

    def end(self) -> None:
        until(lambda: not self.kill(), patience_s=DEATH_S)
        if self.process is not None:
            self.process.wait()


class Namespaces:
    """A head and nodes."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        self.prefix = f"gs{os.getpid() % 100000}"
        self.switch = f"{self.prefix}s"
        #: at the same path on each node
        self.scratch = directory / "scratch"
        #: where the supervisor has its files
        self.hidden = directory / "supervisor"
        for path in (self.scratch, self.hidden):
            path.mkdir()
        self.environment = os.environ | SETTINGS | {"HOME": str(directory)}
        token = directory / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        self.nodes = [Node(self, number) for number in range(nodes + 1)]

    def revive(self) -> None:
        """Start dead processes again, as a service manager with Restart=always does."""
        for node in self.nodes:
            # Ray ends on a node that it took for dead, though not at once
            if node.is_cut or node.process is None or node.process.poll() is not None:
                node.lose_ray()
                node.mend()
                node.start()

    @property
    def head(self) -> Node:
        return self.nodes[0]


@contextlib.contextmanager
def namespaces(directory: Path, nodes: int) -> Iterator[Namespaces]:
    """A cluster whose head and nodes run."""
    cluster = Namespaces(directory, nodes)
    try:
        for node in cluster.nodes:
            node.start()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.end()
            ip("netns", "del", node.name)
        ip("netns", "del", cluster.switch)
