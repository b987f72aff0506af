"""Windows that are ahead: they wait on their node until another one ends, so that no slot waits for the network."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from gpusched.engines.ray.frames import Launch


class Gate:
    """Counts the windows that run on each device of a node, and lets those in that are ahead, in order."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Launch]] = {}
        #: by order: whether it may start
        self._let_in: dict[int, asyncio.Future[bool]] = {}
        self._closed = False

    def arrive(self, order: Launch) -> None:
        """Take note of an order the moment it comes: those that are not ahead run from now on."""
        self._let_in[order.id] = asyncio.get_running_loop().create_future()
        if order.at_once and not self._closed:
            self._waiting.setdefault(order.device.id, deque()).append(order)
            self._look(order.device.id)
        else:
            self._running[order.device.id] += 1
            self._let_in[order.id].set_result(True)

    async def entered(self, order: Launch) -> bool:
        """Wait until a window may start; False: it was withdrawn. One that starts must `leave`."""
        try:
            return await self._let_in[order.id]
        finally:
            del self._let_in[order.id]

    def leave(self, order: Launch) -> None:
        """A window's process has ended, or will not start."""
        self._running[order.device.id] -= 1
        self._look(order.device.id)

    def withdraw(self, number: int) -> None:
        """Keep a window out that waits still."""
        for waiting in self._waiting.values():
            for order in waiting:
                if order.id == number:
                    waiting.remove(order)
                    self._let_in[number].set_result(False)
                    return

    def is_stocked(self, order: Launch) -> bool:
        """Whether so many windows wait on the device of this one that its end need not be told at once."""
        return len(self._waiting.get(order.device.id, ())) >= max(1, self._running[order.device.id])

    def close(self) -> None:
        """Keep all out that wait."""
        self._closed = True
        for order in [order for waiting in self._waiting.values() for order in waiting]:
            self.withdraw(order.id)

    def _look(self, device_id: str) -> None:
        waiting = self._waiting.get(device_id, ())
        while waiting and self._running[device_id] < waiting[0].at_once:
            self._running[device_id] += 1
            self._let_in[waiting.popleft().id].set_result(True)
