"""Commits of results that came together: each has its own result or error, whether anybody waits for it or not."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from gpusched.core.model import WindowResult
from gpusched.engines.ray.commits import AT_ONCE, WORTH, Commits
from tests.core.support import RESULT

pytestmark = pytest.mark.anyio


async def test_those_that_come_together_share_a_thread() -> None:
    threads: set[int] = set()

    def commit() -> WindowResult:
        threads.add(threading.get_ident())
        return RESULT

    commits = Commits()
    assert await asyncio.gather(*(commits.made(commit) for _ in range(WORTH))) == [RESULT] * WORTH
    assert len(threads) == 1
    assert await asyncio.gather(*(commits.made(commit) for _ in range(100))) == [RESULT] * 100
    assert len(threads) <= AT_ONCE + 1


async def test_an_error_is_that_of_its_own_result() -> None:
    def fails() -> WindowResult:
        raise OSError(28, "no room")

    commits = Commits()
    first, second = await asyncio.gather(
        commits.made(fails), commits.made(lambda: RESULT), return_exceptions=True
    )  # fmt: skip
    assert (str(first), second) == ("[Errno 28] no room", RESULT)


async def test_one_that_nobody_waits_for_any_more_is_made_all_the_same() -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> WindowResult:
        begun.set()
        go.wait()
        return RESULT

    commits = Commits()
    left = asyncio.create_task(commits.made(slow))
    other = asyncio.create_task(commits.made(lambda: RESULT))
    await anyio.to_thread.run_sync(begun.wait)
    left.cancel()
    go.set()
    assert await other == RESULT
    assert left.cancelled()
