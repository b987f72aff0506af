"""What a run tells people beside the progress of its windows, and the wait for the first readings of its GPUs."""

from __future__ import annotations

import anyio

from gpusched.core.events import DeviceLost, DeviceRead, DeviceTuned
from gpusched.core.model import Reading
from gpusched.supervisor.followers import News, Noted
from gpusched.supervisor.runtime import Runtime

#: seconds to wait for the first reading of every GPU: before it, no reading vetoes a GPU whose memory is full
FIRST_READING_S = 2.0


class Notes:
    """Notes that the number of slots changes, and that other processes use all memory."""

    def __init__(self, runtime: Runtime) -> None:
        self._scheduler = runtime.supervisor.scheduler
        self._followers = runtime.followers
        self._starved = False

    def follow(self, news: News) -> None:
        match news:
            case DeviceTuned(device_id=device_id, reason=reason):
                self._note(f"{device_id} uses {reason}")
            case DeviceRead() | DeviceLost():
                starved = self._scheduler.starved()
                if starved and not self._starved:
                    self._note(f"Waiting for memory that other processes use: {starved}")
                self._starved = bool(starved)

    def _note(self, text: str) -> None:
        self._followers.follow(Noted(text))


class FirstReadings:
    """The GPUs that have not been read yet."""

    def __init__(self, runtime: Runtime) -> None:
        self._unread = {gpu.id for gpu in runtime.fleet.untried}
        self._complete = anyio.Event()

    def follow(self, news: News) -> None:
        match news:
            case DeviceRead(reading=Reading(device_id=device_id)) | DeviceLost(device_id=device_id):
                self._unread.discard(device_id)
                if not self._unread:
                    self._complete.set()

    async def complete(self) -> None:
        """Wait until every GPU has been read or lost, or `FIRST_READING_S` are over."""
        if self._unread:
            with anyio.move_on_after(FIRST_READING_S):
                await self._complete.wait()
