"""Other limits, workers or priority of a batch that is at work: applied, recorded, and in force at once."""

from __future__ import annotations

import pytest

from gpusched.core.events import BatchAltered, TermsRequested
from gpusched.core.model import Limits
from gpusched.core.states import Running, Stopping
from gpusched.core.terms import NAMES, differences, terms_of, with_terms
from tests.core.support import Driver, batch, cpu, key

LIMITS = Limits(timeout_s=100.0, grace_s=5.0)


def test_terms_are_all_that_is_no_part_of_a_batch() -> None:
    spec = batch(limits=LIMITS, workers=3, priority=-1).spec
    assert set(terms_of(spec)) == set(NAMES)
    assert with_terms(spec, terms_of(spec)) == spec
    other = with_terms(spec, {"timeout_s": 60, "priority": 2})
    assert (other.limits.timeout_s, other.limits.grace_s, other.priority, other.workers) == (60.0, 5.0, 2, 3)
    assert differences(spec, other) == ("timeout_s 100 → 60", "priority -1 → 2")


@pytest.mark.parametrize("terms", [{"horizon": 3}, {"timeout_s": "long"}, {"priority": 1.5}, {"max_attempts": None}])
def test_what_cannot_be_a_term(terms: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        with_terms(batch().spec, terms)


def altered(driver: Driver, **terms: object) -> list[str]:
    driver.send(TermsRequested(batch_id="b", terms=terms))
    return [change for record in driver.records if isinstance(record, BatchAltered) for change in record.changes]


def test_what_runs_is_held_to_a_shorter_timeout_from_its_start() -> None:
    driver = Driver().submit(batch(limits=LIMITS), ["A"]).start(key("A"))
    driver.wait(30)
    assert altered(driver, timeout_s=40) == ["timeout_s 100 → 40"]
    driver.wait(9)
    assert isinstance(driver.state(key("A")), Running)
    driver.wait(2)
    assert isinstance(driver.state(key("A")), Stopping)


def test_what_runs_profits_from_a_longer_timeout() -> None:
    driver = Driver().submit(batch(limits=LIMITS), ["A"]).start(key("A"))
    driver.wait(30)
    altered(driver, timeout_s=200)
    driver.wait(100)
    assert isinstance(driver.state(key("A")), Running)
    altered(driver, timeout_s=0)
    driver.wait(1000)
    assert isinstance(driver.state(key("A")), Running)
    altered(driver, timeout_s=50)
    driver.wait(0)
    assert isinstance(driver.state(key("A")), Stopping)


def test_workers_and_priority_count_from_the_next_placement() -> None:
    driver = Driver(cpu(2)).submit(batch(workers=1), ["A", "B"])
    assert driver.launched == ["A"]
    altered(driver, workers=0)
    assert driver.launched == ["B"]


def test_the_same_terms_are_no_change() -> None:
    driver = Driver().submit(batch(limits=LIMITS), ["A"])
    assert altered(driver, timeout_s=100.0) == []
    assert driver.send(TermsRequested(batch_id="unknown", terms={"priority": 1})).records == []
