"""Windows that are ahead: they wait on their node until another one ends, so that no slot waits for the network."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from gpusched.engines.ray.frames import Launch


class Gate:
    """Counts the windows that run on each device of a node, and lets those in that are ahead, in order."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        #: by device: the orders, and the callback that lets each in
        self._waiting: dict[str, deque[tuple[Launch, Callable[[], None]]]] = {}
        self._closed = False

    def arrive(self, order: Launch, enter: Callable[[], None]) -> None:
        """Take note of an order the moment it comes; `enter` is called when its window may start, perhaps at once.

        A window that has entered must `leave`.
        """
        if order.at_once and not self._closed:
            self._waiting.setdefault(order.device.id, deque()).append((order, enter))
            self._look(order.device.id)
        else:
            self._running[order.device.id] += 1
            enter()

    def leave(self, order: Launch) -> None:
        """A window's process has ended, or will not start."""
        self._running[order.device.id] -= 1
        self._look(order.device.id)

    def withdraw(self, number: int) -> bool:
        """Keep out the window with this order, if it is still waiting; return whether it was."""
        for waiting in self._waiting.values():
            for each in waiting:
                if each[0].id == number:
                    waiting.remove(each)
                    return True
        return False

    def is_stocked(self, order: Launch) -> bool:
        """Whether enough windows wait on this one's device to replace it: then the report of its end may linger."""
        return len(self._waiting.get(order.device.id, ())) >= max(1, self._running[order.device.id])

    def close(self) -> list[int]:
        """Keep out all that are waiting; return the numbers of their orders."""
        self._closed = True
        numbers = [order.id for waiting in self._waiting.values() for order, _ in waiting]
        self._waiting.clear()
        return numbers

    def _look(self, device_id: str) -> None:
        waiting = self._waiting.get(device_id, ())
        while waiting and self._running[device_id] < waiting[0][0].at_once:
            self._running[device_id] += 1
            _, enter = waiting.popleft()
            enter()
