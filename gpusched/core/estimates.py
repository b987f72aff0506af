"""What windows cost, learned from those that have ended: seconds and peak memory by workload, device type and rows.

Rows are put into buckets that double in width, so a bucket's windows differ by less than a factor of two. A question
is answered from the bucket of its rows, or else from the nearest one, by scaling. Pure: the store keeps the rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import msgspec

from gpusched.core.model import DeviceType

#: observations that a mean remembers: a later one counts as the 200th, so the mean follows a workload that changes
MEMORY = 200

#: a guess for what was never seen: seconds of a window without rows, and for each row; measured on a core of 2023 with
#: the default settings and 100 (0.018 s) to 9,000 rows (0.7 s)
GUESSED_SECONDS = 0.01
GUESSED_SECONDS_PER_ROW = 8e-5


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in one bucket."""

    workload: str
    device_type: DeviceType
    #: the bucket holds rows in [2**(bucket-1), 2**bucket)
    bucket: int
    count: int = 0
    rows_mean: float = 0.0
    seconds_mean: float = 0.0
    seconds_max: float = 0.0
    #: observations that knew their memory; 0: the two fields below say nothing
    memory_count: int = 0
    memory_mean: float = 0.0
    memory_max: int = 0
    #: of the host, beyond what windows share with their launcher; 0: not known
    host_memory_max: int = 0


class Estimates:
    """Running estimates; `observe` is the only thing that changes them."""

    def __init__(self, learned: Iterable[Estimate] = ()) -> None:
        self._rows: dict[tuple[str, DeviceType], dict[int, Estimate]] = {}
        for estimate in learned:
            self._put(estimate)

    def observe(
        self,
        workload: str,
        device_type: DeviceType,
        rows: int,
        seconds: float,
        memory_bytes: int | None,
        host_memory_bytes: int | None = None,
    ) -> Estimate:
        """Learn from one finished window; the updated row is to be given to the store. Memory may be unknown: None."""
        old = self._of(workload, device_type, rows)
        new = msgspec.structs.replace(
            old,
            count=old.count + 1,
            rows_mean=_mean(old.rows_mean, old.count, rows),
            seconds_mean=_mean(old.seconds_mean, old.count, seconds),
            seconds_max=max(old.seconds_max, seconds),
            host_memory_max=max(old.host_memory_max, host_memory_bytes or 0),
        )
        if memory_bytes is not None:
            new = msgspec.structs.replace(
                new,
                memory_count=old.memory_count + 1,
                memory_mean=_mean(old.memory_mean, old.memory_count, memory_bytes),
                memory_max=max(old.memory_max, memory_bytes),
            )
        self._put(new)
        return new

    def observe_host_memory(self, workload: str, device_type: DeviceType, rows: int, memory_bytes: int) -> Estimate:
        """Learn from a window that ran out of the host's memory: it needed more than it had. As `observe`."""
        old = self._of(workload, device_type, rows)
        new = msgspec.structs.replace(
            old,
            # where no window has finished, these are the rows that the memory is of
            rows_mean=old.rows_mean if old.count else float(rows),
            host_memory_max=max(old.host_memory_max, memory_bytes),
        )
        self._put(new)
        return new

    def seconds(self, workload: str, device_type: DeviceType, rows: int) -> float | None:
        """Expected seconds, proportional to rows within and beyond the nearest bucket; None if nothing was seen."""
        seen = self._nearest(workload, device_type, rows, lambda estimate: estimate.count)
        return None if seen is None else seen.seconds_mean * max(rows, 1) / max(seen.rows_mean, 1.0)

    def well_known(self, workload: str, device_type: DeviceType, rows: int, count: int) -> Estimate | None:
        """What `count` windows or more have taught of this many rows, give or take a bucket."""
        buckets = self._rows.get((workload, device_type), {})
        near = (buckets.get(bucket_of(rows) + step) for step in (0, 1, -1))
        return next((one for one in near if one is not None and one.count >= count), None)

    def memory_bytes(self, workload: str, device_type: DeviceType, rows: int) -> int | None:
        """GPU memory to reserve: the most that was seen, scaled up with rows, never down; None if nothing was seen."""
        seen = self._nearest(workload, device_type, rows, lambda estimate: estimate.memory_count)
        return None if seen is None else _scaled_up(seen.memory_max, seen, rows)

    def host_memory_bytes(self, workload: str, device_type: DeviceType, rows: int) -> int | None:
        """The same of the host's memory."""
        seen = self._nearest(workload, device_type, rows, lambda estimate: estimate.host_memory_max)
        return None if seen is None else _scaled_up(seen.host_memory_max, seen, rows)

    def rows(self) -> list[Estimate]:
        """All buckets, in a fixed order."""
        return [buckets[bucket] for _, buckets in sorted(self._rows.items()) for bucket in sorted(buckets)]

    def _of(self, workload: str, device_type: DeviceType, rows: int) -> Estimate:
        bucket = bucket_of(rows)
        known = self._rows.get((workload, device_type), {}).get(bucket)
        return known or Estimate(workload=workload, device_type=device_type, bucket=bucket)

    def _nearest(
        self, workload: str, device_type: DeviceType, rows: int, knows: Callable[[Estimate], int]
    ) -> Estimate | None:
        candidates = [e for e in self._rows.get((workload, device_type), {}).values() if knows(e)]
        wanted = bucket_of(rows)
        # of two at the same distance the larger: what is too high costs a slot, what is too low costs an attempt
        return min(candidates, key=lambda e: (abs(e.bucket - wanted), -e.bucket), default=None)

    def _put(self, estimate: Estimate) -> None:
        self._rows.setdefault((estimate.workload, estimate.device_type), {})[estimate.bucket] = estimate


def guessed_seconds(rows: int) -> float:
    """What a window may take where nothing has been learned: right to a factor of a few."""
    return GUESSED_SECONDS + GUESSED_SECONDS_PER_ROW * rows


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Seconds until the last of these windows ends when the longest goes first and a free slot takes the next.

    Graham's longest processing time rule (1969): at most 4/3 - 1/(3 slots) of the shortest that is possible.
    """
    ends = [0.0] * max(1, slots)
    for duration in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _scaled_up(memory_bytes: int, seen: Estimate, rows: int) -> int:
    return round(memory_bytes * max(1.0, rows / max(seen.rows_mean, 1.0)))


def bucket_of(rows: int) -> int:
    """The bucket of a window with so many rows."""
    return max(rows, 0).bit_length()


def _mean(mean: float, count: int, value: float) -> float:
    return mean + (value - mean) / min(count + 1, MEMORY)
