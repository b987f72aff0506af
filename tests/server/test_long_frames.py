"""Frames above 64 KiB: they take places of their user, so that they cannot fill the daemon's memory."""

from __future__ import annotations

import contextlib
import json
import resource
from pathlib import Path

from gpusched.protocol import MAX_REQUEST_BYTES
from gpusched.service import clients
from tests.server.support import Daemon, frame, read_frame, read_to_end


def test_connections_that_stop_amid_long_frames_do_not_fill_the_memory(daemon: Daemon) -> None:
    """A user's hundred connections, each short of its newline, kept 800 MB of the daemon's memory."""
    before = resident_bytes(daemon)
    with contextlib.ExitStack() as open_links:
        for _ in range(40):
            link = open_links.enter_context(daemon.greeted())
            link.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                link.sendall(b" " * (MAX_REQUEST_BYTES - 1024))
        assert resident_bytes(daemon) - before < (clients.MAX_LARGE + 8) * MAX_REQUEST_BYTES
        with daemon.connect() as another:
            assert another.ping().trouble is None


def test_long_frames_take_turns_until_they_are_answered(service: Daemon) -> None:
    service.start(MAX_LARGE=1, FRAME_S=0.2)
    with service.greeted() as stopped, service.greeted() as waiting:
        stopped.sendall(b" " * clients.SMALL_BYTES * 4)
        waiting.sendall(b" " * clients.SMALL_BYTES * 4 + frame(type="ping"))
        assert "did not come within" in str(json.loads(read_to_end(stopped))["problem"])
        assert read_frame(waiting)["type"] == "pong"
    assert service.stop() == 0


def test_a_long_request_among_too_many_is_refused(service: Daemon) -> None:
    service.start(MAX_LARGE=1, PLACE_S=0.2)
    long = b" " * clients.SMALL_BYTES * 4
    with service.greeted() as follower, service.greeted() as refused:
        follower.sendall(long + frame(type="subscribe"))
        read_frame(follower)
        refused.sendall(long)
        assert "not answered yet" in str(json.loads(read_to_end(refused))["problem"])
        refused.close()
    assert service.stop() == 0


def resident_bytes(daemon: Daemon) -> int:
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
