"""The pool: who holds which slot, and which slot comes next.

The ledger here decides; readings of the devices may veto a placement, and never say who holds a slot. The choice is
deterministic: the least loaded device, which is the one with the fewest allocated slots relative to its capacity, then
the most free memory net of reservations, then the lowest smoothed utilisation, then the lowest slot index.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import count, islice
from typing import Literal

import msgspec

from gpusched.core.model import CPU, Device, DeviceChoice, DeviceType, Reading, Slot, WindowKey
from gpusched.core.tuning import Tuner

#: `trying`: whether it trains is being found out; `gone`: it has vanished, and leaves when its windows have
Health = Literal["open", "trying", "draining", "quarantined", "gone"]

#: weight of the newest sample in the smoothed utilisation
SMOOTHING = 0.3
#: a reservation larger than this share of a device is cut to it, or the window could never be placed
LARGEST_SHARE = 0.9
#: no process can even open a GPU with less: CUDA's context alone takes some hundred MiB
LEAST_BYTES = 256 << 20


class Allocation(msgspec.Struct, frozen=True):
    """The slot that an attempt holds, and the memory set aside for it until it is seen to use it."""

    key: WindowKey
    slot: Slot
    reserved_bytes: int
    #: no other window may share the device
    alone: bool


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
        #: wall instant at which it came to be in that health
        self.since = 0.0
        #: whether windows have been trained on it is not known: its device type is only presumed
        self.untried = False
        self.reading: Reading | None = None
        #: monotonic seconds
        self.read_at = 0.0
        #: memory that was free without our windows when that was last known, None: it never was
        self.empty_bytes: int | None = None
        self.utilisation = 0.0
        self.seen_bytes: dict[int, int] = {}
        self.peak_bytes: dict[int, int] = {}

    @property
    def width(self) -> int:
        """Slots that are used at a time."""
        return self.tuner.slots if self.tuner else len(self.slots)

    @property
    def has_free(self) -> bool:
        return len(self.allocations) < self.width

    @property
    def reserved_bytes(self) -> int:
        """Memory promised to windows that have not been seen to use it yet."""
        return sum(max(0, a.reserved_bytes - self.seen_bytes.get(i, 0)) for i, a in self.allocations.items())

    def free_bytes(self) -> int | None:
        """Free memory net of reservations, or None where the device does not tell.

        The host's memory is the kernel's to give: windows have limits there, not reservations.
        """
        if self.device.id == CPU or self.reading is None or self.reading.memory_free_bytes is None:
            return None
        return self.reading.memory_free_bytes - self.reserved_bytes

    def foreign_bytes(self) -> int | None:
        """Memory that other processes than our windows' use, None where the device does not tell whose it is."""
        processes = None if self.reading is None else self.reading.process_memory_bytes
        return None if processes is None else max(0, sum(processes.values()) - sum(self.seen_bytes.values()))

    def room_for(self, memory_bytes: int, alone: bool) -> bool:
        """Whether a window that needs `memory_bytes` fits now."""
        if alone and self.allocations:
            return False
        if any(a.alone for a in self.allocations.values()):
            return False
        return self._is_enough(self.free_bytes(), memory_bytes)

    def room_when_empty(self, memory_bytes: int) -> bool:
        """Whether a window that needs `memory_bytes` would fit if ours were gone."""
        return self._is_enough(self.empty_bytes, memory_bytes)

    def _is_enough(self, free: int | None, memory_bytes: int) -> bool:
        if free is None:
            return True
        total = self.reading.memory_total_bytes if self.reading else None
        needed = max(memory_bytes, LEAST_BYTES)
        return free >= (needed if total is None else min(needed, int(total * LARGEST_SHARE)))

    def load(self) -> tuple[float, int, float, int]:
        """Smaller is less loaded."""
        return (
            len(self.allocations) / self.width,
            -(self.free_bytes() or 0),
            self.utilisation,
            self.free[0],
        )


