"""Names and requests that the stories of the scheduler share."""

from __future__ import annotations

from gpusched.core.commands import Launch
from gpusched.core.events import ChangeRequested
from gpusched.core.model import Limits
from tests.core.support import Driver, key

ONCE = Limits(max_attempts=1, breaker_failures=0)
A, B, C = (key(symbol) for symbol in "ABC")
RETRY = ChangeRequested(verb="retry", batch_id="b")
CANCEL = ChangeRequested(verb="cancel", batch_id="b")
HOLD = ChangeRequested(verb="hold", batch_id="b")
RELEASE = ChangeRequested(verb="release", batch_id="b")


def names(count: int) -> list[str]:
    return [f"W{n:02}" for n in range(count)]


def drain(driver: Driver) -> list[str]:
    """Let one window after another succeed; the symbols in the order of their launches after this one."""
    order: list[str] = []
    while driver.launched:
        order += driver.launched
        (launch,) = driver.commands
        assert isinstance(launch, Launch)
        driver.end(launch.key, launch.attempt)
    return order
