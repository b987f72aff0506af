"""The daemon as its service manager sees it: signals in; readiness, signs of life and a line of status out.

The first SIGTERM or SIGINT drains: nothing more is placed, and running windows finish. The second one, or the approach
of `daemon.stop_limit_s`, stops them; they go back to the queue. When the limit is reached, or with a third signal, the
daemon leaves whatever hangs, and says what it leaves behind: the next start ends that. Should its loop hang itself, a
thread of its own sees to it. SIGHUP does nothing: the configuration is read at the start.

The watchdog is fed by the supervisor's turns and by nothing else. An idle supervisor is given an empty turn now and
then; one that hangs in a turn is not heard of again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

import anyio

from gpusched.core.events import TimePassed
from gpusched.engines.condition import Condition
from gpusched.engines.local import proc
from gpusched.service.notify import Notifier
from gpusched.supervisor.supervisor import Supervisor

#: the manager is asked for this much time at most, again and again while the daemon stops
EXTENSION_S = 30.0
#: seconds between the empty turns of an idle supervisor; less if the watchdog wants to hear more often
TURN_S = 10.0
#: seconds that windows have to end when they are stopped, before the daemon leaves; at most half of the limit
LAST_S = 20.0
#: seconds of the limit that leaving itself takes; at most a tenth of it
LEAVING_S = 2.0
#: seconds beyond the limit after which a process that still hangs is ended from within
HANGING_S = 5.0

#: what the daemon ends with when it fails through a fault of its own
FAILED = 1

log = logging.getLogger("gpusched.daemon")


class Service:
    """See the module."""

    def __init__(
        self,
        notifier: Notifier,
        supervisor: Supervisor,
        condition: Condition,
        stop_limit_s: float,
        *,
        trying: Callable[[], str],
    ) -> None:
        """`trying` says which devices are being tried; nothing if none is."""
        self._notifier = notifier
        self._supervisor = supervisor
        self._condition = condition
        self._limit_s = stop_limit_s
        self._trying = trying
        self._last_s = min(LAST_S, stop_limit_s / 2)
        #: monotonic instant at which the daemon must have left
        self.deadline = float("inf")
        self._stopping = False
        watchdog_s = notifier.watchdog_s
        self._turn_s = TURN_S if watchdog_s is None else min(TURN_S, watchdog_s / 3)
        self._told_at = 0.0
        self._told = ""

    def on_turn(self) -> None:
        """A turn has ended: the loop that does the work is alive, whether or not the store can be written."""
        now = time.monotonic()
        troubles = self._troubles()
        if troubles != self._told or now - self._told_at >= min(1.0, self._turn_s / 2):
            self._told_at, self._told = now, troubles
            if self._notifier.watchdog_s is not None:
                self._notifier.alive()
            self._notifier.status(self.summary())

    def summary(self) -> str:
        """One line."""
        scheduler = self._supervisor.scheduler
        text = f"{scheduler.active} windows running, {scheduler.unfinished} not finished"
        if trying := self._trying():
            text = f"{text}; trying {trying}"
        if self._condition.draining:
            text = f"stopping: {text}"
        return text + self._troubles()

    def _troubles(self) -> str:
        troubles = self._condition.troubles
        more = f" (and {len(troubles) - 1} more: `gpusched status`)" if len(troubles) > 1 else ""
        return f"; {troubles[0].text}{more}" if troubles else ""

    async def keep_turning(self) -> None:
        """Have a turn made now and then when nothing happens, and while stopping ask for the time that it takes."""
        while True:
            await anyio.sleep(min(self._turn_s, EXTENSION_S / 3))
            self._supervisor.post(TimePassed())
            if self._condition.draining:
                self._ask_for_time()

    async def obey_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async with anyio.create_task_group() as tasks:
                async for number in received:
                    name = signal.Signals(number).name
                    if number == signal.SIGHUP:
                        log.info("SIGHUP does nothing: restart the daemon to have it read its configuration")
                    elif not self._condition.draining:
                        self._drain(name)
                        tasks.start_soon(self._stop_later)
                    elif not self._stopping:
                        self._stop(f"a second {name}")
                    else:
                        log.warning("leaving now, whatever hangs reason=%r", f"a further {name}")
                        self._leave_within(0.0)

    def report(self) -> None:
        """The supervisor has returned: log what it leaves undone, and what it leaves behind."""
        supervisor = self._supervisor
        for pid, key in supervisor.left_behind.items():
            log.error("left behind pid=%d window=%s doing=%r", pid, key or "?", proc.doing(pid))
        if supervisor.unwritten:
            log.error("left with records that could not be written records=%d", supervisor.unwritten)
        log.info("stopped unfinished=%d left_behind=%d", supervisor.scheduler.unfinished, len(supervisor.left_behind))
        if supervisor.left_behind:
            pids = ", ".join(map(str, supervisor.left_behind))
            self._notifier.status(f"left; processes that did not die, and which the next start ends: {pids}")

    # -- the stages of a stop ------------------------------------------------------------------------------------------

    def _drain(self, name: str) -> None:
        active = self._supervisor.scheduler.active
        log.info("stopping when the running windows have finished signal=%s active=%d", name, active)
        self._condition.draining = True
        self._notifier.stopping()
        self._leave_within(self._limit_s, drain=True)
        self._notifier.status(self.summary())
        threading.Thread(target=self._end_what_hangs, name="last resort", daemon=True).start()

    async def _stop_later(self) -> None:
        drain_s = self._limit_s - self._last_s
        await anyio.sleep(drain_s)
        if not self._stopping:
            self._stop(f"windows that still run after {drain_s:g} s")

    def _stop(self, why: str) -> None:
        active = self._supervisor.scheduler.active
        log.warning("stopping now, running windows go back to the queue reason=%r active=%d", why, active)
        self._stopping = True
        self._leave_within(self._last_s)

    def _leave_within(self, seconds: float, *, drain: bool = False) -> None:
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        left = max(0.0, self.deadline - time.monotonic())
        self._supervisor.shut_down(drain=drain, within_s=left - min(LEAVING_S, left / 10))
        self._ask_for_time()

    def _ask_for_time(self) -> None:
        left = self.deadline + HANGING_S - time.monotonic()
        if left > 0:
            self._notifier.extend_timeout(min(EXTENSION_S, left))

    def _end_what_hangs(self) -> None:
        """In a thread that nobody waits for: a loop that hangs in the kernel ends nothing."""
        while (left := self.deadline + HANGING_S - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        os.write(2, f"gpusched: the daemon hangs beyond its stop limit of {self._limit_s:g} s and is ended\n".encode())
        os._exit(FAILED)
