"""The names of states and outcomes, their groups, and each verb in each status."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from gpusched.core import statuses
from gpusched.core.events import ChangeRequested
from gpusched.core.model import Limits
from gpusched.core.states import Active, Cancelled, Finished, Outcome, Queued, State
from gpusched.core.statuses import APPLIES_TO, PARTICIPLES, StateName, Verb, WindowVerb, applies, attempt_of, status_of
from tests.core.support import Driver, batch, failure, key, planned

A = key("A")
ONCE = batch(limits=Limits(max_attempts=1, breaker_failures=0, timeout_s=60.0))


def tags(union: object) -> tuple[str, ...]:
    return tuple(str(kind.__struct_config__.tag) for kind in get_args(union))


def test_the_names_are_the_tags_of_the_states_and_outcomes() -> None:
    assert tags(State) == get_args(StateName) == (*statuses.UNFINISHED, "finished")
    assert tags(Active) == statuses.ACTIVE
    assert tags(Outcome) == statuses.OUTCOMES
    assert (*statuses.UNFINISHED, *statuses.OUTCOMES) == statuses.STATUSES
    assert sorted(statuses.BY_URGENCY) == sorted(statuses.STATUSES)
    assert set(statuses.FAILURES) < set(statuses.OUTCOMES)


def test_each_verb_is_in_the_tables() -> None:
    assert set(APPLIES_TO) == set(get_args(Verb))
    assert set(PARTICIPLES) == set(get_args(WindowVerb)) == set(APPLIES_TO) - {"alter"}
    assert set(itertools.chain(*APPLIES_TO.values())) <= set(statuses.STATUSES)


def in_status(status: str) -> Driver:
    """A scheduler whose window `A` is in this status. Window `Z` keeps the batch open."""
    driver = Driver()
    plan = planned("A", skip="no data" if status == "skipped" else None, committed=status == "reused")
    rows = 1 if status in statuses.WAITING else 10**6  # the larger one goes first
    driver.submit(ONCE, [plan, planned("Z", rows=rows + 10**5 if status in statuses.WAITING else 1)])
    match status:
        case "held":
            driver.send(ChangeRequested(verb="hold", batch_id="b", label=A.label))
        case "running":
            driver.start(A)
        case "stopping" | "timed_out":
            driver.start(A).wait(61.0)
            if status == "timed_out":
                driver.end(A, ending=failure("killed"))
        case "succeeded":
            driver.start(A).end(A)
        case "failed":
            driver.start(A).end(A, ending=failure())
        case "cancelled":
            driver.start(A).send(ChangeRequested(verb="cancel", batch_id="b", label=A.label)).end(
                A, ending=failure("killed")
            )
        case "lost":
            driver.missing = (A.label,)
            driver.start(A).end(A).start(key("Z")).end(key("Z"))
        case _:
            pass
    return driver


@pytest.mark.parametrize("verb", get_args(WindowVerb))
@pytest.mark.parametrize("status", statuses.STATUSES)
def test_the_scheduler_changes_what_the_table_says(status: str, verb: WindowVerb) -> None:
    driver = in_status(status)
    before = driver.state(A)
    assert status_of(before) == status
    driver.send(ChangeRequested(verb=verb, batch_id="b", label=A.label))
    assert (driver.state(A) != before) == applies(verb, before) == (status in APPLIES_TO[verb])


def test_a_window_that_is_being_cancelled_is_not_cancelled_again() -> None:
    cancel = ChangeRequested(verb="cancel", batch_id="b", label=A.label)
    driver = in_status("running").send(cancel)
    before = driver.state(A)
    assert driver.send(cancel).state(A) is before


def test_the_attempt_of_a_state() -> None:
    assert attempt_of(Queued(attempt=2)) == 2
    assert attempt_of(Finished(attempts=3, outcome=Cancelled())) == 3


def test_numbers_by_status() -> None:
    counts = {"queued": 1, "succeeded": 2, "failed": 3, "lost": 4}
    assert statuses.tally(counts, statuses.FAILURES) == 7
    assert statuses.tally({}, statuses.FAILURES) == 0
    assert statuses.totals(counts) == {
        "total": 10, "succeeded": 2, "reused": 0, "skipped": 0, "failed": 7, "cancelled": 0
    }  # fmt: skip
    assert statuses.words("timed_out") == "timed out"
