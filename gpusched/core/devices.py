"""Devices: what becomes of windows and batches when a device opens, closes, or can no longer be trusted.

A batch for which no device is left is stranded: it is held until a suitable one opens.
"""

from __future__ import annotations

from typing import Literal

from gpusched.core.books import Books
from gpusched.core.estimates import guessed_seconds
from gpusched.core.events import (
    DeviceChanged,
    DeviceTuned,
    NodeJoined,
    NodeLost,
    NodeSilent,
    ProcessStuck,
    TrialBegan,
    TrialEnded,
)
from gpusched.core.model import HoldReason, Instant, PlannedWindow, Reading, WindowKey
from gpusched.core.queue import Entry
from gpusched.core.states import Ending, Failure, Running, Stopping


class Devices:
    """Opens and closes the devices of the pool, and lets their tuners learn."""

    def __init__(self, books: Books) -> None:
        self._books = books
        #: windows that were killed but do not die, by device
        self._suspected: dict[str, set[WindowKey]] = {}

    def joined(self, event: NodeJoined, now: Instant) -> None:
        """Take in the devices of a machine that are new, and open those that were silent."""
        pool = self._books.pool
        for device_id in pool.hear(event.host, "", now.wall):
            self._device_changed(device_id, now)
        for device in [device for device in event.devices if device.id not in pool.devices]:
            pool.add(device, now.wall)
            if device.id in event.trying:
                pool.begin_trial(device, now.wall)
            if event.host and device.id in pool.devices:
                self._device_changed(device.id, now)
        self.release_stranded(now)

    def silent(self, event: NodeSilent, now: Instant) -> None:
        for device_id in self._books.pool.hear(event.host, event.reason, now.wall):
            self._device_changed(device_id, now)

    def node_lost(self, event: NodeLost, now: Instant) -> list[Entry]:
        """Close the devices of a lost node for good; return their windows. The devices leave the pool with these."""
        pool = self._books.pool
        host = pool.hosts.get(event.host)
        states = [] if host is None else list(host.devices.values())
        windows = self._books.on(states)
        for state in states:
            if pool.set_health(state.device.id, "gone", event.reason, now.wall):
                self._device_changed(state.device.id, now)
            pool.remove(state.device.id)
        return windows

    def trial_began(self, event: TrialBegan, now: Instant) -> None:
        if self._books.pool.begin_trial(event.device, now.wall):
            self._device_changed(event.device.id, now)

    def trial_ended(self, event: TrialEnded, now: Instant) -> None:
        if self._books.pool.end_trial(event.device, event.why, now.wall):
            self._device_changed(event.device.id, now)
            self.release_stranded(now)
            self.hold_stranded(now)

    def read(self, reading: Reading, now: Instant) -> None:
        self._books.pool.observe(reading, now.monotonic)
        self._look_for_strangers(reading, now)

    def close(
        self, device_id: str, health: Literal["draining", "suspect", "quarantined", "gone"], reason: str, now: Instant
    ) -> None:
        """Place nothing there any more; unless it is draining or suspect, also stop the windows that run there."""
        if not self._books.pool.set_health(device_id, health, reason, now.wall):
            return
        self._device_changed(device_id, now)
        if health in ("draining", "suspect"):
            self._books.withdraw(self._books.on([self._books.pool.devices[device_id]]))
        else:
            for entry in self._books.on([self._books.pool.devices[device_id]]):
                self._books.stop(entry, "interrupted", f"device {device_id}: {reason}", now)
            if health == "gone":
                self._books.pool.remove(device_id)
            self.hold_stranded(now)

    def reopen(self, device_id: str, now: Instant) -> None:
        """Place windows there again, unless it is yet to be tried."""
        state = self._books.pool.devices.get(device_id)
        if state is None or state.untried or not self._books.pool.set_health(device_id, "open", "", now.wall):
            return
        self._device_changed(device_id, now)
        self.release_stranded(now)

    def process_stuck(self, event: ProcessStuck, now: Instant) -> None:
        """Keep the slot of a process that was killed but does not die, and place no other window on its GPU.

        The host's processors are not closed: there the process hangs in a file system, or a debugger holds it.
        """
        entry = self._books.attempt(event.key, event.attempt)
        if entry is None:
            return
        self._books.sit_down(entry)
        if not isinstance(entry.state, Running | Stopping):
            return
        device_id = entry.state.slot.device_id
        self._books.move(entry, "stuck", entry.state, event.reason, now)
        if self._books.pool.devices[device_id].device.kind != "host":
            self._suspected.setdefault(device_id, set()).add(entry.key)
            if self._books.pool.devices[device_id].health == "open":
                self.close(device_id, "suspect", f"{entry.key} {event.reason}", now)

    def trust(self, device_id: str, key: WindowKey, now: Instant) -> None:
        """Open the device of a window that has left, if it was closed only because this window did not die."""
        stuck = self._suspected.get(device_id)
        if stuck is not None and key in stuck:
            stuck.remove(key)
            state = self._books.pool.devices.get(device_id)
            if not stuck and state is not None and state.health == "suspect":
                self.reopen(device_id, now)

    def _look_for_strangers(self, reading: Reading, now: Instant) -> None:
        """Close the devices whose windows show up in the reading of another one: pinning does not work there."""
        pool = self._books.pool
        read = pool.devices.get(reading.device_id)
        if read is None or not reading.process_memory_bytes:
            return
        ours = read.host.pids
        for pid in sorted(ours.keys() & reading.process_memory_bytes.keys()):
            placed = pool.devices[ours[pid].device_id]
            if placed is not read and placed.device.kind != "host":
                reason = f"process {pid} was placed here, but runs on {reading.device_id}"
                self.close(placed.device.id, "quarantined", reason, now)

    def release_stranded(self, now: Instant) -> None:
        """Release the batches that were stranded and have a device again."""
        for batch in self._books.open.values():
            stranded = batch.held is not None and batch.held.kind == "stranded"
            if stranded and not self._books.pool.hopeless(batch.batch.device):
                self._books.release(batch, now)

    def hold_stranded(self, now: Instant) -> None:
        """Hold the batches for which no device is left, so that the people who wait for them hear of it."""
        for batch in self._books.open.values():
            if batch.unfinished and batch.held is None:
                reason = self._books.pool.hopeless(batch.batch.device)
                if reason is not None:
                    text = f"no device is left that could run it ({reason})"
                    self._books.hold(batch, HoldReason(kind="stranded", text=text), now)

    def tune(self, device_id: str, planned: PlannedWindow, ending: Ending, now: Instant) -> None:
        """Let the device's tuner learn from a window that ends, before it gives its slot back."""
        device = self._books.pool.devices[device_id]
        if device.tuner is None:
            return
        if device.has_idle or isinstance(ending, Failure):
            device.tuner.interrupted()
            return
        reason = device.tuner.ended(guessed_seconds(planned.usable_rows), now.monotonic)
        if reason is not None:
            device.width = device.tuner.slots
            record = DeviceTuned(device_id=device_id, slots=device.width, reason=reason, at=now.wall)
            self._books.records.append(record)

    def _device_changed(self, device_id: str, now: Instant) -> None:
        state = self._books.pool.devices[device_id]
        changed = DeviceChanged(
            device_id=device_id, health=state.health, reason=state.reason, at=now.wall, untried=state.untried
        )
        self._books.records.append(changed)
