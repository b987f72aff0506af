"""A log keeps its head and its tail, whoever writes it, and the cut is marked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpusched.engines.local import logs
from gpusched.engines.local.launcher import Confines
from gpusched.engines.local.logs import Logs
from tests.worker.support import Fifo, bench

LIMIT = 100_000


def write(descriptor: int, first: int, last: int) -> None:
    os.write(descriptor, b"".join(b"line %8d\n" % number for number in range(first, last)))


def lines(path: Path) -> list[int]:
    """The numbers of the lines, 0 for the mark of a cut."""
    found = []
    for line in filter(None, path.read_text().split("\n")):
        number = re.fullmatch(r"line +(\d+)", line)
        assert number or line.startswith("[gpusched: "), line
        found.append(int(number[1]) if number else 0)
    return found


async def test_head_and_tail_are_kept_and_the_cut_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    kept = Logs()
    descriptor = kept.open(path, LIMIT)
    log = kept._open[path]
    for round_ in range(20):
        write(descriptor, 1 + round_ * 2000, 1 + (round_ + 1) * 2000)
        log.trim()
        assert path.stat().st_size <= LIMIT
    left_out = kept.close(path)
    found = lines(path)
    cut = found.index(0)
    assert found[:cut] == list(range(1, cut + 1))
    assert found[cut + 1 :] == list(range(found[cut + 1], 40_001))
    assert cut * 14 > 0.4 * LIMIT
    assert (len(found) - cut) * 14 > 0.2 * LIMIT
    assert f"{left_out:,} bytes are left out" in path.read_text()
    assert left_out == (40_000 - (len(found) - 1)) * 14
    os.close(descriptor)


async def test_the_last_words_are_kept_though_they_come_at_the_end_of_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    kept = Logs()
    descriptor = kept.open(path, LIMIT)
    write(descriptor, 1, 20_000)
    last_words = iter([b"line    20000\n"])

    def pread(source: int, count: int, position: int) -> bytes:
        """Read; while this thread waits for its turn after the last piece, the process says its last words."""
        piece = read(source, count, position)
        if not piece:
            os.write(descriptor, next(last_words, b""))
        return piece

    read = os.pread
    monkeypatch.setattr(os, "pread", pread)
    kept._open[path].trim()
    os.write(descriptor, next(last_words, b""))
    assert lines(path)[-1] == 20_000
    assert kept.close(path) == (20_000 - (len(lines(path)) - 1)) * 14
    os.close(descriptor)


async def test_one_who_follows_misses_nothing_but_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    kept = Logs()
    descriptor = kept.open(path, LIMIT)
    offset, seen = 0, ""

    def read_on() -> None:
        nonlocal offset, seen
        while True:
            position, most, offset = kept.find(path, offset)
            piece = path.read_bytes()[position : position + min(most, 1000)]
            if not piece:
                return
            seen += piece.decode()
            offset += len(piece)

    write(descriptor, 1, 5000)
    read_on()
    for first in (5000, 10_000, 15_000):
        write(descriptor, first, first + 5000)
        kept._open[path].trim()
        write(descriptor, first + 5000 - 1, first + 5000)  # the last line once more
        read_on()
    kept.close(path)
    write(descriptor, 20_000, 20_002)
    read_on()
    numbers = [int(n) for n in re.findall(r"line +(\d+)", seen)]
    assert numbers[:4999] == list(range(1, 5000))
    assert numbers[-3:] == [19_999, 20_000, 20_001]
    assert seen.count("[gpusched:") == 3
    assert numbers == sorted(numbers)
    os.close(descriptor)


async def test_one_without_an_end_of_line_and_one_that_may_grow(tmp_path: Path) -> None:
    kept = Logs()
    for limit, size in ((LIMIT, 0.75 * LIMIT), (0, 3 * LIMIT)):
        path = tmp_path / str(limit)
        descriptor = kept.open(path, limit)
        os.write(descriptor, b"x" * (3 * LIMIT))
        kept.close(path)
        assert abs(path.stat().st_size - size) < 200
        os.close(descriptor)


async def test_output_that_is_faster_than_the_copy_keeps_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Logs()
    path = tmp_path / "log"
    descriptor = kept.open(path, LIMIT)
    write(descriptor, 1, 20_000)
    bursts = iter((20_000, 40_000, 60_000))
    read = os.pread

    def pread(source: int, count: int, position: int) -> bytes:
        """Read, while the writer goes on with more than the limit."""
        piece = read(source, count, position)
        if count == 1 << 20 and (first := next(bursts, None)) is not None:
            write(descriptor, first, first + 20_000)
        return piece

    monkeypatch.setattr(os, "pread", pread)
    kept._open[path].trim()
    monkeypatch.undo()
    numbers = [int(n) for n in re.findall(r"line +(\d+)", path.read_text())]
    assert numbers[:3] == [1, 2, 3]
    assert numbers[-1] == 79_999
    assert numbers == sorted(numbers)
    assert path.stat().st_size <= LIMIT
    kept.close(path)
    os.close(descriptor)


async def test_one_that_was_removed_is_nobodys_problem(tmp_path: Path) -> None:
    kept = Logs()
    descriptor = kept.open(tmp_path / "log", 10)
    (tmp_path / "log").unlink()
    os.write(descriptor, b"x" * 100)
    assert kept.close(tmp_path / "log") == 0
    os.close(descriptor)


async def test_what_a_windows_programs_write_is_cut_while_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fifo: Callable[[str], Fifo]
) -> None:
    monkeypatch.setattr(logs, "LOOK_S", 0.01)
    said, back = fifo("said"), fifo("back")
    cut = anyio.Event()

    def trimmed(self: Logs, done: object) -> None:
        look_again(self, done)  # type: ignore[arg-type]
        cut.set()

    look_again = Logs._trimmed
    monkeypatch.setattr(Logs, "_trimmed", trimmed)
    async with bench(tmp_path) as b:
        job = b.job("floods_its_log", fifo=said.path, back=back.path)
        process = await b.launcher.fork(job, Confines(log_path=b.log, env={}, log_limit_bytes=LIMIT))
        await said.number()
        while b.log.stat().st_size > LIMIT:
            cut = anyio.Event()
            await cut.wait()
        back.answer()
        end = await process.wait(b.messages.append)
        assert end.exit_code == 0
        assert end.log_left_out_bytes > 4_000_000
    text = b.log.read_text()
    assert len(text) <= LIMIT
    assert text.startswith("the first line\n1\n2\n")
    assert text.endswith("\n700000\nthe last line\n")
    assert "bytes are left out here, see run.log_limit_mb]" in text


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_another_entry_in_the_place_of_a_log_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "log"
    make(path)
    assert logs.end_of_log(path).startswith("([Errno ")
    with pytest.raises(OSError, match="log"):
        logs.open_log(path)
