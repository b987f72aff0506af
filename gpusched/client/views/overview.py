"""All that a daemon does, as a view of its batches and devices. Pure; nothing is asked or drawn here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from gpusched.client.views.batch import BatchView
from gpusched.client.views.slots import SlotTimes, SlotView
from gpusched.client.views.window import FinishedWindow, RunningWindow, ended_window
from gpusched.core.events import (
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    DeviceChanged,
    DeviceTuned,
    ProgressReported,
    WindowMoved,
)
from gpusched.core.model import CPU, Reading
from gpusched.core.samples import Recent, Sample
from gpusched.core.states import Active, Finished, Held, Queued, Running
from gpusched.core.statuses import FAILURES
from gpusched.protocol import BatchAnnounced, BatchStatus, Delta, DeviceReported, DeviceStatus, Snapshot, Trouble

#: windows that finished lately, and windows that failed lately, that are kept
KEPT_RECENT = 64


class DeviceView:
    """A device, its last reading, and the windows on it."""

    def __init__(self, status: DeviceStatus) -> None:
        self.status = status
        #: slots that are held
        self.busy: set[int] = set(status.allocations)

    @property
    def memory_total_bytes(self) -> int | None:
        reading = self.status.reading
        return (reading.memory_total_bytes if reading else None) or self.status.device.memory_total_bytes

    @property
    def memory_used_bytes(self) -> int | None:
        return self.status.reading.memory_used_bytes if self.status.reading else None

    def read(self, reading: Reading) -> None:
        """Take in a reading."""
        self.status = msgspec.structs.replace(self.status, reading=reading)


class Overview:
    """Batches in the order of acceptance, devices in that of the pool."""

    def __init__(self) -> None:
        self.batches: dict[str, BatchView] = {}
        #: troubles of the daemon, the oldest first
        self.troubles: tuple[Trouble, ...] = ()
        self.submitted_at: dict[str, float] = {}
        self.devices: dict[str, DeviceView] = {}
        #: readings of the last minutes, also of the processors where they have no slots
        self.history = Recent()
        #: when slots were held
        self.slot_times = SlotTimes()
        #: the last reading of the processors of the daemon's machine; None: not told
        self.processors: Reading | None = None
        #: the daemon's Unix time, less the monotonic time here
        self._offset = 0.0
        #: (batch, window), the latest at the end
        self.recent: deque[tuple[str, FinishedWindow]] = deque(maxlen=KEPT_RECENT)
        self.failures: deque[tuple[str, FinishedWindow]] = deque(maxlen=KEPT_RECENT)

    def load(self, snapshot: Snapshot, monotonic: float) -> None:
        """Start anew from a snapshot. Finished windows that were seen stay where it lists none."""
        self.troubles = snapshot.troubles
        self.batches = {}
        self._offset = snapshot.at - monotonic
        for batch in snapshot.batches:
            self._announce(batch, snapshot, monotonic)
        for kept_windows, moves in ((self.recent, snapshot.ended), (self.failures, snapshot.failed)):
            if moves:
                kept_windows.clear()
                kept_windows.extend((moved.key.batch_id, ended_window(moved)) for moved in moves)
        self.slot_times.load(snapshot.ended, snapshot.at)
        self.devices = {status.device.id: DeviceView(status) for status in snapshot.devices}

    def remember(self, samples: Iterable[Sample]) -> None:
        """Take in the daemon's readings of the last minutes, in place of those that were seen."""
        self.history = Recent(samples)

    def unix(self, monotonic: float) -> float:
        """The daemon's Unix time at the instant `monotonic`."""
        return monotonic + self._offset

    def apply(self, delta: Delta | Snapshot, monotonic: float) -> None:
        """Take in a delta that arrived at the instant `monotonic`."""
        match delta:
            case Snapshot():
                self.load(delta, monotonic)
            case BatchAnnounced(batch=batch):
                empty = Snapshot(at=0.0, batches=(batch,), active=(), progress=(), devices=())
                self._announce(batch, empty, monotonic)
            case DeviceReported(reading=reading):
                self.history.add(reading)
                if reading.device_id == CPU:
                    self.processors = reading
                if device := self.devices.get(reading.device_id):
                    device.read(reading)
            case DeviceChanged(device_id=device_id, health="gone"):
                self.devices.pop(device_id, None)
            case DeviceChanged(device_id=device_id, health=health, reason=reason):
                device = self.devices.get(device_id)
                if device is not None:
                    since = self.unix(monotonic) if health != device.status.health else device.status.since_at
                    device.status = msgspec.structs.replace(device.status, health=health, reason=reason, since_at=since)
            case DeviceTuned(device_id=device_id, slots=slots):
                device = self.devices.get(device_id)
                if device is not None:
                    device.status = msgspec.structs.replace(device.status, width=slots)
            case WindowMoved(key=key):
                self._moved(delta, monotonic)
            case ProgressReported(key=key):
                if view := self.batches.get(key.batch_id):
                    view.apply(delta, monotonic)
            case BatchHeld() | BatchReleased() | BatchReopened() | BatchFinished():
                if view := self.batches.get(delta.batch_id):
                    view.apply(delta, monotonic)

    @property
    def running(self) -> list[tuple[str, RunningWindow]]:
        """(batch, window) of every slot that is held, by slot."""
        windows = [(name, window) for name, view in self.batches.items() for window in view.running.values()]
        return sorted(windows, key=lambda item: item[1].slot)

    def slots_of(self, device_id: str) -> list[SlotView]:
        """The last minutes of a device's slots."""
        device = self.devices.get(device_id)
        held = {window.slot: self.unix(window.since) for _, window in self.running}
        return [
            SlotView(index=slot.index, worked=self.slot_times.of(slot), held_since=held.get(slot.index))
            for slot in (device.status.slots if device is not None else ())
        ]

    @property
    def slots(self) -> int:
        return sum(device.status.width for device in self.devices.values())

    @property
    def waiting(self) -> int:
        """Windows that have not begun, in all batches."""
        return sum(view.total - view.done - len(view.running) for view in self.batches.values())

    def _announce(self, batch: BatchStatus, snapshot: Snapshot, monotonic: float) -> None:
        view = self.batches[batch.id] = BatchView()
        view.load(snapshot, batch.id, monotonic)
        self.submitted_at[batch.id] = batch.submitted_at

    def _moved(self, moved: WindowMoved, monotonic: float) -> None:
        for state, busy in ((moved.old, False), (moved.new, True)):
            if isinstance(state, Active) and (device := self.devices.get(state.slot.device_id)):
                (device.busy.add if busy else device.busy.discard)(state.slot.index)
        view = self.batches.get(moved.key.batch_id)
        if isinstance(moved.old, Active) and not isinstance(moved.new, Active):
            self.slot_times.add(moved, moved.old.slot, self._began(moved.old, view, moved.at))
        if view is None:
            return
        view.apply(moved, monotonic)
        if isinstance(moved.old, Finished):
            # It is tried again, so it is no longer how it ended.
            for ended in (self.recent, self.failures):
                kept = [item for item in ended if (item[0], item[1].label) != (moved.key.batch_id, moved.key.label)]
                ended.clear()
                ended.extend(kept)
        has_ended = isinstance(moved.new, Finished) and not isinstance(moved.old, Queued | Held)
        if has_ended and (window := view.last_finished):
            self.recent.append((moved.key.batch_id, window))
            if window.outcome in FAILURES:
                self.failures.append((moved.key.batch_id, window))

    def _began(self, state: Active, view: BatchView | None, at: float) -> float:
        """When the window of a slot began there, as Unix time."""
        if isinstance(state, Running):
            return state.started_at
        running = view.running.get(state.slot.index) if view is not None else None
        return at if running is None else self.unix(running.since)
