"""The pool: who holds which slot, and which slot comes next.

The ledger here decides; readings of the devices may veto a placement, and never say who holds a slot. The choice is
deterministic: the least loaded device, which is the one with the fewest allocated slots relative to its capacity, then
the most free memory net of reservations, then the lowest smoothed utilisation, then the lowest slot index.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from gpusched.core.memory import LEAST_DEVICE_BYTES, LEAST_HOST_BYTES, NOTHING, Memory, Need
from gpusched.core.model import CPU, Device, DeviceChoice, DeviceType, HostReading, Reading, Slot, WindowKey
from gpusched.core.tuning import Tuner

Health = Literal["open", "draining", "quarantined"]

#: weight of the newest sample in the smoothed utilisation
SMOOTHING = 0.3


class Allocation(msgspec.Struct, frozen=True):
    """The slot that an attempt holds, and what was set aside for it of the device's memory and of the host's."""

    key: WindowKey
    slot: Slot
    device: Need
    host: Need


class DeviceState:
    """One device of the pool: its slots, what is allocated on it, and what was last read of it."""

    def __init__(self, device: Device, slots: list[Slot]) -> None:
        self.device = device
        self.slots = slots
        self.free = [slot.index for slot in slots]  # a heap
        #: finds how many slots are used, where that is tuned
        self.tuner = Tuner(device.tuned_from, len(slots)) if device.tuned_from else None
        self.allocations: dict[int, Allocation] = {}
        self.health: Health = "open"
        self.reason = ""
        self.reading: Reading | None = None
        #: monotonic seconds
        self.read_at = 0.0
        #: its own; that of the processors is the host's, and the pool's
        self.memory = Memory(LEAST_DEVICE_BYTES)
        self.utilisation = 0.0

    @property
    def width(self) -> int:
        """Slots that are used at a time."""
        return self.tuner.slots if self.tuner else len(self.slots)

    @property
    def has_free(self) -> bool:
        return len(self.allocations) < self.width

    def foreign_bytes(self) -> int | None:
        """Memory that other processes than our windows' use, None where the device does not tell whose it is."""
        processes = None if self.reading is None else self.reading.process_memory_bytes
        return None if processes is None else max(0, sum(processes.values()) - self.memory.seen_bytes)

    def load(self) -> tuple[float, int, float, int]:
        """Smaller is less loaded."""
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
        self.slots: list[Slot] = []
        #: the host's: windows take of it wherever they run
        self.host = Memory(LEAST_HOST_BYTES, lasting=True)
        #: monotonic seconds, None: there is no reading
        self._host_read_at: float | None = None
        for device in devices:
            self.add(device)

    def add(self, device: Device) -> None:
        """Give `device` its slots; their indexes go on where the last device's ended."""
        first = len(self.slots)
        slots = [Slot(index, device.id) for index in range(first, first + device.capacity)]
        self.slots += slots
        if slots:
            self.devices[device.id] = DeviceState(device, slots)

    def allocations(self) -> Iterator[Allocation]:
        """All that are held now."""
        return (allocation for state in self.devices.values() for allocation in state.allocations.values())

    @property
    def has_free(self) -> bool:
        return any(state.has_free and state.health == "open" for state in self.devices.values())

    @property
    def is_mixed(self) -> bool:
        """Whether the processors are offered beside open GPUs."""
        cpu = self.devices.get(CPU)
        return cpu is not None and cpu.device.auto and self.gpu_slots > 0

    @property
    def gpu_slots(self) -> int:
        return sum(s.width for s in self._gpus())

    @property
    def gpu_type(self) -> DeviceType | None:
        """The device type of the first open GPU."""
        return next((state.device.device_type for state in self._gpus()), None)

    def _gpus(self) -> Iterator[DeviceState]:
        return (s for s in self.devices.values() if s.device.id != CPU and s.health == "open")

    def choose(self, wanted: DeviceChoice, need: Need = NOTHING, *, without: Container[str] = ()) -> Slot | None:
        """The slot on the least loaded device that suits and is not in `without`, or None. Changes nothing."""
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
        """The open device that suits and only has to be left by our windows, the one with the fewest, or None."""
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
        """What keeps a batch that asks for `wanted` waiting if nowhere is room for any window, though none is there."""
        if not self.host.room_for(NOTHING):
            return f"the host has {(self.host.free_bytes() or 0) / 2**20:.0f} MiB free"
        states = [s for s in self.devices.values() if s.health == "open" and suits(s.device, wanted)]
        if not states or any(state.memory.room_for(NOTHING) for state in states):
            return None
        return ", ".join(f"{s.device.id} has {(s.memory.free_bytes() or 0) / 2**20:.0f} MiB free" for s in states)

    def hopeless(self, wanted: DeviceChoice) -> str | None:
        """Why no batch that asks for `wanted` will ever be placed unless somebody opens a device, or None."""
        suitable = [state for state in self.devices.values() if suits(state.device, wanted)]
        if any(state.health != "quarantined" for state in suitable):
            return None
        return ", ".join(f"{state.device.id}: {state.reason}" for state in suitable) or f"there is none for {wanted!r}"

    def allocate(self, slot: Slot, key: WindowKey, need: Need = NOTHING, host: Need = NOTHING) -> None:
        """Mark `slot`, the one that `choose` gave, as held by `key`; set aside what it needs there and of the host."""
        state = self.devices[slot.device_id]
        assert state.free[0] == slot.index, f"slot {slot.index} is not the next free one of {slot.device_id}"
        heapq.heappop(state.free)
        state.allocations[slot.index] = Allocation(key, slot, need, host)
        state.memory.promise(slot.index, need)
        self.host.promise(slot.index, host)

    def release(self, slot: Slot) -> Allocation:
        """Mark `slot` as free; what was allocated there."""
        state = self.devices[slot.device_id]
        state.memory.release(slot.index)
        self.host.release(slot.index)
        heapq.heappush(state.free, slot.index)
        return state.allocations.pop(slot.index)

    def forget_readings(self, before: float) -> None:
        """Drop what was read before that monotonic instant: it vetoes nothing any more."""
        for state in self.devices.values():
            if state.reading is not None and state.read_at < before:
                state.reading = None
                state.memory.forget_reading()
        if self._host_read_at is not None and self._host_read_at < before:
            self._host_read_at = None
            self.host.forget_reading()

    def observe(self, reading: Reading, pids: Mapping[int, int], at: float = 0.0) -> None:
        """Take in a reading, got at the monotonic instant `at`.

        `pids` maps the processes of our windows on that device to their slot indexes.
        """
        state = self.devices.get(reading.device_id)
        if state is None:
            return
        state.reading, state.read_at = reading, at
        if reading.utilisation is not None:
            state.utilisation += SMOOTHING * (reading.utilisation - state.utilisation)
        if state.device.id != CPU:
            used = _by_slot(reading.process_memory_bytes, pids)
            state.memory.observe(reading.memory_total_bytes, reading.memory_free_bytes, used)

    def observe_host(self, reading: HostReading, pids: Mapping[int, int], at: float = 0.0) -> None:
        """Take in a reading of the host's memory, got at the monotonic instant `at`. `pids` as in `observe`."""
        self._host_read_at = at
        self.host.observe(reading.total_bytes, reading.free_bytes, _by_slot(reading.process_bytes, pids))

    def peak_bytes(self, slot: Slot) -> int | None:
        """The most of its device's memory that the window in `slot` was seen to use, None if it was not seen."""
        return self.devices[slot.device_id].memory.peak_bytes(slot.index)

    def device_types(self, wanted: DeviceChoice) -> set[DeviceType]:
        """What a batch that asks for `wanted` may be trained on."""
        suitable = (state.device for state in self.devices.values() if suits(state.device, wanted))
        return {device.device_type if wanted == "auto" else wanted for device in suitable}

    def set_health(self, device_id: str, health: Health, reason: str) -> bool:
        """Open or close a device; whether that changed anything. An unknown device changes nothing."""
        state = self.devices.get(device_id)
        if state is None or state.health == health:
            return False
        state.health, state.reason = health, reason
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
    """Memory of our windows by their slots; None where it is not known of any process."""
    return None if by_pid is None else {index: by_pid.get(pid, 0) for pid, index in pids.items()}


def suits(device: Device, wanted: DeviceChoice) -> bool:
    """Whether a batch that asked for `wanted` may run on `device`."""
    match wanted:
        case "auto":
            return device.auto
        case "cpu":
            return device.id == CPU
        case "cuda":
            return device.device_type == "cuda"
        case "gpu":
            # OpenCL comes with every NVIDIA driver; whether this LightGBM has it shows when a window tries.
            return device.id != CPU
