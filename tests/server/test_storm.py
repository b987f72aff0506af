"""A real daemon in a storm of faults: killed, its launchers and windows killed or stopped, disks full, links planted.

Whatever was accepted ends exactly once and as it should, no artifact is corrupt, no process and no slot is left over,
and no file of a stranger is touched.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpusched.protocol import Delta, Snapshot
from tests.server.support import Daemon, finished, until
from tests.server.test_chaos import Submitter, all_gone, check

#: seconds that a full disk or a stopped process lasts at most
LONGEST_FAULT_S = 0.3
PARTIAL = ".partial"


class Storm:
    """Faults for one daemon, each drawn from `dice`. `struck` counts those that met something to harm."""

    def __init__(self, daemon: Daemon, seed: int, small_disks: list[Path]) -> None:
        self._daemon = daemon
        self._dice = random.Random(seed)
        self._small_disks = small_disks
        self._foreign = daemon.directory / "foreign"
        self._planted = 0
        self.struck: Counter[str] = Counter()
        self.faults: dict[str, Callable[[], bool]] = {
            "daemon killed": self._kill_daemon,
            "launcher killed": lambda: self._signal(self._launchers(), signal.SIGKILL),
            "window killed": lambda: self._signal(self._windows(), signal.SIGKILL),
            "launcher stopped": lambda: self._stop(self._launchers()),
            "window stopped": lambda: self._stop(self._windows()),
            "link for a result": lambda: self._plant_at_label(self._link),
            "directory for a result": lambda: self._plant_at_label(self._directory),
            "link among left-overs": self._plant_left_over,
            "link for the index": self._plant_index,
        }
        if small_disks:
            self.faults["disk full"] = self._fill_disk

    def strike(self, name: str) -> None:
        if self.faults[name]():
            self.struck[name] += 1

    def moment(self, longest_s: float) -> None:
        """Let a random time pass: faults strike at random here, nothing is waited for."""
        select.select([], [], [], self._dice.uniform(0.0, longest_s))

    # -- processes -----------------------------------------------------------------------------------------------------

    def _kill_daemon(self) -> bool:
        self._daemon.kill()
        all_gone(self._daemon)
        self._daemon.start()
        return True

    def _launchers(self) -> list[int]:
        return [pid for pid in self._daemon.processes() if parent(pid) == self._daemon.process.pid]

    def _windows(self) -> list[int]:
        launchers = self._launchers()
        return [pid for pid in self._daemon.processes() if parent(pid) in launchers]

    def _signal(self, pids: list[int], number: signal.Signals) -> bool:
        if not pids:
            return False
        try:
            os.kill(self._dice.choice(pids), number)
        except ProcessLookupError:
            return False
        return True

    def _stop(self, pids: list[int]) -> bool:
        if not pids:
            return False
        victim = self._dice.choice(pids)
        try:
            descriptor = os.pidfd_open(victim)
        except ProcessLookupError:
            return False
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            self.moment(LONGEST_FAULT_S)
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    # -- disks ---------------------------------------------------------------------------------------------------------

    def _fill_disk(self) -> bool:
        ballast = self._dice.choice(self._small_disks) / "ballast"
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
            self.moment(LONGEST_FAULT_S)
        finally:
            ballast.unlink()
        return True

    # -- strangers' files ----------------------------------------------------------------------------------------------

    def _plant_at_label(self, plant: Callable[[Path], None]) -> bool:
        """Where the result of a window goes that is waiting for its turn."""
        with self._daemon.connect() as connection:
            at_work = [batch.id for batch in connection.batches() if batch.state == "open"]
            if not at_work:
                return False
            batch = self._dice.choice(at_work)
            waiting = [line.key.label for line in connection.windows(batch) if line.status == "queued"]
        if not waiting:
            return False
        try:
            plant(self._daemon.directory / "runs" / batch / self._dice.choice(waiting))
        except FileExistsError:
            return False
        return True

    def _link(self, path: Path) -> None:
        path.symlink_to(self.new_foreign())

    def _directory(self, path: Path) -> None:
        """Made beside and renamed, so that nobody meets it without its contents."""
        made = self._daemon.directory / "runs" / f"made-{self._planted}"
        self._fill(made)
        with contextlib.suppress(OSError):
            made.rename(path)  # nothing happens to a result that is there by now: it is not empty

    def _plant_left_over(self) -> bool:
        """A left-over of an attempt that never was."""
        for partial in sorted((self._daemon.directory / "runs").glob(f"*/{PARTIAL}")):
            target = self.new_foreign()
            with contextlib.suppress(FileNotFoundError):
                (partial / f"{target.name}.999999").symlink_to(target)
                return True
        return False

    def _plant_index(self) -> bool:
        """Where the index's temporary file goes."""
        outputs = sorted((self._daemon.directory / "runs").glob("batch-*"))
        if not outputs:
            return False
        target = self.new_foreign() / "NOTES.md"
        with contextlib.suppress(FileExistsError):
            (self._dice.choice(outputs) / ".teacher_runs.json.tmp").symlink_to(target)
            return True
        return False

    def new_foreign(self) -> Path:
        """A stranger's directory, outside all outputs."""
        path = self._foreign / f"stranger-{self._planted}"
        self._fill(path)
        return path

    def _fill(self, path: Path) -> None:
        (path / "below").mkdir(parents=True)
        for file in (path / "NOTES.md", path / "below" / "more.txt"):
            file.write_text(f"{file.name} of stranger {self._planted}\n")
        self._planted += 1

    def check_strangers(self) -> None:
        """Every file of every stranger is still there, once, below whatever name, with its own words."""
        left: Counter[str] = Counter()
        for root in (self._foreign, self._daemon.directory / "runs"):
            for name in ("NOTES.md", "more.txt"):
                left.update(path.read_text() for path in root.rglob(name))
        for number in range(self._planted):
            assert left[f"NOTES.md of stranger {number}\n"] == 1, number
            assert left[f"more.txt of stranger {number}\n"] == 1, number


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def weather(daemon: Daemon, storm: Storm, strikes: list[str], *, batches: int, windows: int) -> None:
    """Let faults strike while batches come in, then check everything."""
    submitter = Submitter(daemon, batches, windows, max_attempts=100)
    daemon.start()
    submitter.start()
    for name in strikes:
        storm.moment(0.1)
        storm.strike(name)
    submitter.join()
    assert submitter.accepted == [f"batch-{number}" for number in range(batches)]
    for name in submitter.accepted:
        finished(daemon, name)
    indexes_written(daemon)
    for name in submitter.accepted:
        check(daemon, name, windows)
    with daemon.connect() as connection:
        assert not any(device.allocations for device in connection.devices())
        assert connection.ping().active == 0
    storm.check_strangers()
    assert daemon.stop() == 0
    all_gone(daemon)


