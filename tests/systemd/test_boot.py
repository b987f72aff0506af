"""The system service on a machine that systemd has booted. Slow: `pytest -m slow tests/systemd`."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.bars import trading_days, write_symbol
from tests.systemd.machine import CLONE, COMMAND, REPOSITORY, Machine, booted, why_not

REASON = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

#: the test's own windows wait for a byte each, two at a time; the watchdog and the restart are quick
DROP_IN = """[Service]
Environment=GPUSCHED_DEVICES_CPU_SLOTS=2
WatchdogSec=3
TimeoutAbortSec=2
RestartSec=0.1
"""
ASKED = (
    *("--data-root", "/srv/data", "--start", "2022-01-01", "--end", "2022-01-30", "--window-days", "10"),
    *("--set", "run.workload=tests.server.workloads:window"),
)
WINDOWS = 6


def manual(number: int) -> str:
    """The commands of a block of the operating manual's part on systemd."""
    part = (REPOSITORY / "docs/operating.md").read_text().partition("## Under systemd")[2].partition("\n## ")[0]
    return str(re.findall(r"```sh\n(.*?)```", part, re.DOTALL)[number])


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    # on the disk: a container has a /dev of its own, and `tmp_path` may be below that (`tests/conftest.py`)
    with tempfile.TemporaryDirectory() as directory, booted(Path(directory)) as running:
        drop_in = running.path("/etc/systemd/system/gpusched.service.d")
        drop_in.mkdir()
        (drop_in / "test.conf").write_text(DROP_IN)
        running.path("/srv/data").mkdir()
        days = trading_days(dt.date(2022, 1, 1), dt.date(2024, 12, 31))
        for symbol in ("AAPL", "M&M"):
            write_symbol(running.path("/srv/bars"), symbol, days)
        for user in ("alice", "mallory"):
            running.run("useradd", "--create-home", user, check=True)
        # All but pip, which would want a network: its packages are there.
        lines = manual(0).splitlines()
        commands = [line for line in lines if "/bin/pip" not in line]
        assert len(commands) == len(lines) - 1
        began = time.monotonic()
        running.run("bash", "-euc", f"cd {CLONE}\n" + "\n".join(commands), check=True)
        print(f"the manual's commands took {time.monotonic() - began:.2f} s")
        running.run("usermod", "-aG", "gpusched", "alice", check=True)
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
        """Release all windows; how often each outcome came. Every one ends once, and with its files."""
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
    """Wait until a daemon serves that is another process. One answer has both: it may end between two."""

    def serves() -> bool:
        lines = machine.run("systemctl", "show", "-p", "ActiveState,MainPID", "gpusched").split()
        shown = dict(line.split("=") for line in lines)
        return shown["ActiveState"] == "active" and int(shown["MainPID"]) not in (0, other_than)

    machine.until(serves)


def test_the_unit_is_sound_and_hardened(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "gpusched.service", check=True) == ""
    rating = machine.run("systemd-analyze", "security", "--no-pager", "gpusched.service").splitlines()[-1]
    assert float(rating.split(":")[1].split()[0]) <= 3.0, rating


def test_members_of_the_group_train_real_windows_as_the_readme_says(machine: Machine) -> None:
    assert machine.run("systemctl", "is-active", "gpusched").strip() == "active"
    assert machine.run("systemctl", "is-enabled", "gpusched").strip() == "enabled"
    machine.path("/home/alice/symbols.txt").write_text("AAPL\nM&M\n")
    commands = manual(1).replace("journalctl -u gpusched -f\n", "")
    assert commands.count("\n") == 2
    with machine.start("runuser", "-l", "alice", "-c", commands) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    (status,) = json.loads(machine.gpusched("status", "--json"))["batches"]
    # Three years are seven windows; the last one has too few days.
    assert (status["windows"]["succeeded"], status["windows"]["skipped"]) == (12, 2)
    assert status["output_dir"].startswith("/var/lib/gpusched/gpusched-runs/symbols-")
    model = next(machine.path(status["output_dir"]).glob("*/model.txt"))
    assert model.stat().st_uid == int(machine.run("id", "-u", "gpusched"))
    assert not model.stat().st_mode & 0o007
    assert "ready version=" in machine.run("journalctl", "-u", "gpusched", "--no-pager")


def test_nobody_else_may_use_it(machine: Machine) -> None:
    with machine.start("runuser", "-u", "mallory", "--", COMMAND, "status") as process:
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


def test_a_reboot_drains_and_the_batch_goes_on(machine: Machine) -> None:
    batch = Batch(machine, "rebooted")
    machine.run("systemctl", "reboot", check=True)
    batch.release(2)
    machine.until_rebooted()
    until_active(machine)
    assert batch.finish()["succeeded"] == WINDOWS
    assert batch.attempts() == [1] * WINDOWS


def test_a_batch_survives_the_loss_of_power(machine: Machine) -> None:
    batch = Batch(machine, "powerless")
    batch.release(1)
    machine.until(lambda: machine.status("powerless")["windows"]["succeeded"] == 1)
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
