"""The host's memory as /proc and both versions of control groups tell it, and whom the kernel killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusched.core.model import HostReading
from gpusched.devices import memory
from gpusched.devices.memory import HostMemory

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


class Machine:
    """A /proc and a tree of control groups, of which this process is in the innermost."""

    def __init__(self, directory: Path, version: int, *, path: str = "/a/b", root: str = "/") -> None:
        self.proc, self.top = directory / "proc", directory / "cgroups"
        self.version = version
        (self.proc / "self").mkdir(parents=True)
        self.group = self.top / path.removeprefix(root).strip("/")
        self.group.mkdir(parents=True)
        line, mount = f"0::{path}", "cgroup2 cgroup2 rw"
        if version == 1:
            line, mount = f"4:memory:{path}", "cgroup none rw,memory"
        groups = f"9:cpu:/\n{line}\n" if version == 1 else f"{line}\n"
        (self.proc / "self" / "cgroup").write_bytes(os.fsencode(groups))
        mounts = f"30 1 0:26 {root} {self.top} rw,nosuid shared:9 - {mount}\n"
        (self.proc / "self" / "mountinfo").write_bytes(
            b"1 0 8:1 / /\xff\x0c rw - ext4 /dev/vda rw\n" + os.fsencode(mounts)
        )
        (self.proc / "meminfo").write_text("MemTotal: 1024000 kB\nMemAvailable: 512000 kB\nHugePages_Total: 0\n")
        self.kill(0)
        (self.proc / "vmstat").write_text("nr_free_pages 5\noom_kill 7\n")

    def limit(self, group: Path, limit: str, used: int, cached: int) -> None:
        names = ("memory.max", "memory.current")
        if self.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for name, text in zip(names, (limit, str(used * MIB)), strict=True):
            (group / name).write_text(text + "\n")
        total = "total_" if self.version == 1 else ""
        (group / "memory.stat").write_text(f"anon 1\n{total}inactive_file {cached * MIB}\n{total}active_file 0\n")

    def kill(self, count: int) -> None:
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        (self.group / name).write_text(f"low 0\nunder_oom 0\noom_kill {count}\n")

    def reading(self) -> HostReading:
        return HostMemory(self.proc).read().reading


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_limit_counts_and_caches_are_free(tmp_path: Path, version: int) -> None:
    machine = Machine(tmp_path, version)
    none = "9223372036854771712" if version == 1 else "max"
    machine.limit(machine.group, none, 100, 0)
    assert machine.reading() == HostReading(total_bytes=1000 * MIB, free_bytes=500 * MIB, process_bytes={})
    machine.limit(machine.group, str(300 * MIB), 100, 30)
    assert machine.reading() == HostReading(total_bytes=300 * MIB, free_bytes=230 * MIB, process_bytes={})
    machine.limit(machine.group.parent, str(400 * MIB), 390, 0)
    assert machine.reading() == HostReading(total_bytes=300 * MIB, free_bytes=10 * MIB, process_bytes={})
    machine.limit(machine.group.parent, str(400 * MIB), 420, 0)
    assert machine.reading().free_bytes == 0, "a limit that was lowered"


def test_memory_that_is_throttled_is_not_free(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    machine.limit(machine.group, str(300 * MIB), 100, 0)
    (machine.group / "memory.high").write_text(str(150 * MIB))
    assert machine.reading().free_bytes == 50 * MIB


@pytest.mark.parametrize("root", ["/docker/abc", "/../elsewhere"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_sees_its_groups_from_outside(tmp_path: Path, version: int, root: str) -> None:
    machine = Machine(tmp_path, version, path="/docker/abc", root=root)
    machine.group = machine.top
    machine.limit(machine.top, str(300 * MIB), 100, 0)
    assert machine.reading().free_bytes == 200 * MIB


@pytest.mark.parametrize("version", [1, 2])
def test_the_name_of_a_group_may_have_any_bytes(tmp_path: Path, version: int) -> None:
    machine = Machine(tmp_path, version, path=os.fsdecode(b"/a/\xff\x0c"))
    machine.limit(machine.group, str(300 * MIB), 100, 0)
    assert machine.reading().free_bytes == 200 * MIB


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    nowhere = HostMemory(tmp_path)
    assert nowhere.read().reading == HostReading(process_bytes={})
    assert nowhere.take_kill() is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_is_taken_once(tmp_path: Path, version: int) -> None:
    machine = Machine(tmp_path, version)
    machine.limit(machine.group, str(300 * MIB), 100, 0)
    machine.kill(3)
    host = HostMemory(machine.proc)
    assert host.take_kill() is False, "those were before our time"
    machine.kill(5)
    assert [host.take_kill() for _ in range(3)] == [True, True, False]


def test_without_groups_the_machine_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    (machine.proc / "self" / "cgroup").unlink()
    host = HostMemory(machine.proc)
    assert host.take_kill() is False
    (machine.proc / "vmstat").write_text("oom_kill 8\n")
    assert [host.take_kill(), host.take_kill()] == [True, False]


def test_a_kill_that_no_window_died_of_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, 2)
    machine.limit(machine.group, str(300 * MIB), 100, 0)
    monkeypatch.setattr(memory, "CLAIM_S", 0.0)
    host = HostMemory(machine.proc)
    machine.kill(1)
    host.read()
    assert host.take_kill(), "it was counted just now"
    machine.kill(2)
    host.read()
    host.read()
    assert host.take_kill() is False


def test_what_processes_have_of_their_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 2)
    (machine.proc / "77").mkdir()
    (machine.proc / "77" / "statm").write_text("9999 1000 200 1 0 500 0\n")
    host = HostMemory(machine.proc)
    host.follow(77, 300 * PAGE)
    host.follow(88, 0)  # it has gone
    assert host.read().reading.process_bytes == {77: 500 * PAGE}
    (machine.proc / "78").mkdir()
    (machine.proc / "78" / "statm").write_text("9999 50 10 1 0 500 0\n")
    (machine.proc / "77" / "task" / "77").mkdir(parents=True)
    (machine.proc / "77" / "task" / "77" / "children").write_text("78 79 ")
    assert host.read().reading.process_bytes == {77: 540 * PAGE}, "with the program that it has started"
    host.forget(77)
    host.forget(88)
    assert host.read().reading.process_bytes == {}


def test_this_machine() -> None:
    host = HostMemory()
    host.follow(os.getpid(), 0)
    reading = host.read().reading
    assert reading.total_bytes is not None
    assert reading.free_bytes is not None
    assert 0 < reading.free_bytes <= reading.total_bytes
    assert reading.process_bytes is not None
    assert reading.process_bytes[os.getpid()] > MIB
    assert host.take_kill() in (False, None)
