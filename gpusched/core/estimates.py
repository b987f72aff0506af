"""The costs of windows, learned from those that have ended: seconds and peak memory by work, device type and rows.

Buckets of rows double in width, so the windows of a bucket differ by less than a factor of two. An estimate comes from
the bucket of the window's rows, or else from the nearest one, by scaling. Pure: the store keeps the buckets.

Work is a workload, or a workload at a point of a sweep (`work`): 255 leaves may take ten times as long as 15. The
estimate of a point that is not known is that of the workload, from all of its windows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import msgspec

from gpusched.core.model import DeviceType

#: observations that a mean remembers: every later one counts as the 200th, so the mean follows a workload that changes
MEMORY = 200

#: a guess where nothing has been observed: seconds for a window without rows, and for each row; measured on a core of
#: 2023 with the default settings and 100 (0.018 s) to 9,000 rows (0.7 s)
GUESSED_SECONDS = 0.01
GUESSED_SECONDS_PER_ROW = 8e-5
#: a guess is wrong by less than this factor, mostly: other settings, another core
GUESS_FACTOR = 3.0


#: points of sweeps whose costs are known; the earliest are forgotten beyond that, here and in the store
MOST_POINTS = 20_000


def work(workload: str, point: str) -> str:
    """The work of a window: its workload, and its point of a sweep if it has one."""
    return f"{workload} {point}" if point else workload


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The observations of one bucket, summed up."""

    workload: str
    device_type: DeviceType
    #: the bucket holds rows in [2**(bucket-1), 2**bucket)
    bucket: int
    count: int = 0
    rows_mean: float = 0.0
    seconds_mean: float = 0.0
    seconds_max: float = 0.0
    #: observations whose memory was known; 0: the two fields below are meaningless
    memory_count: int = 0
    memory_mean: float = 0.0
    memory_max: int = 0
    #: the most memory of the host that a window took, beyond the part shared with its launcher; 0: not known
    host_memory_max: int = 0

    @property
    def is_of_a_point(self) -> bool:
        """Whether it is of a workload at a point of a sweep, and not of all windows of the workload."""
        return self.workload != _workload(self.workload)


