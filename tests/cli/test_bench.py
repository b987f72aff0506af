"""`gpusched bench`: like for like, and its limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusched.cli.commands.bench import IDLE, LAUNCH, LEAVE, Measured, limit, report
from gpusched.sample import write_sample
from tests.end_to_end.support import Command
from tests.waiting import PATIENCE_S


def run(slots: int, seconds: float, **phases: float) -> Measured:
    return Measured(slots=slots, seconds=seconds, total=12, trained=10, phases=phases)


def test_medians_by_slots_and_shares_largest_first() -> None:
    found = report(
        [run(1, 8.0, boosting=6.0, load=2.0), run(4, 2.0, boosting=5.0, idle=3.0), run(1, 10.0), run(4, 4.0)]
    )
    assert [measured["slots"] for measured in found["runs"]] == [1, 4]
    one, four = found["runs"]
    assert (one["seconds"], one["least_seconds"], one["most_seconds"]) == (9.0, 8.0, 10.0)
    assert four["windows_per_second"] == pytest.approx(10 / 3, abs=1e-3)
    assert list(four["shares"]) == ["boosting", "idle"]
    assert four["shares"]["boosting"] == 0.625
    assert (found["windows"], found["repeat"], found["speedup"]) == (10, 2, 3.0)


def test_what_limits_it_is_said_in_words() -> None:
    assert "too few" in limit({IDLE: 0.6, "boosting": 0.4}, 1.0)
    assert "processes: 60%" in limit({"boosting": 0.4, LAUNCH: 0.35, LEAVE: 0.25}, 1.0)
    assert limit({"boosting": 0.8, IDLE: 0.2}, 0.9) == "boosting, 80% of the time"
    assert "share cores" in limit({"boosting": 0.8, IDLE: 0.2}, 0.5)


def test_it_measures_the_users_own_data_and_leaves_nothing(tmp_path: Path) -> None:
    write_sample(tmp_path)
    (tmp_path / "symbols.txt").write_text("IBM\n")
    gpusched = Command(tmp_path)
    dates = ("--start", "2006-01-01", "--end", "2006-12-31", "--window-days", "120")
    before = {path.name for path in tmp_path.iterdir()}
    found = gpusched.json("bench", "symbols.txt", *dates, "--workers", "2", "--repeat", "1")
    assert [measured["slots"] for measured in found["runs"]] == [1, 2]
    assert found["windows"] == 3
    for measured in found["runs"]:
        assert {"boosting", "artifacts", "commit", LAUNCH, LEAVE, IDLE} <= set(measured["shares"])
        assert sum(measured["shares"].values()) == pytest.approx(1.0, abs=0.01)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"cache"}


def test_nothing_to_train_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "symbols.txt").write_text("NONE\n")
    with Command(tmp_path).start("bench", "symbols.txt", "--start", "2006-01-01", "--end", "2006-12-31") as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 5
    assert "gpusched plan" in err