class Pool:
    """All slots of all devices."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self.devices: dict[str, DeviceState] = {}
        #: by index
        self.slots: dict[int, Slot] = {}
        for device in devices:
            self.add(device)

    def add(self, device: Device) -> None:
        """Give `device` its slots, with the lowest indexes that no other device's have."""
        indexes = islice((index for index in count() if index not in self.slots), device.capacity)
        slots = [Slot(index, device.id) for index in indexes]
        self.slots |= {slot.index: slot for slot in slots}
        if slots:
            self.devices[device.id] = DeviceState(device, slots)

    def begin_trial(self, device: Device, at: float) -> bool:
        """Place nothing on `device` until it is known whether it trains; whether that changed anything."""
        if device.id not in self.devices:
            self.add(device)
        state = self.devices.get(device.id)
        if state is None or state.health == "trying":
            return False
        # One that is gone may be back before the last of its windows has left.
        state.health, state.reason, state.since, state.untried = "trying", "", at, True
        return True

    def end_trial(self, device: Device, why: str | None, at: float) -> bool:
        """Open a device that trains, close one that does not; whether that changed anything.

        One that was drained meanwhile stays so, and one that was lost.
        """
        state = self.devices.get(device.id)
        if state is None:
            return False
        state.untried = why is not None
        state.device = msgspec.structs.replace(state.device, device_type=device.device_type)
        if state.health != "trying":
            return False
        return self.set_health(device.id, "open" if why is None else "quarantined", why or "", at)

    def remove(self, device_id: str) -> None:
        """Take a device out, with its slots: at once, or when the last of its windows has given its slot back."""
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
        """Whether a batch that asks for `wanted` may use the processors beside open GPUs."""
        cpu = self.devices.get(CPU)
        return wanted in ("auto", "mixed") and cpu is not None and suits(cpu.device, wanted) and self.gpu_slots > 0

    @property
    def gpu_slots(self) -> int:
        return sum(s.width for s in self._gpus())

    @property
    def gpu_type(self) -> DeviceType | None:
        """The device type of the first open GPU."""
        return next((state.device.device_type for state in self._gpus()), None)

    def _gpus(self) -> Iterator[DeviceState]:
        return (s for s in self.devices.values() if s.device.id != CPU and s.health == "open")

    def choose(
        self, wanted: DeviceChoice, *, memory_bytes: int = 0, alone: bool = False, without: Container[str] = ()
    ) -> Slot | None:
        """The slot on the least loaded device that suits and is not in `without`, or None. Changes nothing."""
        best: DeviceState | None = None
        for state in self.devices.values():
            if (
                state.has_free
                and state.health == "open"
                and state.device.id not in without
                and suits(state.device, wanted)
                and state.room_for(memory_bytes, alone)
                and (best is None or state.load() < best.load())
            ):
                best = state
        return self.slots[best.free[0]] if best else None

    def soonest(self, wanted: DeviceChoice, *, memory_bytes: int, without: Container[str]) -> str | None:
        """The open device that suits and only has to be left by our windows, the one with the fewest, or None."""
        states = (
            state
            for state in self.devices.values()
            if state.health == "open"
            and state.device.id not in without
            and suits(state.device, wanted)
            and state.room_when_empty(memory_bytes)
        )
        best = min(states, key=lambda state: len(state.allocations), default=None)
        return best.device.id if best else None

    def full(self, wanted: DeviceChoice) -> str | None:
        """What keeps a batch that asks for `wanted` waiting if no open device that suits has room for any window."""
        states = [s for s in self.devices.values() if s.health == "open" and suits(s.device, wanted)]
        if not states or any(state.room_for(0, alone=False) for state in states):
            return None
        return ", ".join(f"{state.device.id} has {(state.free_bytes() or 0) / 2**20:.0f} MiB free" for state in states)

    def hopeless(self, wanted: DeviceChoice) -> str | None:
        """Why no batch that asks for `wanted` will ever be placed unless somebody opens a device, or None."""
        suitable = [s for s in self.devices.values() if suits(s.device, wanted) or (s.untried and wanted != "cpu")]
        if any(state.health not in ("quarantined", "gone") for state in suitable):
            return None
        return ", ".join(f"{state.device.id}: {state.reason}" for state in suitable) or f"there is none for {wanted!r}"

    def allocate(self, slot: Slot, key: WindowKey, *, memory_bytes: int = 0, alone: bool = False) -> None:
        """Mark `slot`, the one that `choose` gave, as held by `key`."""
        state = self.devices[slot.device_id]
        assert state.free[0] == slot.index, f"slot {slot.index} is not the next free one of {slot.device_id}"
        heapq.heappop(state.free)
        state.allocations[slot.index] = Allocation(key, slot, memory_bytes, alone)

    def release(self, slot: Slot) -> Allocation:
        """Mark `slot` as free; what was allocated there."""
        state = self.devices[slot.device_id]
        state.seen_bytes.pop(slot.index, None)
        state.peak_bytes.pop(slot.index, None)
        heapq.heappush(state.free, slot.index)
        allocation = state.allocations.pop(slot.index)
        self._remove_if_left(state)
        return allocation

    def forget_readings(self, before: float) -> None:
        """Drop what was read before that monotonic instant: it vetoes nothing any more."""
        for state in self.devices.values():
            if state.reading is not None and state.read_at < before:
                state.reading = state.empty_bytes = None
                state.seen_bytes.clear()

    def observe(self, reading: Reading, pids: dict[int, int], at: float = 0.0) -> None:
        """Take in a reading, got at the monotonic instant `at`.

        `pids` maps the processes of our windows on that device to their slot indexes.
        """
        state = self.devices.get(reading.device_id)
        if state is None:
            return
        state.reading, state.read_at = reading, at
        if reading.utilisation is not None:
            state.utilisation += SMOOTHING * (reading.utilisation - state.utilisation)
        if reading.process_memory_bytes is not None or not state.allocations:
            state.empty_bytes = reading.memory_free_bytes
        if reading.process_memory_bytes is not None:
            # One that is not listed uses nothing now, and may still want what it was promised.
            for pid, index in pids.items():
                seen = state.seen_bytes[index] = reading.process_memory_bytes.get(pid, 0)
                state.peak_bytes[index] = max(seen, state.peak_bytes.get(index, 0))
                if state.empty_bytes is not None:
                    state.empty_bytes += seen

    def peak_bytes(self, slot: Slot) -> int | None:
        """The most memory that the window in `slot` was seen to use, None if it was not seen to use any."""
        return self.devices[slot.device_id].peak_bytes.get(slot.index) or None

    def expected_bytes(self, wanted: DeviceChoice, expected: Callable[[DeviceType], int | None]) -> int:
        """What a window may take on a GPU that suits, as `expected` knows it by device type; 0 if nothing is known."""
        gpus = (s.device for s in self.devices.values() if s.device.id != CPU and suits(s.device, wanted))
        types = {type_on(gpu, wanted) for gpu in gpus}
        return max((expected(device_type) or 0 for device_type in types), default=0)

    def set_health(self, device_id: str, health: Health, reason: str, at: float = 0.0) -> bool:
        """Open or close a device; whether that changed anything. One that is unknown or gone changes no more."""
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


def suits(device: Device, wanted: DeviceChoice) -> bool:
    """Whether a batch that asked for `wanted` may run on `device`."""
    match wanted:
        case "auto":
            return device.auto
        case "mixed":
            return True
        case "cpu":
            return device.id == CPU
        case "cuda":
            return device.device_type == "cuda"
        case "gpu":
            # OpenCL comes with every NVIDIA driver; whether this LightGBM has it shows when a window tries.
            return device.id != CPU


def type_on(device: Device, wanted: DeviceChoice) -> DeviceType:
    """The device type that LightGBM is told for a window on `device`, of a batch that asked for `wanted`."""
    return device.device_type if wanted == "auto" or wanted == "mixed" else wanted


def types_for(wanted: DeviceChoice) -> tuple[DeviceType, ...]:
    """The device types that windows of a batch which asked for `wanted` may be trained with."""
    return ("cpu", "gpu", "cuda") if wanted == "auto" or wanted == "mixed" else (wanted,)