def indexes_written(daemon: Daemon) -> None:
    """Wait until no index is late because of a disk that was full when its batch finished."""
    with daemon.connect() as connection:
        subscription = connection.subscribe()

        def are_written(news: Delta | Snapshot) -> bool:
            return isinstance(news, Snapshot) and all(trouble.kind != "index" for trouble in news.troubles)

        if not are_written(subscription.snapshot):
            until(subscription, are_written)


@pytest.fixture
def small_disks(service: Daemon) -> Iterator[list[Path]]:
    """File systems of their own for the state and the outputs, if this user may mount any."""
    if os.geteuid() != 0:
        yield []
        return
    places = [service.directory / "state", service.directory / "runs"]
    mounted: list[Path] = []
    for place in places:
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", place], check=False).returncode:
            break
        mounted.append(place)
    yield mounted
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=False)


@pytest.mark.thorough
def test_each_fault_once(service: Daemon, small_disks: list[Path]) -> None:
    storm = Storm(service, 3, small_disks)
    weather(service, storm, list(storm.faults), batches=2, windows=10)


@pytest.mark.slow
def test_three_hundred_faults(service: Daemon, small_disks: list[Path]) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    storm = Storm(service, seed, small_disks)
    strikes = random.Random(seed).choices(list(storm.faults), k=450)
    weather(service, storm, strikes, batches=60, windows=25)
    print(f"{storm.struck.total()} faults: {dict(storm.struck.most_common())}")
    assert storm.struck.total() >= 300
    assert storm.struck.keys() == storm.faults.keys()
