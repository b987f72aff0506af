"""The daemon as a service: start, readiness, signs of life, stop, and its demands on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpusched.core.states import Running
from gpusched.errors import DaemonError
from gpusched.protocol import DeviceReported, Submit
from gpusched.service.notify import Notifier
from tests.server.support import REPOSITORY, Daemon, finished, launcher_of, running, until
from tests.waiting import PATIENCE_S


def test_it_is_ready_soon_and_small(service: Daemon) -> None:
    service.start()
    # In processor time, beside that of its imports alone: a machine may be slow, and busy with other tests.
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    imports = "import time, gpusched.service.main; print(time.process_time())"
    ended = subprocess.run([sys.executable, "-c", imports], cwd=REPOSITORY, capture_output=True, check=True)
    assert (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") < 2 * float(ended.stdout)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (rss,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    assert rss < 60 * 1024
    service.stop()


def test_it_never_imports_what_windows_need() -> None:
    """Neither the daemon nor a client: they would be ten times as large and slow to start."""
    code = (
        "import sys, json; import gpusched.service.main, gpusched.supervisor.survey; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    daemon = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
    heavy = {"numpy", "pandas", "lightgbm", "scipy", "sklearn", "talib", "rich", "pynvml"}
    assert not heavy & set(json.loads(daemon))
    code = code.replace("gpusched.service.main, gpusched.supervisor.survey", "gpusched.client.connection")
    client = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
    assert not (heavy | {"anyio", "asyncio", "sqlite3", "subprocess", "logging"}) & set(json.loads(client))


def test_the_last_minutes_of_its_devices_are_told_to_who_comes_later(service: Daemon) -> None:
    service.start()
    with service.connect() as connection:
        until(connection.subscribe(), lambda delta: isinstance(delta, DeviceReported))
    with service.connect() as connection:
        samples = connection.history()
    assert samples
    assert {sample.device_id for sample in samples} == {"cpu"}
    service.stop()


def test_a_running_daemon_has_not_imported_them_either(service: Daemon) -> None:
    service.start()
    with service.connect() as connection:
        connection.submit(service.spec("A"), source="s", name="batch")
    finished(service, "batch")
    maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert not [name for name in ("numpy", "pandas", "lightgbm", "libgomp") if name in maps]
    service.stop()


def test_one_daemon_for_each_state_directory(service: Daemon) -> None:
    service.start()
    first = service.process
    service.launch()
    assert service.end() == 4
    assert f"in use by the process {first.pid}" in service.log.read_text()
    with service.connect() as connection:
        assert connection.daemon.pid == first.pid
    first.kill()
    first.wait()


def test_a_change_to_many_windows_survives_a_kill_half_way(service: Daemon) -> None:
    service.start(environment={"GPUSCHED_TEST_HANGING_CHANGE": "many"})
    windows = 3000
    with service.connect() as connection:
        connection.drain(None)
        connection.submit(service.spec("A", windows=windows), source="s", name="many")

        def cancel() -> None:
            with contextlib.suppress(DaemonError):
                connection.change("cancel", "many")

        asked = threading.Thread(target=cancel)
        asked.start()
        service.wait_for_notice("hanging")
        service.kill()
        asked.join()
    with contextlib.closing(sqlite3.connect(service.directory / "state" / "state.db")) as store:
        ((left,),) = store.execute("SELECT windows FROM counts WHERE status = 'queued'").fetchall()
        ((verb, done),) = store.execute("SELECT verb, done FROM changes").fetchall()
    assert 0 < left < windows
    assert (verb, done) == ("cancel", windows - left)
    service.start()
    assert finished(service, "many").counts == {"cancelled": windows}
    service.stop()
    lines = [line for line in service.log.read_text().splitlines() if "cancel" in line]
    assert len(lines) == 1, "one line, however many windows"
    assert f"asked to cancel which=many windows={windows}" in lines[0]


def test_one_daemon_for_each_socket(service: Daemon, tmp_path: Path) -> None:
    service.start()
    other = Daemon(tmp_path / "other")
    (other.directory / "run").symlink_to(service.directory / "run")
    other.launch()
    assert other.end() == 3
    assert f"listens on {other.socket}: the process {service.process.pid}" in other.log.read_text()
    with service.connect() as connection:
        assert connection.daemon.pid == service.process.pid
    service.stop()
    assert not service.socket.exists()


def test_a_dead_socket_is_replaced_and_anything_else_is_not(service: Daemon) -> None:
    service.start()
    service.kill()
    assert service.socket.exists()
    service.start()
    service.stop()
    service.socket.write_text("precious")
    service.launch()
    assert service.end() == 3
    assert service.socket.read_text() == "precious"
    assert "something else at that path" in service.log.read_text()


# -- signals -----------------------------------------------------------------------------------------------------------


def test_sigterm_drains(service: Daemon) -> None:
    service.start()
    with service.fifo() as release:
        with service.connect() as connection:
            connection.submit(service.spec("FIFO", windows=3), source="s", name="batch")
        service.process.send_signal(signal.SIGHUP)
        service.process.terminate()
        service.wait_for_notice("STOPPING=1")
        service.wait_for_notice("EXTEND_TIMEOUT_USEC=")
        release()
        release()
        assert service.end() == 0
        service.start()
        with service.connect() as connection:
            counts = connection.batch("batch").batch.counts
            assert counts["succeeded"] == 2
        release()
        assert finished(service, "batch").counts == {"succeeded": 3}
        with service.connect() as connection:
            assert [line.attempts for line in connection.windows("batch")] == [1, 1, 1]
    assert service.stop() == 0
    assert "SIGHUP does nothing" in service.log.read_text()


@pytest.mark.parametrize("how", ["a second signal", pytest.param("the time is over", marks=pytest.mark.thorough)])
def test_windows_that_do_not_end_are_stopped_and_queued_again(service: Daemon, how: str) -> None:
    service.start(environment={"GPUSCHED_TEST_STOP_LIMIT_S": "2" if how == "the time is over" else "300"})
    with service.fifo() as release:
        with service.connect() as connection:
            connection.submit(service.spec("FIFO", windows=2), source="s", name="batch")
        service.process.terminate()
        if how == "a second signal":
            service.wait_for_notice("STOPPING=1")
            service.process.send_signal(signal.SIGINT)
        assert service.end() == 0
        assert not service.processes()
        service.start()
        release()
        release()
        assert finished(service, "batch").counts == {"succeeded": 2}
    service.stop()


# -- the service manager -----------------------------------------------------------------------------------------------


def notices(service: Daemon, seconds: float) -> list[str]:
    """The messages to the service manager within that time."""
    service.notices.settimeout(seconds)
    lines: list[str] = []
    try:
        while len(lines) < 50:
            lines += service.notices.recv(65536).decode().split("\n")
    except TimeoutError:
        pass
    return lines


def test_the_watchdog_is_fed_by_turns_and_a_hung_turn_starves_it(service: Daemon) -> None:
    service.start(environment={"WATCHDOG_USEC": "100000", "GPUSCHED_TEST_HANGING_BATCH": "hangs"})
    assert notices(service, PATIENCE_S).count("WATCHDOG=1") >= 49  # idle, it goes on and on
    with service.connect() as connection:
        connection._ask(Submit(spec=service.spec("A"), source="s", name="hangs"))
        service.wait_for_notice("hanging")
    notices(service, 0.1)
    assert notices(service, 0.5) == []
    service.kill()


def test_status_says_what_goes_on(service: Daemon) -> None:
    service.start()
    with service.fifo() as release, service.connect() as connection:
        connection.submit(service.spec("FIFO", windows=3), source="s", name="batch")
        service.process.terminate()
        service.wait_for_notice("STATUS=stopping: 2 windows running, 3 not finished")
        for _ in range(2):
            release()
        service.end()


def test_nothing_of_the_manager_is_left_for_windows() -> None:
    environment = {"NOTIFY_SOCKET": "@gpusched-test", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0gpusched-test")
        notifier = Notifier.from_environment(environment)
        assert environment == {}
        assert notifier.watchdog_s == 3.0
        notifier.ready("idle")
        assert manager.recv(1000) == b"READY=1\nSTATUS=idle"
        notifier.status("idle")
        notifier.status("busy")
        assert manager.recv(1000) == b"STATUS=busy"
        notifier.extend_timeout(1.5)
        assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=1500000"
    notifier.alive()  # nobody listens any more
    notifier.close()


def test_there_may_be_no_manager() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "3000000"})
    assert notifier.watchdog_s is None
    notifier.ready("idle")
    notifier.close()
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_s is None
    notifier.close()


def test_lines_for_the_journal(service: Daemon) -> None:
    service.log.touch()
    status = service.log.stat()
    service.start(
        environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}", "API_KEY": "secret-of-the-operator"}
    )
    with service.connect() as connection:
        spec = service.spec("BAD", "A", password="secret-of-the-batch")
        connection.submit(spec, source="s", name="batch")
    finished(service, "batch")
    service.stop()
    lines = service.log.read_text().splitlines()
    assert all(line[:3] in ("<3>", "<4>", "<6>") for line in lines)
    assert any(line.startswith("<4>window failed window=batch/BAD_") and "kind=bad_data" in line for line in lines)
    assert any(line.startswith("<6>window succeeded window=batch/A_") for line in lines)
    assert "secret" not in service.log.read_text()
    assert b"secret-of-the-operator" not in (service.directory / "state" / "state.db").read_bytes()


# -- the machine -------------------------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk(service: Daemon) -> None:
    state = service.directory / "state"
    state.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(state)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        service.start(COMMIT_PATIENCE_S=0.2)
        with service.connect() as connection:
            fill(state / "filler")
            spec = service.spec("A", windows=50)
            with pytest.raises(DaemonError, match="cannot write its store") as error:
                connection.submit(spec, source="s", name="batch")
            assert "make room" in str(error.value)
            trouble = connection.ping().trouble
            assert trouble
            assert "cannot grow" in trouble
            (state / "filler").unlink()
            assert connection.submit(spec, source="s", name="batch").how == "known"
        assert finished(service, "batch").counts == {"succeeded": 50}
        assert "trouble is over kind=store" in service.log.read_text()
        assert service.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_the_launcher_is_killed(service: Daemon) -> None:
    service.start()
    with service.fifo() as release, service.connect() as connection, service.connect() as follower:
        running(service, 2)
        subscription = follower.subscribe("batch")
        os.kill(launcher_of(service), signal.SIGKILL)
        # A killed process lives on for a moment, and its windows as well: they would take windows released meanwhile.
        for _ in range(2):
            until(subscription, lambda d: isinstance(getattr(d, "new", None), Running))
        release()
        release()
        assert finished(service, "batch").counts == {"succeeded": 2}
        assert [line.attempts for line in connection.windows("batch")] == [2, 2]
    service.stop()
    assert not service.processes()
