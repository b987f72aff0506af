from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gpusched.teacher import cache, parsing
from gpusched.teacher.bars import Bars, History
from gpusched.teacher.history import load_history
from gpusched.teacher.rows import Reading, Rows
from gpusched.teacher.schema import Settings
from gpusched.workload import BadData
from tests.teacher.support import bars, walk, write_csv, write_daily

Parsed = list[int]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """Grows by the number of files each time that some are parsed."""
    counts: Parsed = []
    parse = parsing.parse

    def count(paths: Sequence[Path], reading: Reading) -> Rows:
        counts.append(len(paths))
        return parse(paths, reading)

    monkeypatch.setattr(parsing, "parse", count)
    return counts


def load(tmp_path: Path, symbol: str = "ABC") -> Bars:
    return load_history(str(tmp_path / "data"), str(tmp_path / "cache"), symbol, Settings()).bars


def test_notes_and_the_interval_are_kept(tmp_path: Path, parsed: Parsed) -> None:
    path = write_daily(tmp_path / "data", "ABC", walk(30))
    path.write_text(path.read_text() + "2024-06-01T00:00:00+05:30,nan,1,1,1,1\n")
    path.parent.rename(path.parent.with_name("daily"))
    histories = [load_history(str(tmp_path / "data"), str(tmp_path / "cache"), "ABC", Settings()) for _ in range(2)]
    assert (len(parsed), histories[0].notes) == (1, histories[1].notes)
    assert [note.kind for note in histories[1].notes] == ["interval", "dropped"]
    assert histories[1].interval == "daily"


def test_files_are_parsed_again_when_they_are_to_be_read_differently(tmp_path: Path, parsed: Parsed) -> None:
    write_daily(tmp_path / "data", "ABC", walk(30))
    for timezone in ("", "America/New_York", "America/New_York"):
        settings = Settings(timezone=timezone)
        bars = load_history(str(tmp_path / "data"), str(tmp_path / "cache"), "ABC", settings).bars
    assert (len(parsed), bars.timestamps(slice(1))) == (2, ["2023-12-31T13:30:00-05:00"])


def cached_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "bars").iterdir()
    return path


def same(one: Bars, other: Bars) -> bool:
    columns = (f.name for f in dataclasses.fields(Bars))
    pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [(getattr(one, c), getattr(other, c)) for c in columns]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_parsed_once_then_mapped(tmp_path: Path, parsed: Parsed) -> None:
    path = write_daily(tmp_path / "data", "ABC", walk(30))
    path.write_text(path.read_text() + "2024-06-01T00:00:00+05:30,nan,1,1,1,1\n")
    first, second = load(tmp_path), load(tmp_path)
    assert parsed == [1]
    assert same(first, second)
    assert (len(second), second.quality()["invalid_rows"]) == (30, 1)
    assert second.timestamps(slice(None))[0] == "2024-01-01T00:00:00+05:30"
    assert not second.close.flags.writeable
    assert all(column.flags.aligned for column in second.columns())


def _add_file(path: Path) -> None:
    write_csv(path.with_name("more.csv"), path.read_text())


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _grow(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text() + "\n")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _rename(path: Path) -> None:
    path.rename(path.with_name("other.csv"))


@pytest.mark.parametrize("change", [_add_file, _touch, _grow, _rename])
def test_changed_sources_are_parsed_again(tmp_path: Path, parsed: Parsed, change: Callable[[Path], None]) -> None:
    path = write_daily(tmp_path / "data", "ABC", walk(30))
    load(tmp_path)
    change(path)
    load(tmp_path)
    load(tmp_path)
    assert len(parsed) == 2
    assert len(list((tmp_path / "cache" / "bars").iterdir())) == 1


def test_symbols_intervals_and_roots_do_not_mix(tmp_path: Path) -> None:
    names = {cache.cache_path("c", root, symbol, "1d") for root in ("/a", "/b") for symbol in ("M&M", "M_M", "M M")}
    assert len(names) == 6
    assert all(path.parent == Path("c/bars") for path in names)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\0" * len(content),
        lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
        lambda content: content.replace(b'"bars":30', b'"bars":29', 1),
        lambda content: content.replace(b'"bars":30', b'"bars":-1', 1),
        lambda content: content.replace(b'"format":3', b'"format":9', 1),
        lambda content: content.replace(b'"notes":', b'"notes":1', 1),
        lambda content: content.replace(b'"dropped"', b'"dripped"', 1),
        lambda content: b"{" + content,
    ],
)
def test_damage_is_noticed_and_repaired(tmp_path: Path, parsed: Parsed, damage: Callable[[bytes], bytes]) -> None:
    write_daily(tmp_path / "data", "ABC", walk(30))
    whole = load(tmp_path)
    path = cached_file(tmp_path)
    content = path.read_bytes()
    # A new file: the bars above are mapped from the old one.
    path.unlink()
    path.write_bytes(damage(content))
    assert same(load(tmp_path), whole)
    assert parsed == [1, 1]
    assert path.read_bytes() == content


def test_without_a_cache_it_only_takes_longer(tmp_path: Path, parsed: Parsed, caplog: pytest.LogCaptureFixture) -> None:
    write_daily(tmp_path / "data", "ABC", walk(30))
    (tmp_path / "cache").write_text("not a directory")
    with caplog.at_level(logging.WARNING):
        assert [len(load(tmp_path)), len(load(tmp_path))] == [30, 30]
    assert parsed == [1, 1]
    assert "cannot write the cache of bars" in caplog.text


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str, **places: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        cache.save(tmp_path / "bars" / "x", "digest", History(bars(walk(3)), "1d"))
    assert list((tmp_path / "bars").iterdir()) == []


def _rewrite(path: Path, seed: int, until: float) -> None:
    content = History(bars(walk(200 + seed, seed)), "1d")
    while time.monotonic() < until:
        cache.save(path, "digest", content)


@pytest.mark.filterwarnings("ignore:.* use of fork:DeprecationWarning")  # by Python 3.15: xdist has a thread
def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bars" / "x"
    cache.save(path, "digest", History(bars(walk(200, 0)), "1d"))
    until = time.monotonic() + 0.6
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_rewrite, args=(path, seed, until)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    seen = set()
    while time.monotonic() < until:
        found = cache.load(path, "digest")
        assert found is not None
        seen.add(len(found.bars))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {200, 201}
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_history_is_cached_too(tmp_path: Path, parsed: Parsed) -> None:
    write_daily(tmp_path / "data", "ABC", [])
    assert [len(load(tmp_path)), len(load(tmp_path)), len(parsed)] == [0, 0, 1]


def test_broken_sources_leave_no_cache(tmp_path: Path) -> None:
    write_csv(tmp_path / "data" / "ABC.csv", "nothing\n")
    with pytest.raises(BadData):
        load(tmp_path)
    assert not (tmp_path / "cache").exists()
