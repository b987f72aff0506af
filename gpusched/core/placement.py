"""The pool: the ledger of slots and their holders, and the choice of the next slot.

The ledger decides; readings of the devices may veto a placement, but never say who holds a slot. The choice is
deterministic: the device with the fewest allocated slots relative to its width, then the one with the most free memory
net of reservations, then the lowest smoothed utilisation, then the lowest slot index.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Literal, assert_never

import msgspec

from gpusched.core.memory import LEAST_DEVICE_BYTES, LEAST_HOST_BYTES, NOTHING, Memory, Need
from gpusched.core.model import CPU, Device, DeviceChoice, DeviceType, HostReading, Reading, Slot, WindowKey
from gpusched.core.tuning import Tuner

#: `trying`: a trial is under way; `suspect`: a window on it was killed but does not die; `gone`: the device has
#: vanished, and leaves the pool after its windows
Health = Literal["open", "trying", "draining", "suspect", "quarantined", "gone"]

#: weight of the newest sample in the smoothed utilisation
SMOOTHING = 0.3


class Allocation(msgspec.Struct, frozen=True):
    """The slot that an attempt holds, and the memory set aside for it on the device and on the host."""

    key: WindowKey
    slot: Slot
    device: Need
    host: Need


class DeviceState:
    """One device of the pool: its slots, allocations, health and last reading."""

    def __init__(self, device: Device, slots: list[Slot]) -> None:
        self.device = device
        self.slots = slots
        self.free = [slot.index for slot in slots]  # a heap
        #: finds the best number of slots to use; None: always all
        self.tuner = Tuner(device.tuned_from, len(slots)) if device.tuned_from else None
        self.allocations: dict[int, Allocation] = {}
        self.health: Health = "open"
        self.reason = ""
        #: wall instant since which it has been in this health
        self.since = 0.0
        #: no trial has succeeded yet: its device type is only presumed
        self.untried = False
        self.reading: Reading | None = None
        #: monotonic instant of `reading`
        self.read_at = 0.0
        #: ledger of the device's own memory; the processors use the host's, which is `Pool.host`
        self.memory = Memory(LEAST_DEVICE_BYTES)
        self.utilisation = 0.0

    @property
    def width(self) -> int:
        """The number of slots in use at most."""
        return self.tuner.slots if self.tuner else len(self.slots)

    @property
    def has_free(self) -> bool:
        return len(self.allocations) < self.width

    def foreign_bytes(self) -> int | None:
        """Memory used by processes other than our windows; None if the device does not report it by process."""
        processes = None if self.reading is None else self.reading.process_memory_bytes
        return None if processes is None else max(0, sum(processes.values()) - self.memory.seen_bytes)

    def load(self) -> tuple[float, int, float, int]:
        """A sort key: the smaller, the less loaded."""
        return (
            len(self.allocations) / self.width,
            -(self.memory.free_bytes() or 0),
            self.utilisation,
            self.free[0],
        )


class Pool:
    """All slots of all devices."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self.devices: dict[str, DeviceState] = {}
        #: by index
        self.slots: dict[int, Slot] = {}
        #: ledger of the host's memory, which windows on all devices share
        self.host = Memory(LEAST_HOST_BYTES, lasting=True)
        #: monotonic instant of the last reading of the host's memory; None: there is none
        self._host_read_at: float | None = None
        for device in devices:
            self.add(device)

    def add(self, device: Device, at: float = 0.0) -> None:
        """Add `device`, with slots of the lowest free indexes; `at` is a wall instant."""
        indexes = islice((index for index in count() if index not in self.slots), device.capacity)
        slots = [Slot(index, device.id) for index in indexes]
        self.slots |= {slot.index: slot for slot in slots}
        if slots:
            self.devices[device.id] = DeviceState(device, slots)
            self.devices[device.id].since = at

    def allocations(self) -> Iterator[Allocation]:
        """All allocations of all devices."""
        return (allocation for state in self.devices.values() for allocation in state.allocations.values())

    def begin_trial(self, device: Device, at: float) -> bool:
        """Place nothing on `device` until its trial has ended; return whether that changed anything."""
        if device.id not in self.devices:
            self.add(device)
        state = self.devices.get(device.id)
        if state is None or state.health == "trying":
            return False
        # A device that is gone may come back before the last of its windows has left.
        state.health, state.reason, state.since, state.untried = "trying", "", at, True
        return True

    def end_trial(self, device: Device, why: str | None, at: float) -> bool:
        """Open a device that trains, or close one that does not; return whether that changed anything.

        A device that was drained or lost during the trial stays so.
        """
        state = self.devices.get(device.id)
        if state is None:
            return False
        state.untried = why is not None
        state.device = msgspec.structs.replace(state.device, lightgbm_type=device.lightgbm_type)
        if state.health != "trying":
            return False
        return self.set_health(device.id, "open" if why is None else "quarantined", why or "", at)

    def remove(self, device_id: str) -> None:
        """Remove a device with its slots: at once, or after the last of its windows has given its slot back."""
        state = self.devices[device_id]
        state.health = "gone"
        self._remove_if_left(state)

    def _remove_if_left(self, state: DeviceState) -> None:
        if state.health == "gone" and not state.allocations:
            for slot in state.slots:
                del self.slots[slot.index]
            del self.devices[state.device.id]

    @property
    def has_free(self) -> bool:
        return any(state.has_free and state.health == "open" for state in self.devices.values())

    def shares(self, wanted: DeviceChoice) -> bool:
        """Whether a batch that asks for `wanted` may use both the processors and open GPUs."""
        cpu = self.devices.get(CPU)
        return wanted in ("auto", "mixed") and cpu is not None and suits(cpu.device, wanted) and self.gpu_slots > 0

    @property
    def gpu_slots(self) -> int:
        return sum(s.width for s in self._gpus())

    @property
    def gpu_type(self) -> DeviceType | None:
        """The device type of the first open GPU."""
        return next((state.device.lightgbm_type for state in self._gpus()), None)

    def _gpus(self) -> Iterator[DeviceState]:
        return (s for s in self.devices.values() if s.device.kind != "host" and s.health == "open")

    def choose(self, wanted: DeviceChoice, need: Need = NOTHING, *, without: Container[str] = ()) -> Slot | None:
        """The next slot of the least loaded device that suits, has room and is not in `without`, or None.

        Changes nothing.
        """
        best: DeviceState | None = None
        for state in self.devices.values():
            if (
                state.has_free
                and state.health == "open"
                and state.device.id not in without
                and suits(state.device, wanted)
                and state.memory.room_for(need)
                and (best is None or state.load() < best.load())
            ):
                best = state
        return self.slots[best.free[0]] if best else None

    def soonest(self, wanted: DeviceChoice, need: Need, *, without: Container[str]) -> str | None:
        """The suitable open device that will have room once our windows leave it; the one with the fewest, or None."""
        states = (
            state
            for state in self.devices.values()
            if state.health == "open"
            and state.device.id not in without
            and suits(state.device, wanted)
            and state.memory.room_when_empty(need)
        )
        best = min(states, key=lambda state: len(state.allocations), default=None)
        return best.device.id if best else None

    def full(self, wanted: DeviceChoice) -> str | None:
        """The lack of memory for which even the smallest window of a batch that asks for `wanted` waits, or None."""
        if not self.host.room_for(NOTHING):
            return f"the host has {(self.host.free_bytes() or 0) / 2**20:.0f} MiB free"
        states = [s for s in self.devices.values() if s.health == "open" and suits(s.device, wanted)]
        if not states or any(state.memory.room_for(NOTHING) for state in states):
            return None
        return ", ".join(f"{s.device.id} has {(s.memory.free_bytes() or 0) / 2**20:.0f} MiB free" for s in states)

    def hopeless(self, wanted: DeviceChoice) -> str | None:
        """Why no window of a batch that asks for `wanted` can be placed until somebody opens a device, or None."""
        suitable = [s for s in self.devices.values() if suits(s.device, wanted) or (s.untried and wanted != "cpu")]
        if any(state.health not in ("quarantined", "gone") for state in suitable):
            return None
        return ", ".join(f"{state.device.id}: {state.reason}" for state in suitable) or f"there is none for {wanted!r}"

    def allocate(self, slot: Slot, key: WindowKey, need: Need = NOTHING, host: Need = NOTHING) -> None:
        """Mark `slot`, the answer of `choose`, as held by `key`; set memory aside on its device and on the host."""
        state = self.devices[slot.device_id]
        assert state.free[0] == slot.index, f"slot {slot.index} is not the next free one of {slot.device_id}"
        heapq.heappop(state.free)
        state.allocations[slot.index] = Allocation(key, slot, need, host)
        state.memory.promise(slot.index, need)
        self.host.promise(slot.index, host)

    def release(self, slot: Slot) -> Allocation:
        """Mark `slot` as free; return its allocation."""
        state = self.devices[slot.device_id]
        state.memory.release(slot.index)
        self.host.release(slot.index)
        heapq.heappush(state.free, slot.index)
        allocation = state.allocations.pop(slot.index)
        self._remove_if_left(state)
        return allocation

    def forget_readings(self, before: float) -> None:
        """Drop readings older than the monotonic instant `before`, so that they veto nothing any more."""
        for state in self.devices.values():
            if state.reading is not None and state.read_at < before:
                state.reading = None
                state.memory.forget_reading()
        if self._host_read_at is not None and self._host_read_at < before:
            self._host_read_at = None
            self.host.forget_reading()

    def observe(self, reading: Reading, pids: Mapping[int, int], at: float = 0.0) -> None:
        """Take in a reading that arrived at the monotonic instant `at`.

        `pids` maps the processes of our windows on that device to their slot indexes.
        """
        state = self.devices.get(reading.device_id)
        if state is None:
            return
        state.reading, state.read_at = reading, at
        if reading.utilisation is not None:
            state.utilisation += SMOOTHING * (reading.utilisation - state.utilisation)
        if state.device.kind != "host":
            used = _by_slot(reading.process_memory_bytes, pids)
            state.memory.observe(reading.memory_total_bytes, reading.memory_free_bytes, used)

    def observe_host(self, reading: HostReading, pids: Mapping[int, int], at: float = 0.0) -> None:
        """Take in a reading of the host's memory that arrived at the monotonic instant `at`; `pids` as in `observe`."""
        self._host_read_at = at
        self.host.observe(reading.total_bytes, reading.free_bytes, _by_slot(reading.process_bytes, pids))

    def peak_bytes(self, slot: Slot) -> int | None:
        """The most device memory that readings showed for the window in `slot`; None if they showed none."""
        return self.devices[slot.device_id].memory.peak_bytes(slot.index)

    def device_types(self, wanted: DeviceChoice) -> set[DeviceType]:
        """The device types on which a batch that asks for `wanted` may be trained here."""
        return {type_on(state.device, wanted) for state in self.devices.values() if suits(state.device, wanted)}

    def set_health(self, device_id: str, health: Health, reason: str, at: float = 0.0) -> bool:
        """Open or close a device; return whether that changed anything. Unknown and vanished devices do not change."""
        state = self.devices.get(device_id)
        if state is None or state.health in (health, "gone"):
            return False
        state.health, state.reason, state.since = health, reason, at
        return True

    def validate(self) -> None:
        """Raise AssertionError unless allocated ⊎ free = all slots, on every device."""
        for state in self.devices.values():
            free, held = set(state.free), set(state.allocations)
            assert not free & held, f"slots both free and held on {state.device.id}: {free & held}"
            assert free | held == {s.index for s in state.slots}, f"slots vanished on {state.device.id}"
            assert len(state.free) == len(free), f"a slot is free twice on {state.device.id}"
            assert all(a.slot.index == i for i, a in state.allocations.items())
            assert state.memory.promised == {i: a.device for i, a in state.allocations.items()}
            state.memory.validate()
        assert self.host.promised == {i: a.host for s in self.devices.values() for i, a in s.allocations.items()}
        self.host.validate()


