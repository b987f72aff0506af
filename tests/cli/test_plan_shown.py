"""`plan` for people: many windows are summed up by symbol, and an estimate says how much it knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpusched.runs import forecast
from tests.cli.shells import Shell
from tests.end_to_end.support import Command
from tests.end_to_end.terminal import Terminal
from tests.supervisor.test_imports_told import SLOW

DATES = ("--start", "2022-01-01", "--end", "2022-12-31", "--device", "cpu")
UNKNOWN = "Estimated time: unknown (no window of this workload has been trained into this directory yet)"


def test_a_plan_of_many_windows_in_a_terminal(tmp_path: Path) -> None:
    command = Command(tmp_path)
    (tmp_path / "data").mkdir()
    rows = "".join(f"2022-{1 + day // 28:02}-{1 + day % 28:02},1,2,1,{1 + day % 3},9\n" for day in range(330))
    (tmp_path / "data" / "ABC.csv").write_text(f"timestamp,open,high,low,close,volume\n{rows}")
    asked = ("plan", "--symbols", "ABC,NONE", *DATES, "--data-root", "data", "--window-days", "30")
    with Terminal(command, *asked) as terminal:
        shown = terminal.rest()
        assert terminal.end() == 0
    lines = shown.splitlines()
    assert "ABC_2022" not in shown
    assert "usable rows" in shown
    assert any("NONE" in line and "no data" in line for line in lines)
    assert re.search(r"Estimated time: (\S+|up) to \S+ \(a guess", shown)
    with Terminal(command, *asked, "--windows") as terminal:
        assert terminal.rest().count("ABC_2022") == 12


def test_the_time_of_an_unknown_workload_is_unknown(tmp_path: Path) -> None:
    command = Command(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "heavy.py").write_text("")
    asked = ("--symbols", "ABC", *DATES, "--data-root", "data", "--workload", "./slow.py:train", "-o", "out")
    assert UNKNOWN in command.said("plan", *asked)[1]
    assert command.json("plan", *asked)["estimated_seconds"] is None
    command("run", *asked)
    _, later = command.said("plan", *asked, "--window-days", "20")
    assert "Estimated time: " in later
    assert "unknown" not in later


def test_a_plan_that_takes_long_says_how_far_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "SURVEY_NOTE_S", 0.0)
    assert "Looking at the data: 2/2 symbols\n" in shell("plan", "symbols.txt", *DATES).err
