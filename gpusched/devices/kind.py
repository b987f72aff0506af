"""Kinds of device: the one place that says what a kind has to do.

There are two: `gpusched.devices.nvidia.gpus.Gpus` and `gpusched.devices.host.Processors`. A third is another
implementation in a module of its own, with its name in `gpusched.core.model.DeviceKind`, a line in
`gpusched.engines.local.engine`, and its place in the pool in `gpusched.devices.slots`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from gpusched.core.events import DeviceLost, DeviceRead, HostRead
from gpusched.core.model import Device


class Note(msgspec.Struct, frozen=True):
    """A sentence for people about devices that are missing or limited, and the remedy; empty: there is none."""

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    @property
    def sentence(self) -> str:
        """The note on a line of its own, which begins with a capital unless it begins with the name of a thing."""
        text = str(self)
        return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of a kind that may be used, and notes on those that are missing or limited."""

    devices: tuple[Device, ...]
    notes: tuple[Note, ...]
    #: version of the NVIDIA driver; None if it does not answer
    driver: str | None = None
    #: every card has answered: a device that is not among `devices` cannot be used, or does not exist
    complete: bool = False
    #: if it is not `complete`: the PCI bus ids of the cards that have answered, for whose devices the same holds
    answered: frozenset[str] = frozenset()


class Accounted(msgspec.Struct, frozen=True):
    """A process's use of a GPU; None: not known."""

    #: peak memory
    memory_bytes: int | None = None
    #: time during which its kernels were executing
    seconds: float | None = None


UNKNOWN = Accounted()


class Answers(msgspec.Struct, frozen=True):
    """A device that was lost answers again: it has been reset."""

    device_id: str


#: readings and losses, for the scheduler
Reported = DeviceRead | DeviceLost | HostRead
#: devices that come, go or answer again
Seen = Answers | Discovery


class Kind(Protocol):
    """A kind of device on this machine. All of it is called in the event loop's thread."""

    def environment(self, device: Device) -> dict[str, str | None]:
        """The environment variables that make `device` the only one that a process sees; None: not set."""

    def watch(self, devices: Iterable[Device]) -> None:
        """Read these devices from now on, and account for processes on them."""

    async def run(self, post: Callable[[Reported], None], notice: Callable[[Seen], None]) -> None:
        """Post readings and losses, and notice devices that come, go or answer again, until cancelled."""

    def counts(self, device: Device) -> bool:
        """Whether the driver of a device counts its use by processes."""

    async def account(self, device: Device, pid: int) -> Accounted:
        """The use of a device by a process that has ended; `UNKNOWN` if nobody counts it. Never raises."""

    def close(self) -> None:
        """Ask nothing of the devices any more."""
