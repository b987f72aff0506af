"""The instants at which windows on GPUs are expected to end; the scheduler asks for the earliest."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

#: the least number of ends that is worth tidying
TIDY = 1024


class Ends:
    """A heap, since windows mostly end in the order of their starts.

    Those that have left are dropped when they come up, or are too many: to find them among thousands costs more.
    """

    def __init__(self) -> None:
        #: wall instants, each with its number
        self._heap: list[tuple[float, int]] = []
        #: by number: the ends of windows that have not left
        self._expected: dict[int, float] = {}
        self._count = 0

    def __len__(self) -> int:
        """The number of ends that are kept, those of windows that have left among them."""
        return len(self._heap)

    def add(self, at: float) -> int:
        """Expect an end at a wall instant; return the number by which it is removed."""
        self._count += 1
        self._expected[self._count] = at
        heapq.heappush(self._heap, (at, self._count))
        return self._count

    def remove(self, number: int) -> None:
        """Note that the window has left."""
        del self._expected[number]
        if len(self) > max(TIDY, 2 * len(self._expected)):
            self._heap = [(at, number) for number, at in self._expected.items()]
            heapq.heapify(self._heap)

    @property
    def first(self) -> float | None:
        """The wall instant of the first of them; None: there is none."""
        while self._heap and self._heap[0][1] not in self._expected:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def validate(self, numbers: Iterable[int]) -> None:
        """Raise AssertionError unless these are the ends that are expected, and the first of them is found."""
        assert sorted(numbers) == [*self._expected]
        assert self.first == min(self._expected.values(), default=None)
