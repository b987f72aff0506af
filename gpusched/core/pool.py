"""The pool: all devices of all hosts, with the ledger of their slots.

The ledger decides; readings of the devices may veto a placement, but never say who holds a slot. The choice is
deterministic: `gpusched.core.placement` has its rules and its score, `gpusched.core.offers` the order that follows.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Container, Iterable
from itertools import pairwise

import msgspec

from gpusched.core.ends import Ends
from gpusched.core.ledger import AHEAD_SLOTS, Allocation, DeviceState, HostState, by_slot
from gpusched.core.memory import NOTHING, Need
from gpusched.core.model import (
    Device,
    DeviceChoice,
    Health,
    HostReading,
    Reading,
    Slot,
    WindowKey,
)
from gpusched.core.offers import Offers
from gpusched.core.placement import Demand, suits


class Pool:
    """All slots of all devices."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self.devices: dict[str, DeviceState] = {}
        #: this machine, "", is always among them
        self.hosts: dict[str, HostState] = {"": HostState("")}
        #: by index
        self.slots: dict[int, Slot] = {}
        #: numbers of the slots, and of the places: the index of a place is the complement of its number
        self._indexes, self._places = Numbers(), Numbers()
        #: the open devices with a free slot
        self.offers = Offers()
        #: expected ends of the windows on GPUs
        self._ends = Ends()
        #: devices and hosts that have a reading, with its monotonic instant: the oldest first
        self._read: OrderedDict[DeviceState | HostState, float] = OrderedDict()
        for device in devices:
            self.add(device)

    # -- devices and hosts ---------------------------------------------------------------------------------------------

    def add(self, device: Device, at: float = 0.0) -> None:
        """Add `device`, with slots of the lowest free indexes; `at` is a wall instant.

        One on a node has places as well, for windows that are ahead.
        """
        id_, node, count = device.id, device.host, device.capacity
        slots = [Slot(self._indexes.take(), id_, node) for _ in range(count)]
        places = [Slot(~self._places.take(), id_, node) for _ in range(count * AHEAD_SLOTS if node else 0)]
        self.slots |= {slot.index: slot for slot in (*slots, *places)}
        if slots:
            host = self.hosts.setdefault(device.host, HostState(device.host))
            state = DeviceState(device, slots, host, at, places)
            if host.silent:
                state.health, state.reason = "silent", host.silent
            self.devices[device.id] = host.devices[device.id] = state
            self.offers.settle(state)

    def remove(self, device_id: str) -> None:
        """Remove a device with its slots: at once, or after the last of its windows has given its slot back."""
        state = self.devices[device_id]
        state.health = "gone"
        self.offers.settle(state)
        self._remove_if_left(state)

    def _remove_if_left(self, state: DeviceState) -> None:
        if state.health == "gone" and not state.allocations:
            for slot in (*state.slots, *state.places):
                del self.slots[slot.index]
            for slot in state.slots:
                self._indexes.give_back(slot.index)
            for place in state.places:
                self._places.give_back(~place.index)
            self.offers.leave(state)
            self._read.pop(state, None)
            del self.devices[state.device.id], state.host.devices[state.device.id]
            if state.host.name and not state.host.devices:
                self._read.pop(state.host, None)
                del self.hosts[state.host.name]

    def hear(self, name: str, silent: str, at: float) -> list[str]:
        """Place nothing on a host for the reason `silent`, or windows again if that is empty.

        Returns the devices whose health that changed. An unknown host has none.
        """
        if (host := self.hosts.get(name)) is None:
            return []
        host.silent = silent
        before: Health = "open" if silent else "silent"
        affected = [id_ for id_, state in host.devices.items() if state.health == before]
        return [id_ for id_ in affected if self.set_health(id_, "open", "", at)]

    def begin_trial(self, device: Device, at: float) -> bool:
        """Place nothing on `device` until its trial has ended; return whether that changed anything."""
        if device.id not in self.devices:
            self.add(device)
        state = self.devices.get(device.id)
        if state is None or state.health == "trying":
            return False
        # A device that is gone may come back before the last of its windows has left.
        state.health, state.reason, state.since, state.untried = "trying", "", at, True
        self.offers.settle(state)
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
        self.offers.settle(state)
        if state.health != "trying":
            return False
        return self.set_health(device.id, "open" if why is None else "quarantined", why or "", at)

    def set_health(self, device_id: str, health: Health, reason: str, at: float = 0.0) -> bool:
        """Open or close a device; return whether that changed anything. Unknown and vanished devices do not change.

        On a host that does not answer, a device that would open is silent instead.
        """
        state = self.devices.get(device_id)
        if state is None:
            return False
        if health == "open" and state.host.silent:
            health, reason = "silent", state.host.silent
        if state.health in (health, "gone"):
            return False
        state.health, state.reason, state.since = health, reason, at
        self.offers.settle(state)
        return True

    def hopeless(self, wanted: DeviceChoice) -> str | None:
        """Why no window of a batch that asks for `wanted` can be placed until somebody opens a device, or None."""
        suitable = [s for s in self.devices.values() if suits(s.device, wanted) or (s.untried and wanted != "cpu")]
        if any(state.health not in ("quarantined", "gone") for state in suitable):
            return None
        return ", ".join(f"{state.device.id}: {state.reason}" for state in suitable) or f"there is none for {wanted!r}"

    def choose(self, demand: Demand, *, without: Container[str] = ()) -> Slot | None:
        """The next slot of the best device that is not in `without`, or None. Changes nothing."""
        best = self.offers.best(demand, without=without)
        return None if best is None else self.slots[best.next]

    # -- slots ---------------------------------------------------------------------------------------------------------

    def allocate(
        self, slot: Slot, key: WindowKey, device: Need = NOTHING, host: Need = NOTHING, *, ends_at: float = 0.0
    ) -> None:
        """Mark `slot`, the answer of `choose`, as held by `key`; set memory aside on its device and on the host.

        `ends_at` is the wall instant at which the attempt is expected to end.
        """
        state = self.devices[slot.device_id]
        assert state.next == slot.index, f"slot {slot.index} is not the next free one of {slot.device_id}"
        heapq.heappop(_heap_of(slot, state))
        end = 0 if state.device.kind == "host" else self._ends.add(ends_at)
        state.allocations[slot.index] = Allocation(key, slot, device, host, end)
        state.memory.promise(slot.index, device)
        state.host.memory.promise(slot.index, host)
        self.offers.settle(state)

    def seat(self, place: Slot) -> Slot | None:
        """Move the window in a place to a free slot of its device, and return that; None: there is none."""
        state = self.devices[place.device_id]
        if not state.free:
            return None
        slot = self.slots[heapq.heappop(state.free)]
        heapq.heappush(state.free_places, place.index)
        allocation = state.allocations.pop(place.index)
        state.allocations[slot.index] = msgspec.structs.replace(allocation, slot=slot)
        for memory in (state.memory, state.host.memory):
            memory.move(place.index, slot.index)
        self.offers.settle(state)
        return slot

    def expect(self, device_id: str, seconds: float) -> None:
        """Place as many windows ahead on a device as suits windows that take `seconds`."""
        state = self.devices.get(device_id)
        if state is not None and state.expect(seconds):
            self.offers.settle(state)

    def started(self, slot: Slot, pid: int) -> None:
        """Note the process of the window that holds `slot`."""
        state = self.devices[slot.device_id]
        state.pids[slot.index] = pid
        state.host.pids[pid] = slot

    def release(self, slot: Slot) -> Allocation:
        """Mark `slot` as free; return its allocation."""
        state = self.devices[slot.device_id]
        state.memory.release(slot.index)
        state.host.memory.release(slot.index)
        heapq.heappush(_heap_of(slot, state), slot.index)
        allocation = state.allocations.pop(slot.index)
        pid = state.pids.pop(slot.index, None)
        # The kernel may have given the number to the next window already.
        if pid is not None and state.host.pids.get(pid) == slot:
            del state.host.pids[pid]
        if allocation.end:
            self._ends.remove(allocation.end)
        self.offers.settle(state)
        self._remove_if_left(state)
        return allocation

    @property
    def first_end(self) -> float | None:
        """The wall instant at which the first window on a GPU is expected to end; None: there is none."""
        return self._ends.first

    # -- readings ------------------------------------------------------------------------------------------------------

    def observe(self, reading: Reading, at: float = 0.0) -> None:
        """Take in a reading that arrived at the monotonic instant `at`."""
        state = self.devices.get(reading.device_id)
        if state is not None:
            state.observe(reading)
            self._note_reading(state, at)
            self.offers.settle(state)

    def observe_host(self, reading: HostReading, at: float = 0.0) -> None:
        """Take in a reading of a host's memory that arrived at the monotonic instant `at`."""
        host = self.hosts.get(reading.host)
        if host is not None:
            used = by_slot(reading.process_bytes, {slot.index: pid for pid, slot in host.pids.items()})
            host.memory.observe(reading.total_bytes, reading.free_bytes, used)
            self._note_reading(host, at)

    def _note_reading(self, about: DeviceState | HostState, at: float) -> None:
        self._read[about] = at
        self._read.move_to_end(about)

    def forget_readings(self, before: float) -> None:
        """Drop readings older than the monotonic instant `before`, so that they veto nothing any more."""
        while self._read and next(iter(self._read.values())) < before:
            about, _ = self._read.popitem(last=False)
            about.forget_reading()
            if isinstance(about, DeviceState):
                self.offers.settle(about)

    def peak_bytes(self, slot: Slot) -> int | None:
        """The most device memory that readings showed for the window in `slot`; None if they showed none."""
        return self.devices[slot.device_id].memory.peak_bytes(slot.index)

    def validate(self) -> None:
        """Raise AssertionError unless allocated ⊎ free = all slots, on every device, and the order is right."""
        for state in self.devices.values():
            free, held = {*state.free, *state.free_places}, set(state.allocations)
            assert not free & held, f"slots both free and held on {state.device.id}: {free & held}"
            assert free | held == {s.index for s in (*state.slots, *state.places)}, (
                f"slots vanished on {state.device.id}"
            )
            assert len(state.free) + len(state.free_places) == len(free), f"a slot is free twice on {state.device.id}"
            assert all(index >= 0 for index in state.free)
            assert all(a.slot.index == i for i, a in state.allocations.items())
            assert state.memory.promised == {i: a.device for i, a in state.allocations.items()}
            assert state.pids.keys() <= held
            assert state.width == (state.tuner.slots if state.tuner else state.device.capacity)
            state.memory.validate()
        assert set(self.slots) == {*self._indexes.taken(), *(~number for number in self._places.taken())}
        for host in self.hosts.values():
            held_here = {i: a.host for s in host.devices.values() for i, a in s.allocations.items()}
            assert host.memory.promised == held_here
            assert {s.index: pid for pid, s in host.pids.items()}.items() <= _pids(host).items()
            host.memory.validate()
        assert {id_ for host in self.hosts.values() for id_ in host.devices} == set(self.devices)
        gpus = [s for s in self.devices.values() if s.device.kind != "host"]
        self._ends.validate(a.end for s in gpus for a in s.allocations.values())
        assert all(age <= later for age, later in pairwise(self._read.values()))
        self.offers.validate(self.devices.values())


class Numbers:
    """Numbers from 0 on; `take` gives the lowest one that is free."""

    def __init__(self) -> None:
        #: those below `_next` that are free: a heap
        self._vacant: list[int] = []
        self._next = 0

    def take(self) -> int:
        if self._vacant:
            return heapq.heappop(self._vacant)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heapq.heappush(self._vacant, number)

    def taken(self) -> set[int]:
        return set(range(self._next)) - set(self._vacant)


def _heap_of(slot: Slot, state: DeviceState) -> list[int]:
    """The heap that `slot` belongs to: the free slots of its device, or the free places for windows ahead."""
    return state.free_places if slot.waits else state.free


def _pids(host: HostState) -> dict[int, int]:
    """PIDs of the windows of a host, by slot index."""
    return {index: pid for state in host.devices.values() for index, pid in state.pids.items()}
