"""Whoever waits for a batch hears when every window that is left of it is held."""

from __future__ import annotations

from gpusched.cli.standstill import Standstill
from gpusched.core.events import ChangeRequested
from gpusched.core.statuses import WindowVerb
from tests.client.support import Onlooker
from tests.core.support import batch, gpu, label


def test_it_is_said_when_all_is_held_that_is_left_and_again_after_a_release() -> None:
    onlooker, said = Onlooker(gpu(0, capacity=1)), list[str]()
    standstill = Standstill(onlooker.view, said.append)

    def change(verb: WindowVerb) -> None:
        for symbol in "BC":
            onlooker.send(ChangeRequested(verb=verb, batch_id="b", label=label(symbol)))
            standstill.look()

    onlooker.submit(batch(), ["A", "B", "C"])
    change("hold")
    assert said == [], "one is running"
    onlooker.train("A")
    standstill.look()
    standstill.look()
    assert said == ["all 2 windows that are left; `gpusched release b` lets it go on"]
    change("release")
    change("hold")
    assert len(said) == 1, "B runs"
    onlooker.train("B")
    standstill.look()
    assert said[1:] == ["the window that is left; `gpusched release b` lets it go on"]
