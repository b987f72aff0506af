"""Where the host's memory is short, the kernel kills: no window is lost to that."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.hungry import PIPES
from tests.end_to_end.support import Command

WINDOWS = 8
LIMIT_BYTES = 260 << 20
GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of its own with little memory, of whichever version there is here."""
    name = f"gpusched-test-{os.getpid()}"
    v1 = GROUPS / "memory"
    directory, limit = (v1 / name, "memory.limit_in_bytes") if v1.is_dir() else (GROUPS / name, "memory.max")
    try:
        directory.mkdir()
        (directory / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        with contextlib.suppress(OSError):
            directory.rmdir()
        pytest.skip(f"no control group with a limit on memory can be made here: {error}")
    yield directory
    directory.rmdir()


def test_windows_that_fit_one_by_one_all_succeed(tmp_path: Path, group: Path) -> None:
    """8 of 150 MiB in 260, two at a time: the kernel kills one of the first two, and nothing more goes wrong."""
    symbols = [f"S{number}" for number in range(WINDOWS)]
    (tmp_path / "symbols.txt").write_text("\n".join(symbols))
    for symbol in symbols:
        (tmp_path / "data" / symbol).mkdir(parents=True)
    for pipe in PIPES:
        os.mkfifo(tmp_path / "data" / pipe)
    gpusched = Command(tmp_path)
    gpusched.prefix = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    dates = ("--start", "2022-01-01", "--end", "2022-01-10")
    limits = ("--workers", "2", "--set", "run.max_attempts=1", "--set", "run.workload=tests.end_to_end.hungry:window")
    ended = gpusched.json("run", "symbols.txt", *dates, "--data-root", "data", "-o", "out", *limits)
    assert ended["windows"]["succeeded"] == WINDOWS
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / ".gpusched" / "state.db")) as store:
        told = [reason for (reason,) in store.execute("SELECT reason FROM story WHERE new = 'queued'")]
        (learned,) = store.execute("SELECT host_memory_max FROM learned").fetchone()
    killed = re.compile(r"out of host memory: the kernel killed the process; next (with \d+ MiB set aside|alone)")
    assert told
    assert all(killed.fullmatch(reason) for reason in told)
    assert 150 << 20 <= learned < 200 << 20