def _by_slot(by_pid: Mapping[int, int] | None, pids: Mapping[int, int]) -> dict[int, int] | None:
    """Memory of our windows by slot index; None if memory is not known by process."""
    return None if by_pid is None else {index: by_pid.get(pid, 0) for pid, index in pids.items()}


def suits(device: Device, wanted: DeviceChoice) -> bool:
    """Whether a batch that asked for `wanted` may run on `device`."""
    match wanted:
        case "auto":
            return device.auto
        case "mixed":
            return True
        case "cpu":
            return device.kind == "host"
        case "cuda":
            return device.lightgbm_type == "cuda"
        case "gpu":
            # OpenCL comes with every NVIDIA driver; whether LightGBM was built with it shows when a window tries.
            return device.kind != "host"
        case _ as never:
            assert_never(never)


def type_on(device: Device, wanted: DeviceChoice) -> DeviceType:
    """The device type passed to LightGBM for a window on `device`, of a batch that asked for `wanted`."""
    return device.lightgbm_type if wanted == "auto" or wanted == "mixed" else wanted


def types_for(wanted: DeviceChoice) -> tuple[DeviceType, ...]:
    """All device types with which a batch that asked for `wanted` may be trained, on any machine."""
    return ("cpu", "gpu", "cuda") if wanted == "auto" or wanted == "mixed" else (wanted,)
