"""The thread that reads the GPUs while windows run, and reports those that cannot be trusted any more.

A call into NVML can block for half a minute, so all calls are made on one separate thread; the event loop only receives
events. A device that answers slowly is asked less often, so that the others do not have to wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable

import anyio

from gpusched import clock
from gpusched.core.events import DeviceLost, DeviceRead
from gpusched.core.model import Device
from gpusched.devices.kind import Answers, Discovery, Seen
from gpusched.devices.nvidia.inventory import Inventory
from gpusched.devices.nvidia.readings import Corrupt, Gone, Reader, Unreadable, in_initial_pid_namespace

#: seconds to wait for events in one call; the thread outlives `run` by at most this
_WAIT_S = 1.0
#: a device that took s seconds to answer is left alone for this many times s
_PATIENCE = 10.0


Sampled = DeviceRead | DeviceLost


class Sampler:
    """Reads devices every `interval_s` seconds until `run` is cancelled.

    A device that cannot be read yields no new reading: its last one grows old. If nothing could be read for `retry_s`
    seconds, NVML is started anew, and again after each further `retry_s`. An answer that takes longer than `slow_s`
    counts as slow. With an `inventory`, devices that come and go are reported, too.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        interval_s: float = 1.0,
        retry_s: float = 60.0,
        slow_s: float = 1.0,
        sees_own_pids: bool | None = None,
        wall: Callable[[], float] = clock.wall,
        inventory: Inventory | None = None,
        windows: Collection[int] = (),
    ) -> None:
        """`windows` are the PIDs of our windows at any time: what their descendants use is theirs."""
        self.watch(device.id for device in devices if device.kind != "host")
        self._inventory = inventory
        self._interval_s = interval_s
        self._retry_s = retry_s
        self._slow_s = slow_s
        self._sees_own_pids = in_initial_pid_namespace() if sees_own_pids is None else sees_own_pids
        self._wall = wall
        self._windows = windows

    def watch(self, ids: Iterable[str]) -> None:
        """Read these devices from the next round on, and no others."""
        self._ids = tuple(ids)

    async def run(
        self, deliver: Callable[[Sampled], None], notice: Callable[[Seen], None] = lambda noticed: None
    ) -> None:
        """Call `deliver` with every reading and loss, and `notice` with devices that answer again or have changed.

        Both are called on the event loop's thread. Returns at once if there is neither a GPU nor an inventory.
        """
        if not self._ids and self._inventory is None:
            return
        stop = threading.Event()
        loop = asyncio.get_running_loop()

        def pass_on(event: Sampled | Seen) -> None:
            if stop.is_set():
                return
            if isinstance(event, Answers | Discovery):
                notice(event)
            else:
                deliver(event)

        def post(event: Sampled | Seen) -> None:
            # the loop may have been closed while a call was blocked
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pass_on, event)

        # A daemon thread: a blocked call must not keep the process from ending.
        threading.Thread(target=self._sample, args=(stop, post), name="nvml", daemon=True).start()
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    def _sample(self, stop: threading.Event, post: Callable[[Sampled | Seen], None]) -> None:
        reader: Reader | None = None
        ids: tuple[str, ...] = ()
        due: dict[str, float] = {}
        watch_due = 0.0
        lost: set[str] = set()
        answered_at = time.monotonic()
        while not stop.is_set():
            began = time.monotonic()
            silent = began - answered_at >= self._retry_s
            if silent or ids != self._ids or (self._inventory is not None and self._inventory.changed_for_linux()):
                # The devices may have changed since NVML was started.
                if reader is not None:
                    reader.close()
                reader, ids, answered_at = None, self._ids, began
                due = {device_id: due.get(device_id, 0.0) for device_id in ids}
            if self._inventory is not None and (news := self._inventory.news()) is not None:
                post(news)
            if reader is None:
                if ids:
                    with contextlib.suppress(Unreadable):
                        reader = Reader(
                            ids, slow_s=self._slow_s, sees_own_pids=self._sees_own_pids, windows=self._windows
                        )
            elif not reader.has_events and watch_due <= began:
                reader.watch()
                watch_due = self._due_again(began)
            for device_id in ids if reader is not None else ():
                if due[device_id] <= began and not stop.is_set():
                    assert reader is not None
                    asked_at = time.monotonic()
                    if self._read(reader, device_id, lost, post):
                        answered_at = time.monotonic()
                    due[device_id] = self._due_again(asked_at)
            self._pause(began + self._interval_s, reader, stop, post)
        if reader is not None:
            reader.close()

    def _read(self, reader: Reader, device_id: str, lost: set[str], post: Callable[[Sampled | Seen], None]) -> bool:
        """Read a device and post the outcome; return whether it answered. `lost` are the devices that are gone."""
        try:
            reading = reader.read(device_id, self._wall())
        except Corrupt as corrupt:
            post(DeviceLost(device_id=device_id, reason=str(corrupt)))
        except Gone as gone:
            if device_id not in lost:
                post(DeviceLost(device_id=device_id, reason=str(gone)))
            lost.add(device_id)
        except Unreadable:
            pass
        else:
            post(DeviceRead(reading=reading))
            if device_id in lost:
                lost.remove(device_id)
                post(Answers(device_id))
            return True
        return False

    def _due_again(self, asked_at: float) -> float:
        """The instant to repeat a question that was asked at `asked_at` and answered now; later if that was slow."""
        took = time.monotonic() - asked_at
        return time.monotonic() + _PATIENCE * took if took > self._slow_s else 0.0

    def _pause(
        self,
        until: float,
        reader: Reader | None,
        stop: threading.Event,
        post: Callable[[Sampled | Seen], None],
    ) -> None:
        """Wait for the next round, and meanwhile for events of the driver if it has any."""

        while (left := until - time.monotonic()) > 0 and not stop.is_set():
            if reader is None or not reader.has_events:
                stop.wait(left)
            else:
                for device_id, reason in reader.wait(min(left, _WAIT_S)):
                    post(DeviceLost(device_id=device_id, reason=reason))
