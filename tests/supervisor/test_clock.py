"""A clock that jumps: durations are those that passed, and stamps are right again when nothing is at work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpusched import clock
from gpusched.clock import Clock
from gpusched.core.events import BatchFinished
from gpusched.core.states import Running
from tests.supervisor.support import make_batch, plan, supervised

DAYS_3 = 3 * 86400.0


class Times:
    """The system's clock, and the one that nobody sets."""

    def __init__(self) -> None:
        self.system, self.steady = 1_000_000.0, 50.0

    def pass_(self, seconds: float, *, jump: float = 0.0) -> None:
        self.steady += seconds
        self.system += seconds + jump

    def clock(self) -> Clock:
        return Clock(lambda: self.system, lambda: self.steady)


@pytest.mark.parametrize("jump", [DAYS_3, -DAYS_3])
def test_differences_are_durations_until_the_jump_is_taken_over(jump: float) -> None:
    times = Times()
    stamps = times.clock()
    began = stamps.wall()
    assert began == 1_000_000.0
    times.pass_(5, jump=jump)
    times.pass_(5)
    assert stamps.wall() - began == 10
    stamps.take_over()
    assert stamps.wall() == times.system
    times.pass_(1)
    assert stamps.wall() == times.system


def test_what_is_slewed_is_no_jump() -> None:
    times = Times()
    stamps = times.clock()
    times.pass_(5, jump=0.4)
    stamps.take_over()
    assert stamps.wall() == 1_000_005.0


async def test_a_jump_while_a_window_runs_is_in_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = time.time
    ahead = [0.0]
    jumping = Clock(lambda: system() + ahead[0], lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    monkeypatch.setattr(clock, "wall", jumping.wall)
    monkeypatch.setattr(clock, "take_over", jumping.take_over)
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(2))
        running = await bench.moved_to(Running)
        ahead[0] = DAYS_3
        await bench.finished()
        (ended,) = [update for update in bench.updates if isinstance(update, BatchFinished)]
        assert 0 <= ended.at - running.at < 60
        # The next batch is stamped with the time that it is.
        await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id="next"), plan(2))
        await bench.finished("next")
        later = [update.at for update in bench.updates if isinstance(update, BatchFinished)][-1]
        assert later - ended.at > DAYS_3 - 60
