"""Messages to systemd, as in sd_notify(3): a datagram of assignments to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Self


class Notifier:
    """Sends messages to the service manager, if there is one. Errors of sending are ignored."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        #: seconds within which the manager expects the next message of the watchdog; None: it expects none
        self.watchdog_s = watchdog_s if address else None
        self._address = address
        self._status = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """The notifier for this process's manager. Removes its variables, which are not meant for child processes."""
        address = environment.pop("NOTIFY_SOCKET", None)
        watchdog = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        watched = watchdog.isdigit() and int(watchdog) > 0 and pid == str(os.getpid())
        if address and address.startswith("@"):
            address = "\0" + address[1:]
        return cls(address or None, watchdog_s=int(watchdog) / 1e6 if watched else None)

    def ready(self, status: str) -> None:
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Send one line for `systemctl status`, if it differs from the last."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to start or stop: the next message will follow within `seconds`."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send(self, *assignments: str) -> None:
        if self._socket is not None and self._address is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(assignments).encode(), self._address)
