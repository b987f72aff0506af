"""Streams that are lost: the writer goes on, and knows."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from gpusched.client.drawing.terminal import RunScreen, open_console
from gpusched.client.views.batch import BatchView
from gpusched.service.journal import _Handler
from gpusched.streams import expendable, lost, takes_more, when_gone
from tests.waiting import PATIENCE_S


@contextlib.contextmanager
def piped() -> Iterator[int]:
    """A pipe is stdout; its end to read from. No fixture, since pytest captures anew for the test itself."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, contextlib.redirect_stdout(stream):
        yield reading
    with contextlib.suppress(OSError):
        os.close(reading)


def test_who_reads_gets_everything_in_order() -> None:
    with piped() as stdout:
        sys.stdout.write("before, ")
        with expendable("stdout"):
            sys.stdout.write("during, ")
            assert lost(sys.stdout) is None
        print("after", flush=True)
        assert os.read(stdout, 100) == b"before, during, after\n"


def test_a_reader_who_left_is_told_nothing_more() -> None:
    with piped() as stdout:
        os.close(stdout)
        with expendable("stdout"):
            for _ in range(3):
                print("x" * 100_000, flush=True)
            why = lost(sys.stdout)
        assert why is not None
        assert why.errno == errno.EPIPE
        sys.stdout.flush()


def test_a_full_disk_is_told_apart() -> None:
    with Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full), expendable("stdout"):
        print("something", flush=True)
        why = lost(sys.stdout)
    assert why is not None
    assert why.errno == errno.ENOSPC


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    """Another program of the pipeline may have set that, for all who share it."""
    with piped() as stdout:
        os.set_blocking(sys.stdout.fileno(), False)
        received = bytearray()

        def read() -> None:
            while len(received) < 500_001:
                received.extend(os.read(stdout, 65536))

        reader = threading.Thread(target=read)
        with expendable("stdout"):
            reader.start()
            print("x" * 500_000, flush=True)
        reader.join()
        assert received == b"x" * 500_000 + b"\n"


def test_a_screen_does_not_wait_for_a_reader_who_pauses() -> None:
    """`gpusched run … | less`: the pipe fills, the windows go on, and every line is there in the end."""
    with piped() as stdout:
        received = bytearray()

        def read() -> None:
            while data := os.read(stdout, 65536):
                received.extend(data)

        reader = threading.Thread(target=read)
        with expendable("stdout"), RunScreen(open_console(), BatchView()) as screen:
            for number in range(2000):
                screen.note(f"{number:5} {'x' * 95}")
            assert not takes_more(sys.stdout)
            reader.start()
        sys.stdout.close()
        reader.join()
        assert [int(line.split()[0]) for line in received.splitlines()] == list(range(2000))


def test_who_waits_learns_that_the_reader_has_left() -> None:
    with piped() as stdout:
        gone = threading.Event()
        when_gone(sys.stdout, gone.set)
        assert not gone.is_set()
        os.close(stdout)
        assert gone.wait(PATIENCE_S)


def test_a_log_does_not_wait_for_its_reader() -> None:
    """`gpusched daemon 2>&1 | less`: the loop that watches over windows is the one that writes the log."""
    with piped() as reading:
        handler = _Handler(sys.stdout)
        for number in range(3000):
            handler.emit(logging.makeLogRecord({"msg": f"{number:5} {'x' * 95}"}))
        assert not takes_more(sys.stdout)
        received = bytearray()
        while len(received.splitlines()) < 3001:
            received += os.read(reading, 65536)
            handler.emit(logging.makeLogRecord({"msg": " 3000 the last"}))
    numbers = [int(line.split()[0]) for line in received.splitlines()[:3001]]
    assert numbers == list(range(3001))
