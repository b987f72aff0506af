"""File systems that ignore case: NTFS and exFAT as they are mounted on many desktops, a casefolded ext4."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusched.core.model import PlannedWindow, Window
from gpusched.core.planning import Plan
from gpusched.outputs import ignores_case
from gpusched.supervisor.existing import NamesAlike, refuse_alike
from tests.supervisor.support import END, START


@pytest.fixture
def ignoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with one entry that is found under two spellings and listed under one."""
    for name in ("entry", "ENTRY"):
        (tmp_path / name).touch()
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [name for name in listed(path) if name != "ENTRY"])
    return tmp_path


def test_an_entry_shows_whether_case_counts(tmp_path: Path) -> None:
    assert not ignores_case(tmp_path), "nothing is there to show it"
    (tmp_path / "entry").touch()
    assert not ignores_case(tmp_path / "made later")


def test_it_is_shown_above_a_directory_that_is_still_to_be_made(ignoring: Path) -> None:
    assert ignores_case(ignoring / "made later")


def test_two_windows_that_would_share_a_directory_are_refused(ignoring: Path) -> None:
    with pytest.raises(NamesAlike, match="AAPL and aapl would have their results in one place"):
        refuse_alike(plan("AAPL", "aapl"), ignoring)
    refuse_alike(plan("AAPL", "IBM"), ignoring)


def plan(*symbols: str) -> Plan:
    return Plan(windows=tuple(PlannedWindow(window=Window(symbol, START, END)) for symbol in symbols))
