"""The system service on a machine that systemd has booted. Slow: `pytest -m slow tests/systemd`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched.sample import write_sample
from tests.systemd.machine import COMMAND, USER_ID, Machine, booted, why_not

REASON = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

#: the test's own windows wait for a byte each; the watchdog and the restart are quick
DROP_IN = """[Service]
WatchdogSec=3
TimeoutAbortSec=2
RestartSec=0.1
"""
ASKED = (
    *("--data-root", "/srv/data", "--start", "2022-01-01", "--end", "2022-01-30", "--window-days", "10"),
    *("--set", "run.workload=tests.server.workloads:window"),
)
WINDOWS = 6


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as running:
        drop_in = running.path("/etc/systemd/system/gpusched.service.d")
        drop_in.mkdir()
        (drop_in / "test.conf").write_text(DROP_IN)
        configuration = running.path("/etc/gpusched")
        configuration.mkdir()
        (configuration / "config.toml").write_text('[daemon]\ngroup = "gpusched"\n')
        for name in ("data", "bars"):
            running.path(f"/srv/{name}").mkdir()
        write_sample(running.path("/srv/bars"))
        running.run("systemctl", "daemon-reload", check=True)
        yield running


class Batch:
    """A batch of windows that run until they are released."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        fifo = machine.path("/srv/data/fifo")
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o644)
        self._fifo = os.open(fifo, os.O_RDWR)
        machine.path("/srv/symbols.txt").write_text("FIFO1\nFIFO2\n")
        machine.gpusched("submit", "/srv/symbols.txt", "--name", name, *ASKED)
        self.until_running(2)

    def until_running(self, count: int) -> None:
        self.machine.until(lambda: len(self._windows("running")) == count)

    def _windows(self, status: str) -> list[str]:
        text = self.machine.run("/opt/gpusched/bin/gpusched", "windows", self.name, "--status", status, "--json")
        return [window["window"] for window in json.loads(text)["windows"]] if text else []

    def release(self, count: int) -> None:
        os.write(self._fifo, b"." * count)

    def finish(self) -> dict[str, int]:
        """Release all windows; how often each outcome came. Every one ends once, and with what it must write."""
        self.release(WINDOWS)
        self.machine.until(lambda: self.machine.status(self.name)["state"] == "finished")
        os.close(self._fifo)
        found = self.machine.status(self.name)
        output = self.machine.path(found["output_dir"])
        lines = [json.loads(line) for line in (output / "teacher_runs.json").read_text().splitlines()]
        assert len(lines) == len({line["window_label"] for line in lines}) == WINDOWS
        assert len(list(output.glob("*/model.txt"))) == WINDOWS
        windows: dict[str, int] = found["windows"]
        return windows

    def attempts(self) -> list[int]:
        text = self.machine.gpusched("windows", self.name, "--json")
        return sorted(window["attempts"] for window in json.loads(text)["windows"])


def pid(machine: Machine) -> int:
    """The daemon's, in the machine."""
    return int(machine.run("systemctl", "show", "-P", "MainPID", "gpusched"))


def until_active(machine: Machine, *, other_than: int = -1) -> None:
    machine.until(
        lambda: machine.run("systemctl", "is-active", "gpusched").strip() == "active" and pid(machine) != other_than
    )


def test_the_unit_is_sound_and_hardened(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "gpusched.service", check=True) == ""
    rating = machine.run("systemd-analyze", "security", "--no-pager", "gpusched.service").splitlines()[-1]
    assert float(rating.split(":")[1].split()[0]) <= 3.0, rating


def test_it_starts_and_trains_real_bars(machine: Machine) -> None:
    began = time.monotonic()
    machine.run("systemctl", "enable", "--now", "gpusched", check=True)
    print(f"systemctl start took {time.monotonic() - began:.2f} s")
    until_active(machine)
    machine.path("/srv/real.txt").write_text("IBM\nMSFT\n")
    dates = ("--start", "2006-01-01", "--end", "2007-12-31")
    asked = ("submit", "/srv/real.txt", "--name", "real", "--data-root", "/srv/bars/data", *dates, "--wait")
    assert "succeeded" in machine.gpusched(*asked)
    found = machine.status("real")
    # The last window of each has a few days only.
    assert (found["windows"]["succeeded"], found["windows"]["skipped"]) == (8, 2)
    assert found["output_dir"].startswith("/var/lib/gpusched/")
    model = next(machine.path(found["output_dir"]).glob("*/model.txt"))
    assert model.stat().st_uid == USER_ID
    assert not model.stat().st_mode & 0o007


def test_members_of_the_group_may_use_it_and_nobody_else(machine: Machine) -> None:
    def status_of(user: str) -> subprocess.Popen[str]:
        return machine.start("runuser", "-u", user, "--", COMMAND, "status")

    with status_of("alice") as process:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, "real\tfinished" in out) == (0, True), (out, err)
    with status_of("mallory") as process:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 3
        assert "may not connect" in err


def test_a_restart_drains_and_the_batch_goes_on(machine: Machine) -> None:
    batch = Batch(machine, "restarted")
    before = pid(machine)
    restart = machine.start("systemctl", "restart", "gpusched")
    machine.until(lambda: machine.run("systemctl", "is-active", "gpusched").strip() == "deactivating")
    with pytest.raises(subprocess.TimeoutExpired):
        restart.wait(1)  # it waits for the windows
    batch.release(2)
    restart.communicate(timeout=30)
    until_active(machine, other_than=before)
    assert batch.finish()["succeeded"] == WINDOWS
    assert batch.attempts() == [1] * WINDOWS


def test_a_killed_daemon_is_restarted_and_the_batch_goes_on(machine: Machine) -> None:
    batch = Batch(machine, "killed")
    before = pid(machine)
    machine.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "gpusched", check=True)
    until_active(machine, other_than=before)
    batch.until_running(2)
    assert batch.finish()["succeeded"] == WINDOWS
    assert batch.attempts() == [1] * (WINDOWS - 2) + [2, 2]


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog(machine: Machine) -> None:
    batch = Batch(machine, "hung")
    before = pid(machine)
    machine.run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", "gpusched", check=True)
    until_active(machine, other_than=before)
    assert "watchdog" in machine.run("journalctl", "-u", "gpusched", "--no-pager").lower()
    assert batch.finish()["succeeded"] == WINDOWS


def test_a_batch_survives_the_loss_of_power(machine: Machine) -> None:
    batch = Batch(machine, "rebooted")
    batch.release(1)
    machine.until(lambda: machine.status("rebooted")["windows"]["succeeded"] == 1)
    machine.cut_power()
    machine.boot()
    until_active(machine)
    assert batch.finish()["succeeded"] == WINDOWS


def test_nothing_is_left_when_it_has_stopped(machine: Machine) -> None:
    assert machine.run("pgrep", "-u", "gpusched") != ""
    machine.run("systemctl", "stop", "gpusched", check=True)
    assert machine.run("pgrep", "-u", "gpusched") == ""


def test_what_it_keeps_is_private(machine: Machine) -> None:
    state = machine.path("/var/lib/gpusched")
    assert state.stat().st_mode & 0o077 == 0
    assert Path(state / "state.db").stat().st_mode & 0o777 == 0o600
