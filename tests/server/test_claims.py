"""An output directory belongs to one supervisor at a time. Here the test's own process is another one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched import outputs
from gpusched.errors import InputError
from tests.end_to_end.support import Command
from tests.server.support import Daemon, finished

TRAINS = f"the process {os.getpid()} trains a batch into"


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[None]:
    lock = outputs.claim(output)
    try:
        yield
    finally:
        os.close(lock)


def test_what_is_asked_of_a_directory_that_another_trains_into(daemon: Daemon, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path)
    with daemon.connect() as connection, daemon.fifo() as release:
        spec = daemon.spec("FIFO", "BAD")
        with claimed(tmp_path), pytest.raises(InputError, match=TRAINS):
            connection.submit(spec, source="s", name="first", output_dir=alias)
        assert connection.submit(spec, source="s", name="first", output_dir=alias).how == "new"
        with pytest.raises(outputs.OutputInUse, match=f"the process {daemon.process.pid} trains"):
            outputs.claim(tmp_path)
        release()
        finished(daemon, "first")
        with claimed(tmp_path):
            with pytest.raises(InputError, match=TRAINS):
                connection.change("retry", "first")
            with pytest.raises(InputError, match=TRAINS):
                connection.forget("first", results=True)
            assert connection.batch("first").batch.state == "finished"
        assert connection.change("retry", "first").windows == 1
        finished(daemon, "first")
        assert connection.forget("first", results=True).results == 1
    with claimed(tmp_path):
        pass


def test_a_retry_keeps_out_of_another_batch_of_the_same_daemon(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.connect() as connection, daemon.fifo() as release:
        connection.submit(daemon.spec("BAD"), source="s", name="second", output_dir=tmp_path)
        finished(daemon, "second")
        connection.submit(daemon.spec("FIFO"), source="s", name="third", output_dir=tmp_path)
        with pytest.raises(InputError, match="the unfinished batch third writes to"):
            connection.change("retry", "second")
        release()
        finished(daemon, "third")


def test_a_directory_that_was_taken_while_the_daemon_was_away(service: Daemon, tmp_path: Path) -> None:
    """Its batch is held and says why, until it is released."""
    output = tmp_path / "out"
    service.start()
    with service.fifo() as release:
        with service.connect() as connection:
            connection.submit(service.spec("FIFO", windows=2), source="s", name="batch", output_dir=output)
        service.kill()
        with claimed(output):
            service.start()
            with service.connect() as connection:
                batch = connection.batch("batch").batch
                assert (batch.state, batch.held_reason) == ("held", f"{TRAINS} {output}")
                assert batch.counts == {"queued": 2}
                with pytest.raises(InputError, match=TRAINS):
                    connection.change("release", "batch")
        with service.connect() as connection:
            connection.change("release", "batch")
        release()
        release()
        assert finished(service, "batch").counts == {"succeeded": 2}
    service.stop()


def test_a_run_keeps_out_of_the_directory_of_another_supervisor(tmp_path: Path) -> None:
    gpusched = Command(tmp_path)
    (tmp_path / "data").mkdir()
    asked = ("run", "--symbols", "A", "--start", "2020-01-01", "--end", "2020-12-31", "-o", "out")
    with claimed(tmp_path / "out"):
        _, said = gpusched.said(*asked, code=4)
    assert f"{TRAINS} {tmp_path / 'out'}\nhint: wait until that batch is finished, or give this one another" in said


def test_a_run_whose_directory_cannot_be_made(tmp_path: Path) -> None:
    gpusched = Command(tmp_path)
    (tmp_path / "data").mkdir()
    asked = ("run", "--symbols", "A", "--start", "2020-01-01", "--end", "2020-12-31", "-o", "/proc/out")
    _, said = gpusched.said(*asked, "--set", f"run.state_dir={tmp_path / 'state'}", code=4)
    assert "cannot write to the output directory /proc/out: No such file or directory" in said
