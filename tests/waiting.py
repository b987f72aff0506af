"""How long tests wait, and waiting for something that tells nobody when it changes: a log, processes, a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: seconds until a test that waits in vain fails: many times as long as on a machine with a load of 20
PATIENCE_S = 120.0
#: seconds between two looks
PAUSE_S = 0.05


def until(condition: Callable[[], T], *, patience_s: float, said: Callable[[], str] = str) -> T:
    """The first true answer. An AssertionError with the text of `said` if there is none for `patience_s` seconds."""
    ends = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < ends, said()
        time.sleep(PAUSE_S)
    return answer
