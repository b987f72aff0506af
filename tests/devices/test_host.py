"""The host's processors as a device that can be read."""

from __future__ import annotations

from pathlib import Path

from gpusched.devices.host import Host
from gpusched.devices.memory import HostMemory


def write(proc: Path, ticks: str, memory: str = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n") -> None:
    (proc / "stat").write_text(f"cpu  {ticks}\ncpu0 1 2 3 4\n")
    (proc / "meminfo").write_text(memory)


def test_use_is_that_since_the_last_reading(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice
    write(tmp_path, "100 0 100 1000 50 0 0 0 90 0")
    host = Host(HostMemory(tmp_path), tmp_path)
    write(tmp_path, "140 10 110 1030 60 0 0 0 130 0")
    reading, memory = host.read(5.0)
    assert (reading.device_id, reading.at, reading.utilisation) == ("cpu", 5.0, 0.6)
    assert (reading.memory_total_bytes, reading.memory_free_bytes) == (1000 * 1024, 400 * 1024)
    assert (memory.reading.total_bytes, memory.reading.free_bytes) == (1000 * 1024, 400 * 1024)
    assert host.read(6.0)[0].utilisation is None, "no time has passed"


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    reading, _ = Host(HostMemory(tmp_path), tmp_path).read(5.0)
    assert (reading.utilisation, reading.memory_total_bytes, reading.memory_free_bytes) == (None, None, None)


def test_this_machine() -> None:
    reading, _ = Host(HostMemory()).read(5.0)
    assert reading.memory_total_bytes is not None
    assert reading.memory_free_bytes is not None
    assert 0 < reading.memory_free_bytes < reading.memory_total_bytes
