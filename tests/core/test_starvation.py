"""No window is overtaken for ever by those of other batches that need less."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from gpusched.core.commands import Launch
from gpusched.core.estimates import Estimates
from gpusched.core.events import DeviceRead, Event, NodeJoined
from gpusched.core.model import Device, Limits
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Finished
from tests.core.support import GIB, RESULT, Driver, batch, failure, gpu, key, planned, reading

ONCE = Limits(max_attempts=1)
#: rows of a window, and its memory on a device with 48 GiB
SMALL, LARGE = 100, 10_000
TAKES = {SMALL: 4 * GIB, LARGE: 40 * GIB}
LONGEST_S = 3

A = key("A", "a")

#: why A needs a device for itself
Need = Literal["it ran out of memory twice", "it is large", "it is large, in a container"]


class Machine(Driver):
    """Every window that is launched ends after the next of `seconds`, and the devices are read whenever one has."""

    def __init__(self, devices: Sequence[Device], need: Need, seconds: Sequence[int]) -> None:
        #: of each running window: when it ends, its pid, its attempt
        self.running: list[tuple[float, int, Launch]] = []
        self.need = need
        self.devices = devices
        self._seconds = itertools.cycle(seconds)
        self._pids = itertools.count(1)
        super().__init__()
        estimates = Estimates()
        for rows, memory in TAKES.items():
            estimates.observe("w:train", "cuda", rows, 1.0, memory)
        self.scheduler = Scheduler(estimates)
        self.send(NodeJoined(devices=tuple(devices)))
        self.read()

    def send(self, event: Event) -> Machine:
        super().send(event)
        for launch in [command for command in self.commands if isinstance(command, Launch)]:
            pid = next(self._pids)
            heapq.heappush(self.running, (self.at + next(self._seconds), pid, launch))
            self.start(launch.key, launch.attempt, pid)
        return self

    def read(self) -> None:
        for device in self.devices:
            used = {
                pid: TAKES[self.scheduler.planned(launch.key).usable_rows]
                for _, pid, launch in self.running
                if launch.slot.device_id == device.id
            }
            free = 48 * GIB - sum(used.values())
            processes = None if self.need == "it is large, in a container" else used
            self.send(DeviceRead(reading=reading(device.id, free=free, total=48 * GIB, processes=processes)))

    def next_end(self) -> Launch:
        """Go on until an attempt has ended, which it is."""
        while (deadline := self.scheduler.deadline) is not None and deadline < self.running[0][0]:
            self.wait_for_deadline()
        self.at, _, launch = heapq.heappop(self.running)
        runs_out = launch.key == A and launch.attempt < 3 and self.need == "it ran out of memory twice"
        self.end(launch.key, launch.attempt, failure("device_memory") if runs_out else RESULT)
        self.read()
        return launch


@pytest.mark.parametrize("need", get_args(Need))
@given(
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    seconds=st.lists(st.integers(1, LONGEST_S), min_size=1, max_size=12),
    others=st.integers(1, 3),
)
# the examples are small as they are, and shrinking it takes minutes
@settings(max_examples=40, derandomize=True, phases=[Phase.generate])
def test_a_window_that_needs_a_device_for_itself_gets_one(
    need: Need, slots: list[int], seconds: list[int], others: int
) -> None:
    machine = Machine([gpu(number, count) for number, count in enumerate(slots)], need, seconds)
    # Three attempts, each of which waits for its turn, a second between two of them, and a device that becomes empty;
    # meanwhile another one may come to have fewer windows, which is then the one to wait for.
    patience_s = (3 * 2 + sum(slots) + 1) * LONGEST_S + 1
    # A second is the shortest, so all slots have one of the others' windows for as long as A may wait.
    enough = (patience_s + 1) * sum(slots) // others + 1
    for number in range(others):
        machine.submit(batch(f"b{number}"), [planned(f"B{n}", SMALL) for n in range(enough)])
    begun = machine.at
    machine.submit(batch("a", limits=ONCE), [planned("A", SMALL if "twice" in need else LARGE)])
    while not isinstance(machine.state(A), Finished):
        machine.next_end()
        assert machine.running, "nobody is left who could keep it waiting"
        assert machine.at <= begun + patience_s
