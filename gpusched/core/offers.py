"""Offers: the open devices with a free slot, in the order in which they are offered to the next window.

Devices to which the same batches may go form a group, and each group keeps its devices in the order of their scores, so
that a choice looks at one or two of them however many there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable

from gpusched.core.ledger import DeviceState
from gpusched.core.model import Device, DeviceChoice, DeviceKind, DeviceType
from gpusched.core.placement import NEEDS, STANDING, Demand, Score, objection, score, suits, type_on

#: a demand for the rules that do not look at it
_ANY = Demand(wanted="mixed")


class Group:
    """Devices of one kind, type and `auto`."""

    def __init__(self, example: Device) -> None:
        self.example = example
        self.devices: dict[str, DeviceState] = {}
        #: the devices that are open and have a free slot, by score; no two have the same
        self.order: list[tuple[Score, DeviceState]] = []
        #: slots in use at most on its open devices
        self.width = 0

    def take_out(self, old: Score | None, width: int) -> None:
        """Take a device out of the order, given its score there, and its slots out of the width."""
        self.width -= width
        if old is not None:
            del self.order[bisect_left(self.order, (old,))]


class Offers:
    """The groups of a pool. `settle` is called after every change to a device."""

    def __init__(self) -> None:
        self._groups: dict[tuple[DeviceKind, DeviceType, bool], Group] = {}
        #: by device id: its group, its score there if it is on offer, and its part of the group's width
        self._entered: dict[str, tuple[Group, Score | None, int]] = {}
        #: number of devices on offer
        self._count = 0
        #: answers of `suitable`, until a group gets its first device or loses its last
        self._suitable: dict[DeviceChoice, list[Group]] = {}

    def settle(self, state: DeviceState) -> None:
        """Put a device into its place in the order of its group."""
        device = state.device
        at = (device.kind, device.lightgbm_type, device.auto)
        group = self._groups.get(at)
        if group is None:
            group = self._groups[at] = Group(device)
        old = self._entered.get(device.id)
        new = score(state) if objection(state, _ANY, STANDING) is None else None
        width = state.width if state.health == "open" else 0
        if old is not None and old == (group, new, width):
            return
        if old is not None and old[0] is group:
            group.take_out(old[1], old[2])
            self._count -= old[1] is not None
        else:
            self.leave(state)
            if not group.devices:
                self._suitable.clear()
            group.devices[device.id] = state
        self._entered[device.id] = (group, new, width)
        group.width += width
        if new is not None:
            insort(group.order, (new, state))
            self._count += 1

    def leave(self, state: DeviceState) -> None:
        """Take a device out of its group."""
        if (entered := self._entered.pop(state.device.id, None)) is not None:
            group, old, width = entered
            group.take_out(old, width)
            self._count -= old is not None
            del group.devices[state.device.id]
            if not group.devices:
                self._suitable.clear()

    def suitable(self, wanted: DeviceChoice) -> list[Group]:
        """The groups of devices on which a batch that asks for `wanted` may run."""
        if (known := self._suitable.get(wanted)) is None:
            groups = (group for group in self._groups.values() if group.devices)
            known = self._suitable[wanted] = [group for group in groups if suits(group.example, wanted)]
        return known

    @property
    def has_free(self) -> bool:
        return self._count > 0

    @property
    def gpu_slots(self) -> int:
        """Slots in use at most on open GPUs."""
        return sum(group.width for group in self.suitable("gpu"))

    @property
    def gpu_type(self) -> DeviceType | None:
        """The device type of the first group of GPUs that has an open one."""
        return next((group.example.lightgbm_type for group in self.suitable("gpu") if group.width), None)

    def shares(self, wanted: DeviceChoice) -> bool:
        """Whether a batch that asks for `wanted` may use both processors and open GPUs."""
        if wanted not in ("auto", "mixed") or not self.gpu_slots:
            return False
        return any(group.example.kind == "host" for group in self.suitable(wanted))

    def device_types(self, wanted: DeviceChoice) -> set[DeviceType]:
        """The device types on which a batch that asks for `wanted` may be trained here."""
        return {type_on(group.example, wanted) for group in self.suitable(wanted)}

    def best(self, demand: Demand, *, without: Container[str] = ()) -> DeviceState | None:
        """The device with the least score that no rule objects to and is not in `without`, or None."""
        least: Score | None = None
        best: DeviceState | None = None
        for group in self.suitable(demand.wanted):
            for found, state in group.order:
                if least is not None and least < found:
                    break
                if state.device.id not in without and objection(state, demand, NEEDS) is None:
                    least, best = found, state
                    break
        return best

    def kept_for(self, demand: Demand, *, without: Container[str]) -> set[str]:
        """The devices that later batches must leave to a window for which `best` finds nothing; perhaps none.

        Where the window lacks memory of a device, the one whose windows will have left soonest is kept: the one with
        the fewest. Where it lacks memory of a host, everything on one host is. Where only slots are lacking, nothing
        is: the window is first in turn when one becomes free.
        """
        groups = self.suitable(demand.wanted)
        if not any(group.order for group in groups):
            return set()
        states = [
            state
            for group in groups
            for state in group.devices.values()
            if state.health == "open"
            and state.device.id not in without
            and state.memory.room_when_empty(demand.device)
            and state.host.memory.room_when_empty(demand.host)
        ]
        if lacking := [state for state in states if state.host.memory.room_for(demand.host)]:
            return {min(lacking, key=lambda state: len(state.allocations)).device.id}
        hosts = {state.host.name: state.host for state in states}
        if not hosts:
            return set()
        return set(min(hosts.values(), key=lambda host: len(host.memory.promised)).devices)

    def full(self, wanted: DeviceChoice) -> str | None:
        """The lack of memory for which even the smallest window of a batch that asks for `wanted` waits, or None."""
        least = Demand(wanted=wanted)
        states = [s for group in self.suitable(wanted) for s in group.devices.values() if s.health == "open"]
        starved = [host for host in dict.fromkeys(s.host for s in states) if not host.memory.room_for(least.host)]
        left = [state for state in states if state.host not in starved]
        if not states or any(state.memory.room_for(least.device) for state in left):
            return None
        lacks = [(host.title, host.memory) for host in starved] + [(state.device.id, state.memory) for state in left]
        return ", ".join(
            f"{name} has {max(0, memory.free_bytes() or 0) / 2**20:.0f} MiB free" for name, memory in lacks
        )

    def validate(self, devices: Iterable[DeviceState]) -> None:
        """Raise AssertionError unless every device is in its group, and those on offer in the order of their scores."""
        for group in self._groups.values():
            opened = [s for s in group.devices.values() if s.health == "open"]
            assert group.order == sorted((score(s), s) for s in opened if s.has_free)
            assert group.width == sum(s.width for s in opened)
        assert self._count == sum(len(group.order) for group in self._groups.values())
        assert {id_: group.devices[id_] for group in self._groups.values() for id_ in group.devices} == {
            state.device.id: state for state in devices
        }
