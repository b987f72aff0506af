from __future__ import annotations

import datetime as dt
from pathlib import Path

from gpusched.sample import SYMBOLS, write_sample
from gpusched.teacher import survey
from gpusched.teacher.history import load_history
from gpusched.teacher.schema import Settings
from gpusched.workload import DateRange, SurveyTask


def test_what_is_in_it(tmp_path: Path) -> None:
    assert write_sample(tmp_path) == list(SYMBOLS)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [f"{symbol}.csv" for symbol in SYMBOLS]
    counts = {}
    for symbol in SYMBOLS:
        bars = load_history(str(tmp_path / "data"), str(tmp_path / "cache"), symbol, Settings()).bars
        counts[symbol] = (len(bars), *(bars.dates() or ()))
        assert sum(bars.quality().values()) == 0
    last = dt.date(2013, 3, 1)
    assert counts == {
        "AAPL": (3270, dt.date(2000, 3, 1), last),
        "FB": (196, dt.date(2012, 5, 18), last),
        "GOOG": (2148, dt.date(2004, 8, 19), last),
        "IBM": (3270, dt.date(2000, 3, 1), last),
        "MSFT": (3270, dt.date(2000, 3, 1), last),
    }


def test_a_known_day(tmp_path: Path) -> None:
    write_sample(tmp_path)
    lines = (tmp_path / "data" / "AAPL.csv").read_text().splitlines()
    assert lines[:2] == ["Date,Open,High,Low,Close,Volume", "2000-03-01,118.56,132.06,118.5,130.31,9616100"]


def test_writing_it_again_replaces_it(tmp_path: Path) -> None:
    write_sample(tmp_path)
    path = tmp_path / "data" / "IBM.csv"
    content = path.read_bytes()
    path.write_text("")
    write_sample(tmp_path)
    assert path.read_bytes() == content
    assert len(list(path.parent.iterdir())) == len(SYMBOLS)


def test_it_can_be_trained_on(tmp_path: Path) -> None:
    write_sample(tmp_path)
    year = DateRange(dt.date(2012, 1, 1), dt.date(2012, 12, 31))
    root, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    for symbol in SYMBOLS:
        task = SurveyTask(symbol=symbol, windows=(year,), data_root=root, cache_dir=cache, settings={})
        (seen,) = survey(task).windows
        assert seen.skip_reason is None
