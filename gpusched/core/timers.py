"""Timers: the instants for which the scheduler waits, and their purposes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Literal, NamedTuple, assert_never

from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.states import Queued, Running, Starting, State, Stopping

#: the least number of timers that is worth tidying
TIDY = 1024

Purpose = Literal["backoff", "launch", "timeout", "grace", "launch_grace"]


class Timer(NamedTuple):
    #: monotonic instant
    at: float
    #: breaks ties: the timer that was set first comes first
    number: int
    entry: Entry
    attempt: int
    purpose: Purpose


class Timers:
    """A heap of timers. They are not cancelled: those that do not apply any more are dropped when due, or too many."""

    def __init__(self, batches: Mapping[str, BatchQueue]) -> None:
        self._batches = batches
        self._heap: list[Timer] = []
        self._count = 0
        #: number of timers at which those that do not apply any more are dropped
        self._tidy_at = TIDY

    def set(self, at: float, entry: Entry, attempt: int, purpose: Purpose) -> None:
        self._count += 1
        heapq.heappush(self._heap, Timer(at, self._count, entry, attempt, purpose))
        if len(self._heap) >= self._tidy_at:
            # Windows of a second with a timeout of an hour would leave millions of timers behind.
            self._heap = [timer for timer in self._heap if self.applies(timer)]
            heapq.heapify(self._heap)
            self._tidy_at = max(TIDY, 2 * len(self._heap))

    @property
    def first(self) -> Timer | None:
        return self._heap[0] if self._heap else None

    def pop(self) -> None:
        heapq.heappop(self._heap)

    def applies(self, timer: Timer) -> bool:
        """Whether the window is still in the attempt and state for which the timer was set."""
        entry = timer.entry
        batch = self._batches.get(entry.key.batch_id)
        # A batch that replaced one with the same id has windows with the same labels and attempts.
        if batch is None or batch.entries.get(entry.key.label) is not entry:
            return False
        expected: type[State]
        match timer.purpose:
            case "backoff":
                expected = Queued
            case "launch":
                expected = Starting
            case "timeout":
                expected = Running
            case "grace" | "launch_grace":
                expected = Stopping
                if type(entry.state) is Stopping and (entry.state.pid is None) != (timer.purpose == "launch_grace"):
                    return False
            case _ as never:
                assert_never(never)
        return type(entry.state) is expected and entry.state.attempt == timer.attempt
