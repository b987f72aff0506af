"""The daemon's log about batches and windows."""

from __future__ import annotations

import logging

import pytest

from gpusched.service.journal import Journal
from tests.core.support import Driver, batch, planned


def test_what_is_refused_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gpusched")
    driver = Driver().submit(batch(), [planned(name, refusal=f"{name}.csv:1: no header") for name in ("A", "B")])
    journal = Journal()
    for record in driver.records:
        journal.follow(record)
    assert "data refused batch=b windows=2 first='A.csv:1: no header'" in caplog.messages
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
