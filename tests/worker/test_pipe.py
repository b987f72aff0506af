"""Lines that a window process may write to its pipe, and others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched.core.model import WindowResult
from gpusched.worker.messages import PROGRESS_BURST, PipeMessage, Progress, Started
from gpusched.worker.stream import MAX_PHASE_CHARS
from tests.worker.support import Fifo, bench


@pytest.mark.parametrize(
    ("name", "violation"),
    [
        ("writes_garbage", r"it sent something that is not a message: b'\x00\xff garbage'"),
        ("writes_unknown_message", """it sent something that is not a message: b'{"type":"victory"}'"""),
        ("writes_long_line", f"it sent a line of more than 4194304 bytes: b'{'y' * 200}'"),
        (
            "writes_endless_progress",
            """it floods the supervisor with progress: b'{"type":"progress","phase":"train","round":1,"rounds":2}'""",
        ),
        ("writes_half_a_line", """its last line does not end: b'{"type":"progr'"""),
    ],
)
async def test_a_violation_fails_that_window_only(tmp_path: Path, name: str, violation: str) -> None:
    async with bench(tmp_path) as b:
        end = await b.run(name)
        assert end.violation == violation
        assert isinstance(b.messages[0], Started)
        # Lines before the violation were delivered, none after it.
        assert len(b.messages) < 2 * PROGRESS_BURST
        assert not any(isinstance(message, WindowResult) for message in b.messages)

        assert (await b.run("nothing")).exit_code == 0


async def test_an_abuser_is_killed(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await b.run("writes_endless_progress")).signal == signal.SIGKILL


@pytest.mark.parametrize(
    ("what", "seen"),
    [("array", Progress(phase="train", round=3, rounds=10)), ("text", Progress(phase="?" * MAX_PHASE_CHARS))],
)
async def test_whatever_is_reported_fails_no_window(
    tmp_path: Path, fifo: Callable[[str], Fifo], what: str, seen: Progress
) -> None:
    back = fifo("back")
    async with bench(tmp_path) as b:
        process = await b.fork("reports_anything", what, back=back.path)
        reported: list[PipeMessage] = []

        def hear(message: PipeMessage) -> None:
            reported.append(message)
            if isinstance(message, Progress):
                back.answer()

        assert (await process.wait(hear)).exit_code == 0
        assert seen in reported


async def test_a_thread_may_report(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await b.run("reports_in_a_thread")).exit_code == 0, b.last
        assert isinstance(b.last, WindowResult)


async def test_many_reports_become_few_messages(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        began = time.monotonic()
        await b.run("many_rounds")
        seconds = time.monotonic() - began

    assert isinstance(b.last, WindowResult)
    progress = [message for message in b.messages if isinstance(message, Progress)]
    assert len(progress) <= 1 + 5 * seconds
    assert [message.round for message in progress] == sorted(message.round for message in progress)


async def test_a_phase_that_lasts_is_reported_without_another_call(tmp_path: Path, fifo: Callable[[str], Fifo]) -> None:
    back = fifo("back")
    async with bench(tmp_path) as b:
        process = await b.fork("lasting_phase", back=back.path)

        def on_message(message: object) -> None:
            if isinstance(message, Progress):
                assert message == Progress(phase="train", round=1, rounds=2)
                back.answer()

        assert (await process.wait(on_message)).exit_code == 0
