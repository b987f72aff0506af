"""Samples of NVML's readings while a process and its descendants work."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpusched.core.model import Device
from gpusched.devices.nvidia.readings import Gone, Reader, Unreadable, in_initial_pid_namespace

PERIOD_S = 0.05


class Watch:
    """A context manager that reads every `PERIOD_S` seconds. `of` is the process whose descendants count as ours."""

    def __init__(self, devices: Sequence[Device], of: int | None = None) -> None:
        self._ids = [device.id for device in devices]
        self._of = os.getpid() if of is None else of
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        #: by device: most memory of one of our processes, most processes of ours at once, every utilisation
        self.peak_bytes: Counter[str] = Counter()
        self.processes: Counter[str] = Counter()
        self.utilisation: list[float] = []
        #: by device: the cores that our processes on it might run on
        self.cores: dict[str, set[tuple[int, ...]]] = {device.id: set() for device in devices}

    def __enter__(self) -> Self:
        if self._ids:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._ids:
            self._thread.join(10)

    def summary(self) -> dict[str, Any]:
        """Means and peaks over all devices; None for readings that NVML did not give."""
        told = in_initial_pid_namespace() and any(self.processes.values())
        return {
            "utilisation_mean": round(statistics.fmean(self.utilisation), 3) if self.utilisation else None,
            "utilisation_max": max(self.utilisation, default=None),
            "process_mb_max": round(max(self.peak_bytes.values()) / 2**20) if told else None,
            "processes_max": max(self.processes.values()) if told else None,
        }

    def _watch(self) -> None:
        with contextlib.suppress(Unreadable), Reader(self._ids, slow_s=1.0, sees_own_pids=True) as reader:
            while not self._stop.wait(PERIOD_S):
                for device_id in self._ids:
                    with contextlib.suppress(Gone, Unreadable):
                        self._look(reader, device_id)

    def _look(self, reader: Reader, device_id: str) -> None:
        reading = reader.read(device_id, time.time())
        if reading.utilisation is not None:
            self.utilisation.append(reading.utilisation)
        found = reading.process_memory_bytes or {}
        ours = {pid: memory for pid, memory in found.items() if self._of in _ancestors(pid)}
        self.processes[device_id] = max(self.processes[device_id], len(ours))
        self.peak_bytes[device_id] = max([self.peak_bytes[device_id], *ours.values()])
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                self.cores[device_id].add(tuple(sorted(os.sched_getaffinity(pid))))


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return
        yield pid
