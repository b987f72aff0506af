"""Processes by pidfds, and by their numbers where the kernel has none: the same is seen of both."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpusched import handles
from gpusched.handles import Handle, exit_of

#: more milliseconds than a process takes to exit
PATIENCE_MS = 60_000


@pytest.fixture(params=[True, False], ids=["with pidfds", "without"])
def _pidfds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert handles.are_there(), "these tests are for a kernel that has them"
    monkeypatch.setattr(handles, "are_there", lambda: request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group of its own and waits."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    yield process
    process.kill()
    process.communicate()


def exited(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(PATIENCE_MS))
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("_pidfds")
@pytest.mark.parametrize("group", [False, True])
def test_it_is_signalled_and_its_end_is_seen(child: subprocess.Popen[bytes], group: bool) -> None:
    ends = exit_of(child.pid)
    with Handle(child.pid) as held:
        (held.signal_group if group else held.signal)(signal.SIGKILL)
    assert exited(ends)
    assert child.wait() == -signal.SIGKILL, "it was left to be reaped"


@pytest.mark.usefixtures("_pidfds")
def test_one_that_is_gone(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        Handle(child.pid)


@pytest.mark.usefixtures("_pidfds")
def test_one_that_leads_no_group() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with Handle(process.pid) as held, pytest.raises(ProcessLookupError):
            held.signal_group(signal.SIGKILL)
        with Handle(process.pid) as held:
            held.signal(signal.SIGKILL)


def test_a_kernel_that_refuses_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert not handles.are_there.__wrapped__()
