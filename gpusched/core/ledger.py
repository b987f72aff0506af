"""The ledger of one device and of one host: slots, their holders, memory, health, and the last reading.

`gpusched.core.placement` reads it to find reasons against a device; only `gpusched.core.pool` changes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from gpusched.core.memory import LEAST_DEVICE_BYTES, LEAST_HOST_BYTES, Memory, Need
from gpusched.core.model import Device, Health, Reading, Slot, WindowKey
from gpusched.core.tuning import Tuner

#: weight of the newest sample in the smoothed utilisation
SMOOTHING = 0.3
#: places for windows that are ahead, for each slot of a device on a node: each message costs Ray milliseconds, and with
#: more places a message carries more windows where they are short
AHEAD_SLOTS = 8
#: seconds for which windows that are ahead keep a device busy, about
AHEAD_S = 0.5
#: seconds of a window beside which the network does not matter: none is placed ahead, since that may fix it to a device
#: though another is free sooner
LONG_S = 5.0


class Allocation(msgspec.Struct, frozen=True):
    """The slot that an attempt holds, and the memory set aside for it on the device and on the host."""

    key: WindowKey
    slot: Slot
    device: Need
    host: Need
    #: number of its expected end (`Ends`); 0: it is on no GPU
    end: int = 0


class HostState:
    """One machine of the pool: the memory that windows on all of its devices share, and their processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.devices: dict[str, DeviceState] = {}
        self.memory = Memory(LEAST_HOST_BYTES, lasting=True)
        #: the slots of its windows, by PID: other hosts have processes with the same numbers
        self.pids: dict[int, Slot] = {}
        #: why nothing is placed here until the node answers again; empty: it answers
        self.silent = ""

    @property
    def title(self) -> str:
        """The host, for people."""
        return f"node {self.name}" if self.name else "the host"

    def forget_reading(self) -> None:
        self.memory.forget_reading()


class DeviceState:
    """One device of the pool: its slots, allocations, health and last reading."""

    def __init__(
        self, device: Device, slots: list[Slot], host: HostState, since: float, places: Sequence[Slot]
    ) -> None:
        """`places` are for windows that wait on their node for one that ends, so that no slot waits for the network."""
        self.device = device
        self.slots = slots
        self.places = places
        self.host = host
        #: places in use at most
        self.ahead = 0
        self.free = [slot.index for slot in slots]  # a heap
        self.free_places = sorted(place.index for place in places)  # a heap
        #: finds the best number of slots to use; None: always all
        self.tuner = Tuner(device.tuned_from, device.capacity) if device.tuned_from else None
        #: slots in use at most
        self.width = self.tuner.slots if self.tuner else device.capacity
        self.allocations: dict[int, Allocation] = {}
        #: PIDs of its windows by slot index
        self.pids: dict[int, int] = {}
        self.health: Health = "open"
        self.reason = ""
        #: wall instant since which it has been in this health
        self.since = since
        #: no trial has succeeded yet: its device type is only presumed
        self.untried = False
        self.reading: Reading | None = None
        #: ledger of the device's own memory; the processors use their host's
        self.memory = Memory(LEAST_DEVICE_BYTES)
        self.utilisation = 0.0

    @property
    def has_idle(self) -> bool:
        """Whether a window that is placed now starts at once."""
        return len(self.allocations) < self.width

    @property
    def next(self) -> int:
        """The index of the slot, or of the place, that the next window gets."""
        return self.free[0] if self.has_idle else self.free_places[0]

    @property
    def has_free(self) -> bool:
        return self.has_idle or (bool(self.free_places) and len(self.allocations) < self.width + self.ahead)

    def expect(self, seconds: float) -> bool:
        """Have as many windows of `seconds` ahead as end within `AHEAD_S`; none if they are long.

        Returns whether that changed anything.
        """
        before, most = self.ahead, len(self.places)
        ends = math.ceil(self.width * AHEAD_S / max(seconds, 1e-3))
        self.ahead = min(most, ends) if seconds < LONG_S else 0
        return self.ahead != before

    def foreign_bytes(self) -> int | None:
        """Memory used by processes other than our windows; None if the device does not report it by process."""
        processes = None if self.reading is None else self.reading.process_memory_bytes
        return None if processes is None else max(0, sum(processes.values()) - self.memory.seen_bytes)

    def observe(self, reading: Reading) -> None:
        """Take in a reading of this device."""
        self.reading = reading
        if reading.utilisation is not None:
            self.utilisation += SMOOTHING * (reading.utilisation - self.utilisation)
        if self.device.kind != "host":
            used = by_slot(reading.process_memory_bytes, self.pids)
            self.memory.observe(reading.memory_total_bytes, reading.memory_free_bytes, used)

    def forget_reading(self) -> None:
        """Drop the last reading, which is too old to veto a placement."""
        self.reading = None
        self.memory.forget_reading()


def by_slot(by_pid: dict[int, int] | None, pids: dict[int, int]) -> dict[int, int] | None:
    """Memory of our windows by slot index; `pids` are theirs by slot index. None if it is not known by process."""
    return None if by_pid is None else {index: by_pid.get(pid, 0) for index, pid in pids.items()}
