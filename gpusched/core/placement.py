"""The pool: who holds which slot, and which slot comes next.

The ledger here decides; readings of the devices may veto a placement, and never say who holds a slot. The choice is
deterministic: the least loaded device, which is the one with the fewest allocated slots relative to its capacity, then
the most free memory net of reservations, then the lowest smoothed utilisation, then the lowest slot index.
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

#: `trying`: whether it trains is being found out; `suspect`: a window on it does not die; `gone`: it has vanished, and
#: leaves when its windows have
Health = Literal["open", "trying", "draining", "suspect", "quarantined", "gone"]

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
        #: wall instant at which it came to be in that health
        self.since = 0.0
        #: whether windows have been trained on it is not known: its device type is only presumed
        self.untried = False
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
        #: by index
        self.slots: dict[int, Slot] = {}
        #: the host's: windows take of it wherever they run
        self.host = Memory(LEAST_HOST_BYTES, lasting=True)
        #: monotonic seconds, None: there is no reading
        self._host_read_at: float | None = None
        for device in devices:
            self.add(device)

    def add(self, device: Device, at: float = 0.0) -> None:
        """Give `device` its slots, with the lowest indexes that no other device's have; `at` is a wall instant."""
        indexes = islice((index for index in count() if index not in self.slots), device.capacity)
        slots = [Slot(index, device.id) for index in indexes]
        self.slots |= {slot.index: slot for slot in slots}
        if slots:
            self.devices[device.id] = DeviceState(device, slots)
            self.devices[device.id].since = at

    def allocations(self) -> Iterator[Allocation]:
        """All that are held now."""
        return (allocation for state in self.devices.values() for allocation in state.allocations.values())

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
        suitable = [s for s in self.devices.values() if suits(s.device, wanted) or (s.untried and wanted != "cpu")]
        if any(state.health not in ("quarantined", "gone") for state in suitable):
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
        allocation = state.allocations.pop(slot.index)
        self._remove_if_left(state)
        return allocation

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
        return {type_on(state.device, wanted) for state in self.devices.values() if suits(state.device, wanted)}

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
        case "mixed":
            return True
        case "cpu":
            return device.id == CPU
        case "cuda":
            return device.device_type == "cuda"
        case "gpu":
            # OpenCL comes with every NVIDIA driver; whether this LightGBM has it shows when a window tries.
            return device.id != CPU
        case _ as never:
            assert_never(never)


def type_on(device: Device, wanted: DeviceChoice) -> DeviceType:
    """The device type that LightGBM is told for a window on `device`, of a batch that asked for `wanted`."""
    return device.device_type if wanted == "auto" or wanted == "mixed" else wanted


def types_for(wanted: DeviceChoice) -> tuple[DeviceType, ...]:
    """The device types that windows of a batch which asked for `wanted` may be trained with."""
    return ("cpu", "gpu", "cuda") if wanted == "auto" or wanted == "mixed" else (wanted,)
