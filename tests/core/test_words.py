"""The small words of the core: numbers of things, lists that are cut, names of logs, and the batch of an update."""

from __future__ import annotations

import pytest

from gpusched.core.events import (
    BatchAccepted,
    BatchHeld,
    DeviceChanged,
    ProgressReported,
    Update,
    WindowsAdded,
)
from gpusched.core.logs import log_name, log_of
from gpusched.core.updates import batch_of
from gpusched.core.wording import counted, first_few, surveying
from tests.core.support import batch, key


def test_numbers_of_things() -> None:
    assert [counted(n, "window") for n in (0, 1, 2)] == ["0 windows", "1 window", "2 windows"]
    assert counted(3, "is", "are") == "3 are"


def test_a_survey_tells_how_far_it_is() -> None:
    assert surveying(3, 36) == "Looking at the data: 3/36 symbols"
    assert surveying(0, 1) == "Looking at the data: 0/1 symbol"


def test_a_list_is_cut_when_it_is_longer() -> None:
    assert first_few(["A", "B"], 2) == "A, B"
    assert first_few(["A", "B", "C"], 2) == "A, B and 1 more"
    assert first_few(["A"] * 2001, 1) == "A and 2,000 more"


def test_a_log_lies_in_the_directory_of_its_batch() -> None:
    one = key("A")
    assert log_of(one, 2) == f"{one.batch_id}/{log_name(one.label, 2)}"
    assert log_name("W", 2) == "W.2.log"


@pytest.mark.parametrize(
    ("update", "batch_id"),
    [
        (BatchAccepted(batch=batch("one"), windows=(), at=0.0), "one"),
        (WindowsAdded(batch=batch("one"), windows=(), first=True, at=0.0), "one"),
        (BatchHeld(batch_id="one", reason="by request", at=0.0), "one"),
        (ProgressReported(key=key("A", "one"), attempt=1, phase="boosting"), "one"),
        (DeviceChanged(device_id="cpu", health="open", reason="", at=0.0), None),
    ],
)
def test_each_update_is_about_a_batch_or_a_device(update: Update, batch_id: str | None) -> None:
    assert batch_of(update) == batch_id
