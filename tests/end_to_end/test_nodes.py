"""`gpusched run` on nodes that share no files: the results of one machine, also if a node is lost on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.instant import ENDLESS
from gpusched.client.connection import connect
from gpusched.config import Engine
from gpusched.core.events import BatchFinished, WindowMoved
from gpusched.core.states import Finished
from tests import waiting
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.engines.clusters import loopback
from tests.server.support import until
from tests.waiting import PATIENCE_S

WINDOWS = 24
#: of a node, whose cores are this machine's
SLOTS = (os.cpu_count() or 1) + 1


def on(engine: Engine) -> list[str]:
    """The options of a run, or of a daemon, on these nodes."""
    keys = [key for key in ("address", "python", "scratch") if getattr(engine, key)]
    return [
        "--set",
        "engine.kind=ray",
        *(part for key in keys for part in ("--set", f"engine.{key}={getattr(engine, key)}")),
    ]


def agents(directory: Path) -> dict[str, int]:
    """The agents whose scratch directories lie below a directory, by host."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place = (process / "cwd").resolve()
            if b"gpusched.engines.ray.agent" in (process / "cmdline").read_bytes() and directory in place.parents:
                found[place.name] = int(process.name)
        except OSError:
            continue
    return found


@pytest.mark.thorough
def test_results_equal_those_of_one_machine_though_a_node_is_killed(gpusched: Command) -> None:
    """All processes of a node die: its windows go elsewhere and lose no attempt, nothing is lost or done twice."""
    gpusched("run", "symbols.txt", "-o", "here")
    options = [*on(loopback(gpusched.directory, "n1", "n2")), "--set", "run.max_attempts=1"]
    with gpusched.start("run", "symbols.txt", "-o", "there", *options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[3/"):
                os.killpg(agents(gpusched.directory)["n2"], signal.SIGKILL)
                break
        rest = process.stdout.read()
        assert process.wait() == 0, rest
    here, there = gpusched.directory / "here", gpusched.directory / "there"
    check_sound(there, WINDOWS)
    assert hashes(there) == hashes(here)
    assert [line["status"] for line in index(there)] == ["success"] * WINDOWS
    assert {(line["device"], line["node"]) for line in index(there)} <= {("cpu@n1", "n1"), ("cpu@n2", "n2")}
    slots = {slot for line in index(there) if (slot := line["slot"]) is not None}
    assert slots <= set(range(2 * SLOTS)), "windows that were ahead had numbers of their own for good"
    assert all(line["node"] in ("n1", "n2") for line in gpusched.json("results", "there")["results"])
    assert "node" in gpusched("results", "there", "--csv").splitlines()[0].split(",")
    assert {window["node"] for window in gpusched.json("windows", "there")["windows"]} <= {"n1", "n2"}
    assert f"on slot {index(there)[0]['slot']} ({index(there)[0]['device']})" in gpusched(
        "show", f"there/{index(there)[0]['window_label']}"
    )
    assert agents(gpusched.directory) == {}
    # a node keeps a result until it is committed here; the one that was killed had no time to forget
    assert list((gpusched.directory / "scratch" / "n1").glob("results/*/*/metadata.json")) == []


@contextlib.contextmanager
def daemon(gpusched: Command, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon that is ready, with its socket at `here`; it is drained at the end unless it has ended."""
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = gpusched.directory / "notify"
    address.unlink(missing_ok=True)
    notices.bind(str(address))
    notices.settimeout(PATIENCE_S)
    gpusched.environment["NOTIFY_SOCKET"] = str(address)
    with notices, gpusched.start("daemon", *options) as process:
        del gpusched.environment["NOTIFY_SOCKET"]
        while b"READY=1" not in notices.recv(65536).split(b"\n"):
            pass
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)


def until_finished(socket_path: Path, windows: int) -> None:
    """Wait until so many windows have finished."""
    with connect(socket_path) as connection:
        for news in connection.subscribe():
            windows -= isinstance(news, WindowMoved) and isinstance(news.new, Finished)
            if windows == 0:
                return


def statuses(gpusched: Command) -> dict[str, str]:
    """The status of each window of the batch `b`, by its symbol."""
    return {window["symbol"]: window["status"] for window in gpusched.json("windows", "b")["windows"]}


@pytest.mark.thorough
def test_a_window_that_was_to_be_held_when_the_daemon_died_is_held(gpusched: Command) -> None:
    """It waited on its node, which was too busy to give it back; the next daemon ran it."""
    socket_path = gpusched.directory / "s"
    gpusched.environment |= {"GPUSCHED_SOCKET": str(socket_path)}
    (gpusched.directory / "three.txt").write_text(f"A\n{ENDLESS}\nC\n")
    options = [*on(loopback(gpusched.directory, "n1")), "--set", f"daemon.state_dir={gpusched.directory}/state"]
    dates = ["--start", "2022-01-01", "--end", "2022-06-29", "--window-days", "180"]
    with daemon(gpusched, *options, "--set", "devices.cpu_slots=1") as process:
        workload = ["--workload", "tests.engines.workloads:train"]
        gpusched("submit", "three.txt", "--name", "b", "-o", "out", *dates, *workload)
        waiting.until(lambda: statuses(gpusched).get("C") == "starting", patience_s=PATIENCE_S)
        (agent,) = agents(gpusched.directory).values()
        os.kill(agent, signal.SIGSTOP)
        try:
            held = gpusched("hold", "b/C_2022-01-01_to_2022-06-29")
            process.kill()
        finally:
            os.kill(agent, signal.SIGCONT)
        assert "it is taken back, and held unless it starts before" in held
    with daemon(gpusched, *options, "--set", "devices.cpu_slots=1"):
        found = statuses(gpusched)
        gpusched("cancel", "b")
    assert found["C"] == "held"


@pytest.mark.thorough
def test_a_daemon_on_a_cluster_is_killed_and_goes_on(gpusched: Command) -> None:
    """Nodes are listed, drained and opened; after a SIGKILL of the daemon nothing is lost, and nothing done twice."""
    gpusched("run", "symbols.txt", "-o", "here")
    socket_path = gpusched.directory / "s"
    gpusched.environment |= {"GPUSCHED_SOCKET": str(socket_path)}
    options = [*on(loopback(gpusched.directory, "n1", "n2")), "--set", f"daemon.state_dir={gpusched.directory}/state"]
    with daemon(gpusched, *options) as process:
        assert [(node["node"], node["health"]) for node in gpusched.json("nodes")["nodes"]] == [
            ("n1", "open"),
            ("n2", "open"),
        ]
        assert [device["id"] for device in gpusched.json("drain", "n2")["devices"]] == ["cpu@n2"]
        assert [node["health"] for node in gpusched.json("nodes")["nodes"]] == ["open", "draining"]
        gpusched("resume", "n2")
        assert "cpu@n2" in gpusched("top", "--once")
        gpusched("submit", "symbols.txt", "--name", "b", "-o", "there")
        until_finished(socket_path, 3)
        process.kill()
    with daemon(gpusched, *options):
        gpusched("wait", "b")
        gpusched("submit", "symbols.txt", "--name", "other", "-o", "elsewhere")
        with connect(socket_path) as connection:
            updates = connection.subscribe("other")
            gpusched("cancel", "other")
            if updates.snapshot.batches[0].state != "finished":
                until(updates, lambda update: isinstance(update, BatchFinished))
        assert gpusched.json("status", "b")["windows"]["succeeded"] == WINDOWS
    here, there = gpusched.directory / "here", gpusched.directory / "there"
    check_sound(there, WINDOWS)
    assert hashes(there) == hashes(here)
    assert [line["status"] for line in index(there)] == ["success"] * WINDOWS
