"""The HTTP server of the metrics: whoever connects, it holds few connections, and none for long.

Its port is open to every user of the machine, who must not take the daemon's descriptors and threads, nor fill its log.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections import deque
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

#: connections at a time; for a further one the oldest is closed
MOST_CONNECTIONS = 16
#: seconds that a reader may pause
_PATIENCE_S = 10.0


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """Serves a WSGI application with a thread for each connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, application: Callable[..., Any]) -> None:
        """Raises OSError, OverflowError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self._connections: deque[Any] = deque()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)  # type: ignore[arg-type]  # an address of IPv6 has four parts
        self.set_app(application)

    def get_request(self) -> Any:
        connection, address = super().get_request()
        connection.settimeout(_PATIENCE_S)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.append(request)
            oldest = self._connections.popleft() if len(self._connections) > MOST_CONNECTIONS else None
        if oldest is not None:
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the reader has left, or takes too long."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of a request."""

    def get_stderr(self) -> Any:
        """A place for the tracebacks of requests that the library cannot answer, which their senders get as 500."""
        return io.StringIO()
