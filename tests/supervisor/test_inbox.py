"""Events that wait for a turn of the supervisor."""

from __future__ import annotations

import math
import time

import anyio
import pytest

from gpusched.core.events import DrainRequested, TimePassed
from gpusched.supervisor import inbox as module
from gpusched.supervisor.inbox import Inbox
from tests.waiting import PATIENCE_S

FIRST, SECOND = DrainRequested(device_id="GPU-0"), TimePassed()


async def test_an_event_that_can_wait_is_handled_with_the_next_one_and_keeps_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", math.inf)
    inbox = Inbox(lambda: True)
    inbox.post_later(FIRST)
    with anyio.move_on_after(0):
        await inbox.turn(None)
        raise AssertionError("nobody asked for a turn")
    between = time.monotonic()
    inbox.post(SECOND)
    with anyio.fail_after(PATIENCE_S):
        await inbox.turn(None)
    (first, then), (second, later) = inbox.take()
    assert (first, second) == (FIRST, SECOND)
    assert then.monotonic <= between <= later.monotonic


async def test_an_event_that_can_wait_does_not_wait_for_ever() -> None:
    inbox = Inbox(lambda: True)
    inbox.post_later(FIRST)
    with anyio.fail_after(PATIENCE_S):
        await inbox.turn(None)
    assert [event for event, _ in inbox.take()] == [FIRST]


async def test_a_turn_comes_at_its_deadline() -> None:
    with anyio.fail_after(PATIENCE_S):
        await Inbox(lambda: True).turn(time.monotonic() - 1)


async def test_events_that_are_added_during_a_turn_need_no_further_one() -> None:
    inbox = Inbox(lambda: True)
    inbox.post(FIRST)
    await inbox.turn(None)
    taken = []
    for event, _ in inbox.take():
        taken.append(event)
        if event is FIRST:
            inbox.post(SECOND)
    assert taken == [FIRST, SECOND]
    with anyio.move_on_after(0):
        await inbox.turn(None)
        raise AssertionError("nobody asked for a turn")
