"""The daemon's side of its service manager: signals come in; readiness, watchdog messages and a status line go out.

The first SIGTERM or SIGINT drains: nothing more is placed, and running windows finish. The second one, or the approach
of `daemon.stop_limit_s`, stops them; they go back to the queue. At the limit, or with a third signal, the daemon exits
even if processes hang, and logs the processes that it leaves behind: the next start ends them. If the event loop itself
hangs, a separate thread ends the daemon. SIGHUP does nothing: the configuration is read at the start.

Only the supervisor's turns feed the watchdog. An idle supervisor gets an empty turn now and then; if it hangs in a
turn, the watchdog is no longer fed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import anyio

from gpusched.core.events import TimePassed
from gpusched.service.notify import Notifier
from gpusched.supervisor.followers import News, TurnEnded
from gpusched.supervisor.runtime import Runtime

#: seconds of extension that a stopping daemon asks the manager for at a time, repeatedly
EXTENSION_S = 30.0
#: seconds between the empty turns of an idle supervisor; fewer if the watchdog's interval is shorter
TURN_S = 10.0
#: seconds for stopped windows to end before the daemon exits; at most half of the limit
LAST_S = 20.0
#: seconds of the limit that are reserved for the exit itself; at most a tenth of it
LEAVING_S = 2.0
#: seconds beyond the limit after which the daemon's own thread ends a process whose loop hangs
HANGING_S = 5.0

#: exit code of a daemon that fails through a fault of its own
FAILED = 1

log = logging.getLogger("gpusched.daemon")


class Service:
    """Obeys signals and keeps the service manager informed; the module docstring describes the stages of a stop."""

    def __init__(self, notifier: Notifier, runtime: Runtime) -> None:
        self._notifier = notifier
        self._supervisor = runtime.supervisor
        self._condition = runtime.condition
        self._fleet = runtime.fleet
        self._limit_s = runtime.config.daemon.stop_limit_s
        self._last_s = min(LAST_S, self._limit_s / 2)
        #: monotonic time by which the daemon must have exited
        self.deadline = float("inf")
        self._stopping = False
        watchdog_s = notifier.watchdog_s
        self._turn_s = TURN_S if watchdog_s is None else min(TURN_S, watchdog_s / 3)
        #: monotonic time of the last report to the manager, and the troubles in it
        self._reported_at = 0.0
        self._reported = ""

    def follow(self, news: News) -> None:
        """Feed the watchdog after a turn: the supervisor's loop is alive, even if the store cannot be written."""
        if not isinstance(news, TurnEnded):
            return
        now = time.monotonic()
        troubles = self._troubles()
        if troubles != self._reported or now - self._reported_at >= min(1.0, self._turn_s / 2):
            self._reported_at, self._reported = now, troubles
            if self._notifier.watchdog_s is not None:
                self._notifier.alive()
            self._notifier.status(self.summary())

    def summary(self) -> str:
        """The state of the daemon in one line."""
        scheduler = self._supervisor.scheduler
        text = f"{scheduler.active} windows running, {scheduler.unfinished} not finished"
        if trying := self._fleet.trying():
            text = f"{text}; trying {trying}"
        if self._condition.draining:
            text = f"{'stopping now' if self._stopping else 'stopping'}: {text}"
        return text + self._troubles()

    def _troubles(self) -> str:
        troubles = self._condition.troubles
        more = f" (and {len(troubles) - 1} more: `gpusched status`)" if len(troubles) > 1 else ""
        return f"; {troubles[0].text}{more}" if troubles else ""

    async def keep_turning(self) -> None:
        """Cause an empty turn now and then, and ask the manager for more time while stopping."""
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
        """After the supervisor has returned, log unwritten records and the processes left behind."""
        supervisor = self._supervisor
        for left in supervisor.left_behind:
            log.error("left behind pid=%d window=%s doing=%r", left.pid, left.window or "?", left.doing)
        if supervisor.unwritten:
            log.error("left with records that could not be written records=%d", supervisor.unwritten)
        log.info("stopped unfinished=%d left_behind=%d", supervisor.scheduler.unfinished, len(supervisor.left_behind))
        if supervisor.left_behind:
            pids = ", ".join(str(left.pid) for left in supervisor.left_behind)
            self._notifier.status(f"left; processes that did not die, and which the next start ends: {pids}")

    # -- the stages of a stop ------------------------------------------------------------------------------------------

    def _drain(self, name: str) -> None:
        active = self._supervisor.scheduler.active
        log.info("stopping when the running windows have finished signal=%s active=%d", name, active)
        self._condition.draining = True
        self._notifier.stopping()
        self._leave_within(self._limit_s, drain=True)
        self._notifier.status(self.summary())
        threading.Thread(target=self._end_hung_daemon, name="last resort", daemon=True).start()

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
        self._notifier.status(self.summary())

    def _leave_within(self, seconds: float, *, drain: bool = False) -> None:
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        left = max(0.0, self.deadline - time.monotonic())
        self._supervisor.shut_down(drain=drain, within_s=left - min(LEAVING_S, left / 10))
        self._ask_for_time()

    def _ask_for_time(self) -> None:
        left = self.deadline + HANGING_S - time.monotonic()
        if left > 0:
            self._notifier.extend_timeout(min(EXTENSION_S, left))

    def _end_hung_daemon(self) -> None:
        """End the process if it still lives after the limit. Runs in a daemon thread, since the loop may hang."""
        while (left := self.deadline + HANGING_S - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        os.write(2, f"gpusched: the daemon hangs beyond its stop limit of {self._limit_s:g} s and is ended\n".encode())
        os._exit(FAILED)
