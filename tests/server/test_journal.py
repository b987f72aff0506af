"""The daemon's log about batches and windows."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from gpusched.service import journal
from gpusched.service.journal import Journal
from tests.core.support import Driver, batch, planned


def test_what_is_refused_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gpusched")
    driver = Driver().submit(batch(), [planned(name, refusal=f"{name}.csv:1: no header") for name in ("A", "B")])
    follower = Journal()
    for record in driver.records:
        follower.follow(record)
    assert "data refused batch=b windows=2 first='A.csv:1: no header'" in caplog.messages
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_message_forges_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a member's batch may be called anything."""
    loggers = [logging.getLogger(name) for name in ("gpusched", "asyncio")]
    for logger in loggers:
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "level", logger.level)
        monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    journal.start_logging()
    logging.getLogger("gpusched.daemon").info("batch accepted output=%s", "/é\n<0>ready\x1b[2J\r")
    assert written.getvalue().endswith(r"INFO batch accepted output=/é\n<0>ready\x1b[2J\r" + "\n")