class Estimates:
    """Running estimates; `observe` is the only thing that changes them."""

    def __init__(self, learned: Iterable[Estimate] = ()) -> None:
        self._rows: dict[tuple[str, DeviceType], dict[int, Estimate]] = {}
        self._points: dict[tuple[str, DeviceType], dict[int, Estimate]] = {}
        for estimate in learned:
            self._put(estimate)

    def observe(
        self,
        work: str,
        device_type: DeviceType,
        rows: int,
        seconds: float,
        memory_bytes: int | None,
        host_memory_bytes: int | None = None,
    ) -> list[Estimate]:
        """Learn from one finished window. Unknown memory is None.

        Return the updated buckets, for the store: that of its point, if it has one, and that of its workload.
        """
        updated = []
        for old in self._learners(work, device_type, rows):
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
            updated.append(new)
        return updated

    def observe_host_memory(self, work: str, device_type: DeviceType, rows: int, memory_bytes: int) -> list[Estimate]:
        """Learn from a window that ran out of the host's memory: it needed more than `memory_bytes`. As `observe`."""
        updated = []
        for old in self._learners(work, device_type, rows):
            new = msgspec.structs.replace(
                old,
                # where no window has finished yet, the memory is that of a window with these rows
                rows_mean=old.rows_mean if old.count else float(rows),
                host_memory_max=max(old.host_memory_max, memory_bytes),
            )
            self._put(new)
            updated.append(new)
        return updated

    def seconds(self, work: str, device_type: DeviceType, rows: int) -> float | None:
        """Expected seconds, in proportion to the rows of the nearest bucket; None if there is no observation."""
        nearest = self._nearest(work, device_type, rows, lambda estimate: estimate.count)
        return None if nearest is None else nearest.seconds_mean * max(rows, 1) / max(nearest.rows_mean, 1.0)

    def well_known(self, workload: str, device_type: DeviceType, rows: int, count: int) -> Estimate | None:
        """The bucket of this many rows, or a neighbour, if it has at least `count` windows; otherwise None."""
        buckets = self._rows.get((workload, device_type), {})
        near = (buckets.get(bucket_of(rows) + step) for step in (0, 1, -1))
        return next((one for one in near if one is not None and one.count >= count), None)

    def memory_bytes(self, work: str, device_type: DeviceType, rows: int) -> int | None:
        """GPU memory to reserve: the observed maximum, scaled up with rows, never down; None without an observation."""
        nearest = self._nearest(work, device_type, rows, lambda estimate: estimate.memory_count)
        return None if nearest is None else _scaled_up(nearest.memory_max, nearest, rows)

    def host_memory_bytes(self, work: str, device_type: DeviceType, rows: int) -> int | None:
        """Memory of the host to reserve, found in the same way."""
        nearest = self._nearest(work, device_type, rows, lambda estimate: estimate.host_memory_max)
        return None if nearest is None else _scaled_up(nearest.host_memory_max, nearest, rows)

    def rows(self) -> list[Estimate]:
        """All buckets of workloads, in a fixed order."""
        return [buckets[bucket] for _, buckets in sorted(self._rows.items()) for bucket in sorted(buckets)]

    def _learners(self, work: str, device_type: DeviceType, rows: int) -> list[Estimate]:
        """The buckets that learn from a window: that of its point if it has one, and that of its workload."""
        bucket = bucket_of(rows)
        return [
            self._of(name, device_type).get(bucket) or Estimate(workload=name, device_type=device_type, bucket=bucket)
            for name in dict.fromkeys((work, _workload(work)))
        ]

    def _nearest(
        self, work: str, device_type: DeviceType, rows: int, knows: Callable[[Estimate], int]
    ) -> Estimate | None:
        wanted = bucket_of(rows)
        points, workload = self._points.get((work, device_type)), self._rows.get((_workload(work), device_type))
        for buckets in filter(None, (points, workload)):
            if (same := buckets.get(wanted)) is not None and knows(same):  # most windows are as long as others
                return same
            if candidates := [e for e in buckets.values() if knows(e)]:
                # of two at the same distance the larger: one too high costs a slot, one too low an attempt
                return min(candidates, key=lambda e: (abs(e.bucket - wanted), -e.bucket))
        return None

    def _of(self, work: str, device_type: DeviceType) -> dict[int, Estimate]:
        known = self._rows if work == _workload(work) else self._points
        return known.get((work, device_type), {})

    def _put(self, estimate: Estimate) -> None:
        known = self._points if estimate.is_of_a_point else self._rows
        known.setdefault((estimate.workload, estimate.device_type), {})[estimate.bucket] = estimate
        if len(self._points) > MOST_POINTS:
            del self._points[next(iter(self._points))]


def _workload(work: str) -> str:
    return work.partition(" ")[0]


def guessed_seconds(rows: int) -> float:
    """A guess at a window's seconds without any observation; it may be wrong by a factor of a few."""
    return GUESSED_SECONDS + GUESSED_SECONDS_PER_ROW * rows


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Seconds until the last of these windows ends, if the longest goes first and a free slot takes the next.

    Graham's longest processing time rule (1969): at most 4/3 - 1/(3 slots) times the optimum.
    """
    ends = [0.0] * max(1, slots)
    for duration in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _scaled_up(memory_bytes: int, estimate: Estimate, rows: int) -> int:
    return round(memory_bytes * max(1.0, rows / max(estimate.rows_mean, 1.0)))


def bucket_of(rows: int) -> int:
    """The number of the bucket for windows of `rows` rows."""
    return max(rows, 0).bit_length()


def _mean(mean: float, count: int, value: float) -> float:
    return mean + (value - mean) / min(count + 1, MEMORY)
