"""Attendants: they hear of a process. An attempt is one, and needs no task; `Awaited` is one for a task that waits."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import anyio

from gpusched.engines.local.groups import KILL_GRACE_S
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage

OnMessage = Callable[[PipeMessage], None]
OnStuck = Callable[[str], None]


class Signalled(Protocol):
    """A process that can be signalled."""

    @property
    def pid(self) -> int:
        """Its number on the machine on which it runs."""

    def signal(self, signum: int) -> None:
        """Signal the whole process group; nothing happens if the process has ended."""


P = TypeVar("P", bound=Signalled)
E = TypeVar("E")
P_contra = TypeVar("P_contra", bound=Signalled, contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)


class Attendant(Protocol[P_contra, E_contra]):
    """Hears of a process in the event loop's thread: that it was refused, or that it started, and all else after that.

    No method may raise.
    """

    def refused(self, error: LaunchError | OSError) -> None:
        """There is no process, and nothing more will be heard."""

    def started(self, process: P_contra) -> None: ...

    def heard(self, message: PipeMessage) -> None: ...

    def stuck(self, trouble: str) -> None:
        """Called once, with a phrase, if the process group does not die of a SIGKILL."""

    def ended(self, end: E_contra) -> None:
        """The whole group is gone, and every message of it has been heard."""


class Awaited(Generic[P, E]):
    """An attendant for a task, which awaits `launched`, and then, if that did not raise, `wait`."""

    def __init__(self, on_stuck: Callable[[P, str], None] = lambda process, trouble: None) -> None:
        """`on_stuck` is called if the process is stuck and `wait` has no callback for it."""
        loop = asyncio.get_running_loop()
        #: the process, once it is `launched`
        self.process: P
        self._launched: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[E] = loop.create_future()
        self._unheard: list[PipeMessage] = []
        self._on_message: OnMessage = self._unheard.append
        self._on_stuck: OnStuck = lambda trouble: on_stuck(self.process, trouble)
        self._failure: BaseException | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, signum: int) -> None:
        """Signal the whole process group; nothing happens if the process has ended."""
        self.process.signal(signum)

    async def launched(self) -> Self:
        """Wait until the process exists. Raises LaunchError, OSError. Cancelling kills the process."""
        await self._launched
        return self

    async def wait(self, on_message: OnMessage, on_stuck: OnStuck | None = None) -> E:
        """Call `on_message` with each message until the process group is gone; return how it ended.

        `on_stuck` is called once, with a phrase, if the group does not die of a SIGKILL. An exception of `on_message`
        kills the process and is raised here. Cancelling kills the process, too, and waits until it is gone (at most
        `KILL_GRACE_S`).
        """
        self._on_message, self._on_stuck = on_message, on_stuck or self._on_stuck
        for message in self._unheard:
            self.heard(message)
        try:
            end = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.signal(signal.SIGKILL)
            with anyio.move_on_after(KILL_GRACE_S, shield=True):
                await asyncio.shield(self._ended)
            raise
        if self._failure is not None:
            raise self._failure
        return end

    # -- the attendant -------------------------------------------------------------------------------------------------

    def refused(self, error: LaunchError | OSError) -> None:
        if not self._launched.done():
            self._launched.set_exception(error)

    def started(self, process: P) -> None:
        self.process = process
        if self._launched.done():  # whoever waited has been cancelled: nobody will wait for this process
            process.signal(signal.SIGKILL)
        else:
            self._launched.set_result(None)

    def heard(self, message: PipeMessage) -> None:
        try:
            self._on_message(message)
        except BaseException as error:  # raised to the caller of wait(), which is where it belongs
            self._failure = self._failure or error
            self._on_message = lambda message: None
            self.signal(signal.SIGKILL)

    def stuck(self, trouble: str) -> None:
        self._on_stuck(trouble)

    def ended(self, end: E) -> None:
        self._ended.set_result(end)
