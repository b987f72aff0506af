"""Forgetting: records, logs, results go; files that are not provably gpusched's stay; a kill half-way loses nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import msgspec
import pytest

from gpusched import known_results
from gpusched.config import Cache, Config
from gpusched.core.events import BatchFinished
from gpusched.core.states import Finished, Reused
from gpusched.errors import InputError
from gpusched.protocol import Snapshot
from gpusched.service.forgetting import Forgetting
from gpusched.service.pruning import prune_bars
from gpusched.store.store import Store
from gpusched.supervisor.arrivals import Arrivals
from gpusched.supervisor.choice import Chooser
from gpusched.teacher.cache import cache_path
from tests.server.support import Daemon, finished
from tests.store import samples
from tests.waiting import PATIENCE_S


def submitted(daemon: Daemon, name: str, *symbols: str, windows: int = 2, output: Path | None = None) -> Path:
    with daemon.connect() as connection:
        batch = connection.submit(
            daemon.spec(*symbols, windows=windows), source="s", name=name, output_dir=output
        ).batch
    finished(daemon, name)
    return Path(batch.output_dir)


def results(output: Path) -> set[str]:
    return {path.parent.name for path in output.glob("*/metadata.json")}


def test_records_and_logs_go_and_results_stay(daemon: Daemon) -> None:
    output = submitted(daemon, "plain", "A", "BAD", "DIE")
    logs = daemon.directory / "state" / "logs" / "plain"
    assert any(logs.iterdir())
    with daemon.connect() as connection:
        forgotten = connection.forget("plain")
        assert (forgotten.batches, forgotten.windows, forgotten.results) == (("plain",), 6, 0)
        assert not logs.exists()
        for ask in (connection.batch, connection.forget, partial(connection.change, "retry")):
            with pytest.raises(InputError, match="there is no batch plain"):
                ask("plain")
        assert "plain" not in {batch.id for batch in connection.batches()}
    assert len(results(output)) == 4
    assert (output / "teacher_runs.json").exists()
    # The same question is a new batch, which reuses the results.
    submitted(daemon, "plain", "A", "BAD", "DIE")
    with daemon.connect() as connection:
        assert connection.batch("plain").batch.counts == {"reused": 4, "failed": 2}


def test_results_go_where_they_are_provably_ours(daemon: Daemon, tmp_path: Path) -> None:
    output = submitted(daemon, "gone", "A", "B", "C", "D")
    labels = sorted(results(output))
    (output / labels[0] / "notes.txt").write_text("somebody's")
    moved = tmp_path / "bigger disk"
    (output / labels[1]).rename(moved)
    (output / labels[1]).symlink_to(moved)
    changed = output / labels[2] / "metadata.json"
    changed.write_text(changed.read_text().replace('"fingerprint": "', '"fingerprint": "other'))
    (output / labels[3] / "model.txt").unlink()
    (output / labels[3] / "model.txt").symlink_to(moved / "model.txt")
    (output / "README").write_text("somebody's")
    with daemon.connect() as connection:
        forgotten = connection.forget("gone", results=True)
    assert forgotten.results == 4
    assert {Path(path).name for path in forgotten.kept} == set(labels[:4])
    assert {path.name for path in output.iterdir()} == {*labels[:4], "README"}
    assert (moved / "model.txt").exists()


def test_what_another_batch_has_there_too_is_not_removed(daemon: Daemon, tmp_path: Path) -> None:
    output = submitted(daemon, "one", "A", output=tmp_path / "out")
    (tmp_path / "alias").symlink_to(output)
    submitted(daemon, "two", "A", output=tmp_path / "alias")
    with daemon.connect() as connection:
        with pytest.raises(InputError, match="batch two has its own"):
            connection.forget("one", results=True)
        connection.forget("two")
        assert connection.forget("one", results=True).results == 2
    assert results(output) == set()


def test_what_is_at_work_is_not_forgotten(daemon: Daemon) -> None:
    with daemon.fifo() as release:
        with daemon.connect() as connection:
            connection.submit(daemon.spec("FIFO"), source="s", name="busy")
            with pytest.raises(InputError, match="batch busy is not finished\n  `gpusched cancel busy`"):
                connection.forget("busy")
        release()
        finished(daemon, "busy")
        with daemon.connect() as connection:
            assert connection.forget("busy").windows == 1


def test_all_that_is_older(service: Daemon) -> None:
    service.start()
    for name in ("a", "b"):
        submitted(service, name, "A")
    with service.connect() as connection:
        assert connection.forget(older_than_s=3600).batches == ()
        with pytest.raises(InputError, match="neither a batch nor an age"):
            connection.forget()
        # Both have the same directories neither in common nor with others.
        assert connection.forget(older_than_s=0, results=True).batches == ("a", "b")
        assert connection.batches() == ()
    service.stop()


def test_a_kill_half_way_is_made_good_at_the_next_start(service: Daemon) -> None:
    service.start()
    output = submitted(service, "half", "A", windows=4)
    assert service.stop() == 0
    path = service.directory / "state" / "state.db"
    with Store.open(path) as store:
        store.mark_forgotten("half", results=True)
        assert store.remove_forgotten("half", 2) == 2
        assert store.forgotten() == [("half", str(output), True)]
    logs = service.directory / "state" / "logs" / "half"
    logs.mkdir(exist_ok=True)
    service.start()
    with service.connect() as connection:
        assert connection.batches() == ()
        # It waits for the removal, and takes the place.
        connection.submit(service.spec("A", windows=4), source="s", name="half")
        assert finished(service, "half").counts == {"reused": 2, "succeeded": 2}
    service.stop()
    with Store.open(path) as store:
        assert store.forgotten() == []


async def test_a_removal_that_a_submission_has_outrun_is_not_completed(tmp_path: Path) -> None:
    """It took the logs and the results of the batch that had just been accepted."""
    output, removed, passed = tmp_path / "output", list[str](), anyio.Event()
    again = samples.accepted(windows=1, state=Finished(attempts=0, outcome=Reused(result=samples.RESULT)))
    again = msgspec.structs.replace(again, batch=msgspec.structs.replace(again.batch, output_dir=str(output)))

    class Admission:
        @contextlib.asynccontextmanager
        async def one_at_a_time(self, batch_id: str) -> AsyncIterator[None]:
            store.record([again])  # by whoever had the lock first
            yield
            passed.set()

        @contextlib.asynccontextmanager
        async def clearing(self, batch_id: str, output_dir: Path) -> AsyncIterator[None]:
            yield

    class Engine:
        async def remove_logs(self, batch_id: str) -> None:
            removed.append(batch_id)

    with Store.open(tmp_path / "state.db") as store:
        store.record([again, BatchFinished(batch_id="b", at=1.0)])
        store.mark_forgotten("b", results=True)
        runtime = SimpleNamespace(
            engine=Engine(), store=store, supervisor=SimpleNamespace(arrivals=Arrivals()), config=Config()
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Forgetting(cast(Any, runtime), cast(Any, Admission())).run)
            with anyio.fail_after(PATIENCE_S):
                await passed.wait()
            tasks.cancel_scope.cancel()
        row = store.batch("b")
        assert row is not None
        assert row.counts == {"reused": 1}
    assert removed == []


def test_a_window_that_said_nothing_leaves_no_log(daemon: Daemon) -> None:
    submitted(daemon, "quiet", "QUIET", windows=1)
    with daemon.connect() as connection:
        (window,) = connection.windows("quiet")
        assert list(connection.log("quiet", window.key.label)) == []
    assert not list((daemon.directory / "state" / "logs" / "quiet").glob("QUIET*"))


def bars(cache: Path, symbol: str, *, days: float, size: int = 10, written: str = "{}") -> Path:
    """A file of the cache that was last used so many days ago; `written`: its name while it is being written."""
    path = cache_path(str(cache), "data", symbol, "1d")
    return aged(path.with_name(written.format(path.name)), days, size)


def aged(path: Path, days: float, size: int = 10) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - days * 86400,) * 2)
    return path


def test_bars_that_nobody_uses_are_pruned(tmp_path: Path) -> None:
    mebibyte = 1024 * 1024
    kept = bars(tmp_path, "M&M", days=1, size=mebibyte)
    used = bars(tmp_path, "BAJAJ-AUTO", days=5, size=mebibyte)
    unused = bars(tmp_path, "BTC=F", days=9, size=mebibyte)
    old = bars(tmp_path, "^NSEI", days=31)
    half, halves = (bars(tmp_path, "A.B", days=days, written=".{}.tmp" + end) for days, end in ((2, ""), (0, ".2")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    link = tmp_path / "bars" / f"link.{'0' * 16}"
    link.symlink_to(elsewhere)
    assert prune_bars(Cache(dir=tmp_path, keep_days=0, limit_mb=0)) == 1  # the half one
    assert not half.exists()
    assert prune_bars(Cache(dir=tmp_path, keep_days=30, limit_mb=0)) == 1
    assert not old.exists()
    assert prune_bars(Cache(dir=tmp_path, keep_days=30, limit_mb=3)) == 1
    assert not unused.exists()
    assert prune_bars(Cache(dir=tmp_path, keep_days=30, limit_mb=3)) == 0
    assert all(path.exists() for path in (kept, used, halves, elsewhere, link))
    assert prune_bars(Cache(dir=tmp_path / "none")) == 0


def test_the_cache_may_lie_beside_the_data(tmp_path: Path) -> None:
    theirs = [aged(tmp_path / "bars" / name, 400, 4096) for name in ("AAPL.csv", "BTC.parquet", "notes", ".env")]
    theirs += [aged(tmp_path / "results" / name, 400, 4096) for name in ("thesis.txt", ".hidden", "0123abcd")]
    known_results.opened_for(tmp_path, tmp_path, None).close()
    (index,) = (path for path in (tmp_path / known_results.DIRECTORY).iterdir() if path not in theirs)
    os.utime(index, (1, 1))
    ours = bars(tmp_path, "AAPL", days=400)
    assert prune_bars(Cache(dir=tmp_path, keep_days=1, limit_mb=1)) == 2
    assert not ours.exists()
    assert not index.exists()
    assert all(path.exists() for path in theirs)


def test_the_state_may_lie_beside_files_of_a_user(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "timing-2023" / "laps.csv", tmp_path / "gpusched-timing-x1" / "model.txt"
    for file in (theirs, ours):
        file.parent.mkdir()
        file.touch()
    Chooser(None, None, None, None, tmp_path).sweep()  # type: ignore[arg-type]
    assert theirs.exists()
    assert not ours.exists()


def test_whoever_looks_on_sees_it_go(daemon: Daemon) -> None:
    submitted(daemon, "watched", "A", windows=1)
    with daemon.connect() as looking, daemon.connect() as connection:
        subscription = looking.subscribe()
        assert "watched" in {batch.id for batch in subscription.snapshot.batches}
        connection.forget("watched")
        shown = next(delta for delta in subscription if isinstance(delta, Snapshot))
        assert "watched" not in {batch.id for batch in shown.batches}
