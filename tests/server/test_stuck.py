"""A daemon with a full disk, processes that do not die, a launcher that hangs: it says so, and it can be left."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched import cli
from gpusched.cli.commands import doctor
from gpusched.client.drawing.trouble import remedy
from gpusched.config import load
from gpusched.protocol import Snapshot, Trouble
from tests.server.support import Daemon, finished, launcher_of, running, until
from tests.waiting import PATIENCE_S
from tests.worker.support import runs, undying


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """4 MiB for the state directory."""
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextlib.contextmanager
def full(directory: Path) -> Iterator[None]:
    """No room is left there."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    yield
    filler.unlink()


def gone(pid: int) -> None:
    """Until the process has exited."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], PATIENCE_S)[0], f"{pid} is still there"
        os.close(descriptor)


def in_trouble(service: Daemon, kind: str) -> Trouble:
    """The trouble of that kind, once it is the only one: on a busy machine a survey may be late for a moment, too."""

    def is_in_it(seen: object) -> bool:
        return isinstance(seen, Snapshot) and [trouble.kind for trouble in seen.troubles] == [kind]

    with service.connect() as connection:
        subscription = connection.subscribe()
        snapshot: object = subscription.snapshot
        if not is_in_it(snapshot):
            *_, snapshot = until(subscription, is_in_it)
    assert isinstance(snapshot, Snapshot)
    return snapshot.troubles[0]


def out_of_trouble(service: Daemon) -> None:
    with service.connect() as connection:
        subscription = connection.subscribe()
        if subscription.snapshot.troubles:
            until(subscription, lambda d: isinstance(d, Snapshot) and not d.troubles)


def check_shown(service: Daemon, trouble: Trouble, capsys: pytest.CaptureFixture[str]) -> None:
    """By the commands with which people look at a daemon, and to its service manager."""
    service.wait_for_notice(f"STATUS=1 windows running, 1 not finished; {trouble.text}")
    assert cli.run(["status", "--socket", str(service.socket)]) == 0
    said = capsys.readouterr()
    assert f"warning: {trouble.text}\nhint: {remedy(trouble)}" in said.err
    assert "Trouble" not in said.out, "a listing for programs stays one"
    assert cli.run(["top", "--once", "--socket", str(service.socket)]) == 0
    frame = " ".join(line.strip() for line in capsys.readouterr().out.splitlines())
    assert f"Trouble: {trouble.text}" in frame
    config = load(flags=[("daemon.socket", str(service.socket), "--socket")], environ={}).config
    *_, check = doctor._daemon_checks(config)
    assert (check.status, check.message, check.remedy) == ("problem", trouble.text, remedy(trouble))


# -- a full disk -------------------------------------------------------------------------------------------------------


def test_two_signals_end_a_daemon_whose_disk_is_full(service: Daemon) -> None:
    state = service.directory / "state"
    with small_disk(state), service.fifo() as release:
        service.start()
        pids = [line.pid for line in running(service, 2)]
        with full(state):
            service.process.terminate()
            service.wait_for_notice("STOPPING=1")
            service.process.terminate()
            assert service.end() == 0
            assert not any(runs(pid) for pid in pids if pid)
        assert "left with records that could not be written" in service.log.read_text()
        service.start()
        release()
        release()
        assert finished(service, "batch").counts == {"succeeded": 2}
        with service.connect() as connection:
            assert [line.attempts for line in connection.windows("batch")] == [2, 2]
        assert service.stop() == 0


def test_a_cancel_ends_what_runs_though_it_cannot_be_written(service: Daemon) -> None:
    state = service.directory / "state"
    with small_disk(state), service.fifo():
        service.start(COMMIT_PATIENCE_S=0.2)
        pids = [line.pid for line in running(service, 2)]
        with service.connect() as connection:
            with full(state):
                changed = connection.change("cancel", "batch")
                assert changed.windows == 2
                assert "cannot grow" in (changed.not_durable or "")
                for pid in pids:
                    assert pid is not None
                    gone(pid)
                assert "cannot grow" in in_trouble(service, "store").text
            assert finished(service, "batch").counts == {"cancelled": 2}
        out_of_trouble(service)
        assert service.stop() == 0


# -- stubborn processes ------------------------------------------------------------------------------------------------


def test_a_window_that_does_not_die_is_shown_everywhere_and_keeps_its_slot(
    service: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with service.fifo():
        service.start(KILL_GRACE_S=0.5, WATCH_S=0.1)
        (line,) = running(service, 1, grace_s=0.1)
        assert line.pid is not None
        with undying(line.pid), service.connect() as connection:
            connection.change("cancel", "batch")
            trouble = in_trouble(service, "window")
            assert trouble.about == str(line.key)
            assert trouble.text == f"{line.key} does not die (state t in ptrace_stop)"
            assert connection.ping().troubles == (trouble,)
            (story,) = [s for s in connection.window("batch", line.key.label).story if "does not die" in s.reason]
            assert (story.old, story.new) == ("stopping", "stopping")
            check_shown(service, trouble, capsys)
            (device,) = connection.devices()
            assert device.allocations == {0: line.key}
            assert device.health == "open", "processors are not to blame"
        out_of_trouble(service)
        assert finished(service, "batch").counts == {"cancelled": 1}
        assert service.stop() == 0
    log = service.log.read_text()
    assert f"trouble kind=window text='{line.key} does not die (state t in ptrace_stop)'" in log
    assert "trouble is over kind=window" in log


def test_the_stop_limit_holds_and_the_next_start_finds_what_was_left(service: Daemon) -> None:
    with service.fifo() as release:
        service.start(environment={"GPUSCHED_TEST_STOP_LIMIT_S": "3"})
        (line,) = running(service, 1)
        assert line.pid is not None
        with undying(line.pid):
            assert service.stop() == 0
            assert f"left behind pid={line.pid} window={line.key} doing='state t in ptrace_stop'" in (
                service.log.read_text()
            )
            service.start(KILL_GRACE_S=0.5, WATCH_S=0.1)
            assert in_trouble(service, "leftover").about == str(line.pid)
        out_of_trouble(service)
        release()
        assert finished(service, "batch").counts == {"succeeded": 1}
        assert service.stop() == 0


def test_a_launcher_that_was_stopped_does_not_keep_the_daemon(service: Daemon) -> None:
    with service.fifo():
        service.start()
        pids = [line.pid for line in running(service, 2)]
        launcher = launcher_of(service)
        os.kill(launcher, signal.SIGSTOP)
        service.process.terminate()
        service.wait_for_notice("STOPPING=1")
        service.process.terminate()
        service.wait_for_notice("STATUS=stopping now")  # a third before that would be one with the second
        service.process.terminate()  # a third one waits for nothing
        assert service.end() == 0
        assert not any(runs(pid) for pid in [launcher, *pids] if pid)
    assert not service.processes()


def test_what_a_killed_daemon_has_left_is_ended_before_the_next_attempt(service: Daemon) -> None:
    """Its launcher was stopped, so that it could end nothing, and the window is alive."""
    with service.fifo() as release:
        service.start()
        (line,) = running(service, 1)
        assert line.pid is not None
        launcher = launcher_of(service)
        os.kill(launcher, signal.SIGSTOP)
        service.kill()
        assert runs(line.pid)
        service.start()
        assert not runs(line.pid)
        assert not runs(launcher)
        told = re.findall(r"Ended the process (\d+), which an earlier supervisor had left", service.log.read_text())
        assert {str(launcher)} <= set(told) <= {str(launcher), str(line.pid)}
        release()
        assert finished(service, "batch").counts == {"succeeded": 1}
        assert service.stop() == 0
